"""The Python blocks in the documentation run on four ranks, with the names that the words before them give."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import evenspan
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
import transformers
from groups import results, run_ranks

ROOT = Path(__file__).resolve().parents[2]
EXEMPT = r"(?P<exempt><!-- not run by the tests: [^\n]+ -->\n)?"
BLOCK = re.compile(EXEMPT + r"^```python\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
FILES = [
    path
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    if any(not block["exempt"] for block in BLOCK.finditer(path.read_text()))
]


def names() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(4)
    q, k, v = (torch.randn(8192 + 3000 + 700, heads, 64, generator=generator) for heads in (8, 2, 2))
    torch.manual_seed(4)
    config = transformers.LlamaConfig(
        vocab_size=31, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4
    )
    model = transformers.AutoModelForCausalLM.from_config(config)
    return {
        "group": dist.group.WORLD, "q": q, "k": k, "v": v,
        "model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "loader": [[[1, 2, 3, 4, 5, 6, 7], [8, 9]], [[5, 4, 3, 2], [1, 2, 3, 4, 5, 6]], [[3, 1, 2]]],
        "prompt": torch.tensor([[1, 2, 3]]),
    }  # fmt: skip


def run_blocks(path: Path) -> tuple[float, bool]:
    """The largest error of `out` in the last document, 0 on a page without, and whether every parameter was trained."""
    given = names()
    before = [p.clone() for p in given["model"].parameters()]
    known = dict(given)
    for block in BLOCK.finditer(path.read_text()):
        if not block["exempt"]:
            exec(compile(block["body"], str(path), "exec"), known)
    error = 0.0
    if "out" in known:
        q, k, v = (given[name][-700:].transpose(0, 1) for name in "qkv")
        expected = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).transpose(0, 1)
        whole = evenspan.unshard(known["out"], known["plan"], dist.group.WORLD)
        error = (whole[-700:] - expected).abs().max().item()
    after = zip(given["model"].parameters(), before, strict=True)
    return error, all(p.grad is not None or not p.equal(old) for p, old in after)


def test_there_are_blocks() -> None:
    assert ROOT / "README.md" in FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_blocks(path: Path) -> None:
    for error, trained in results(run_ranks(4, partial(run_blocks, path))):
        assert error < 1e-5
        assert trained
