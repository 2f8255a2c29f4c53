"""What is compared: batches of packed documents, head shapes and element types."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
TOKENS = 8192
DTYPES = {"bf16": torch.bfloat16, "f32": torch.float32}


@dataclass(frozen=True)
class Shape:
    """Heads of an attention layer."""

    heads: int = 8
    kv_heads: int = 2
    head_dim: int = 64

    def __str__(self) -> str:
        """Return query heads / kv heads x dimension."""
        return f"{self.heads}/{self.kv_heads} x {self.head_dim}"


SHAPES = [Shape(), Shape(8, 8, 64), Shape(8, 1, 64), Shape(8, 2, 128)]


@dataclass(frozen=True)
class Batch:
    """A batch with the shape and type of its tensors, for a number of ranks."""

    name: str
    lengths: tuple[int, ...]
    shape: Shape = field(default_factory=Shape)
    dtype: str = "f32"
    ranks: int = 2
    profile: str | None = None  # a JSON file that says what the machine costs, for strategies that ask

    @property
    def num_tokens(self) -> int:
        """Tokens of all documents."""
        return sum(self.lengths)

    @property
    def title(self) -> str:
        """Name, heads and type."""
        return f"{self.name}, {self.shape}, {self.dtype}"

    @property
    def causal_pairs(self) -> int:
        """Pairs of a query and a key that it sees, for each query head."""
        return self.shape.heads * sum(n * (n + 1) // 2 for n in self.lengths)


def _sample(name: str, seed: int) -> tuple[int, ...]:
    """Draw documents of a published list, cut at a quarter of the batch, that sum to TOKENS."""
    lengths = list(map(int, (ROOT / f"bench/data/{name}_20000.txt").read_text().split()))
    generator = random.Random(seed)
    batch: list[int] = []
    while (left := TOKENS - sum(batch)) > 0:
        batch.append(min(generator.choice(lengths), TOKENS // 4, left))
    return tuple(batch)


def _tiny() -> tuple[int, ...]:
    generator = random.Random(5)
    return tuple(generator.randint(1, 8) for _ in range(2048))


def lengths_by_name() -> dict[str, tuple[int, ...]]:
    """Return the documents of every batch."""
    return {
        "one long": (TOKENS,),
        "eight equal": (1024,) * 8,
        "long-tailed": (4096, 1700, 900, 512, 300, 211, 150, 120, 80, 50, 40, 20, 10, 3),
        "128 short": tuple(33 + i * 37 % 64 for i in range(128)),
        "odd": (3001, 2003, 1009, 701, 503, 401, 293, 127, 79, 41, 23, 7, 3),
        "ProLong": _sample("prolong", 11),
        "Wikipedia": _sample("wikipedia", 12),
        "2048 tiny": _tiny(),
    }


def batches(ranks: int) -> list[Batch]:
    """Return all: every batch with the first shape in both types, the long-tailed one with the other shapes too."""
    named = lengths_by_name()
    found = [Batch(name, lengths, SHAPES[0], dtype, ranks) for name, lengths in named.items() for dtype in DTYPES]
    tailed = named["long-tailed"]
    found += [Batch("long-tailed", tailed, shape, dtype, ranks) for shape in SHAPES[1:] for dtype in DTYPES]
    return found


def tensors(batch: Batch) -> list[torch.Tensor]:
    """Return query, key, value and the output's gradient of all tokens: the same on every rank and for every layout."""
    generator = torch.Generator().manual_seed(1000 + batch.num_tokens)
    shape = batch.shape
    return [
        torch.randn(batch.num_tokens, heads, shape.head_dim, generator=generator).to(DTYPES[batch.dtype])
        for heads in (shape.heads, shape.kv_heads, shape.kv_heads, shape.heads)
    ]
