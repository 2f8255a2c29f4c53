"""`python -m evenspan tokenize`: what it writes is read again by the offsets of the format."""

from __future__ import annotations

import json
from pathlib import Path

import evenspan
import numpy as np
import pytest
import tokenizers
import transformers
from command import run
from evenspan._tokenize import write_indexed


def read_indexed(prefix: Path) -> list[list[int]]:
    """Reads .bin and .idx by the offsets of the format."""
    index = Path(f"{prefix}.idx").read_bytes()
    assert index[:9] == b"MMIDIDX\0\0" and int.from_bytes(index[9:17], "little") == 1
    dtype = {8: "<u2", 4: "<i4"}[index[17]]
    count, num_documents = (int.from_bytes(index[at : at + 8], "little") for at in (18, 26))
    lengths = np.frombuffer(index, "<i4", count, 34)
    pointers = np.frombuffer(index, "<i8", count, 34 + 4 * count)
    documents = np.frombuffer(index, "<i8", num_documents, 34 + 12 * count)
    assert documents.tolist() == list(range(count + 1)) and len(index) == 34 + 12 * count + 8 * num_documents
    tokens = Path(f"{prefix}.bin").read_bytes()
    return [np.frombuffer(tokens, dtype, n, at).tolist() for n, at in zip(lengths, pointers, strict=True)]


def test_tokenize_round_trip(tmp_path: Path) -> None:
    words = ["[UNK]", "<end>", "a", "b", "c"]
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[UNK]").save_pretrained(tmp_path / "tok")
    (tmp_path / "in").mkdir()
    texts = ["a b c", "", "c c z"]
    (tmp_path / "in" / "x.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    (tmp_path / "in" / "y.txt").write_text("b\nb")
    arguments = ["--tokenizer", tmp_path / "tok", "--out", tmp_path / "out", "--end-of-document", "<end>"]
    done = run("tokenize", tmp_path / "in", *arguments)
    assert done.returncode == 0, done.stderr
    assert "3 documents, 11 tokens" in done.stdout
    assert read_indexed(tmp_path / "out") == [[2, 3, 4, 1], [4, 4, 0, 1], [3, 3, 1]]

    (tmp_path / "bad.txt").write_bytes(b"ab\xff")
    done = run("tokenize", tmp_path / "bad.txt", *arguments)
    assert done.returncode == 2 and "not UTF-8 at byte 2" in done.stderr
    assert not list(tmp_path.glob("*.part"))


def test_large_vocabularies_are_int32(tmp_path: Path) -> None:
    assert write_indexed([[70000, 1], [], [5]], tmp_path / "big", 70001) == (2, 3)
    assert read_indexed(tmp_path / "big") == [[70000, 1], [5]]
    with pytest.raises(evenspan.InvalidArgumentError):
        write_indexed([[5]], tmp_path / "small", 5)
