"""docs/families.md: every decoder family of transformers is equal to one rank, or refused by attach with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers
from families import rows
from groups import results, run_ranks

TABLE = Path(__file__).resolve().parents[2] / "docs" / "families.md"
BEGIN = "<!-- written by tests/processes/test_families.py -->\n"
MADE_WITH = "5.23.0"  # the release that the table is of


def table(found: dict[str, tuple[str, str]]) -> str:
    lines = ["| `model_type` | class | |", "|---|---|---|"]
    lines += [f"| {family} | {name} | {text} |" for family, (name, text) in sorted(found.items())]
    equal = sum(text.startswith("equal") for _, text in found.values())
    return f"\n{equal} of {len(found)} families are equal, the others are refused.\n\n" + "\n".join(lines) + "\n"


def test_every_family_is_equal_or_refused(request: pytest.FixtureRequest) -> None:
    first, second = results(run_ranks(2, rows, limit_seconds=900))
    assert first == second
    neither = {family: text for family, (_, text) in first.items() if text.startswith("neither")}
    assert neither == {}
    head, _, written = TABLE.read_text().partition(BEGIN)
    if request.config.getoption("--update-families"):
        TABLE.write_text(head + BEGIN + table(first))
    elif transformers.__version__ == MADE_WITH:
        assert table(first) == written, "pytest tests/processes/test_families.py --update-families writes it anew"
