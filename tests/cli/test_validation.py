"""docs/validation.md holds what bench/validation.py prints, and that is what it says."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from program import BINARY, ROOT

sys.path.insert(0, str(ROOT / "bench"))
import validation

LARGE = {"magi-large", "balance-large"}  # a minute: rings on 32 and 64 ranks


@pytest.fixture(autouse=True)
def program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "PROGRAM", BINARY)


@pytest.mark.parametrize("name", sorted(validation.TABLES.keys() - LARGE))
def test_the_page_has_what_the_script_prints(name: str) -> None:
    in_page = validation.in_page(name, validation.PAGE.read_text())[0]
    assert in_page == validation.markdown(validation.TABLES[name]()), "run `python bench/validation.py --write`"


def test_the_page_has_all_tables() -> None:
    page = validation.PAGE.read_text()
    assert page.count("<!-- table ") == len(validation.TABLES)
    for name in validation.TABLES:
        assert validation.in_page(name, page)[0].count("\n") > 2, name
    for ranks in validation.LARGE:
        assert f"| {ranks}, forward |" in page and f"| {ranks}, backward |" in page


def test_a_table_without_a_place() -> None:
    with pytest.raises(ValueError, match="none for attention"):
        validation.in_page("attention", "# A page\n")


def test_rank_correlation() -> None:
    assert validation.spearman([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1)
    assert validation.spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    assert validation.spearman([1, 2, 3], [5, 5, 9]) == pytest.approx(0.866, abs=1e-3)


def test_batches() -> None:
    batch = validation.magi_batch(16, 0)
    assert sum(batch) == 16 * 8192 and min(batch) > 0 and max(batch) <= 16 * 8192 // 4
    assert batch == validation.magi_batch(16, 0) != validation.magi_batch(16, 1)
    parts = validation.micro_batches([5, 9, 1, 7, 3], 10)
    assert parts == [[9], [7, 1], [5, 3]]


def test_writing_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A\n<!-- table x -->\nold\n<!-- end -->\nB\n")

    def rows() -> Iterator[list[str]]:
        yield ["a", "b"]
        yield ["1", "2"]

    monkeypatch.setattr(validation, "PAGE", page)
    monkeypatch.setattr(validation, "TABLES", {"x": rows})
    monkeypatch.setattr(sys, "argv", ["validation.py", "--write"])
    assert validation.main() == 0
    assert page.read_text() == "# A\n<!-- table x -->\n| a | b |\n|---|---|\n| 1 | 2 |\n<!-- end -->\nB\n"
