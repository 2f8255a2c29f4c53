"""Text to token ids: writes the Megatron indexed data (prefix.bin, prefix.idx) that the trainer reads."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from evenspan._errors import InvalidArgumentError, ResourceError

MAGIC = b"MMIDIDX\0\0"
VERSION = 1
UINT16_CODE, INT32_CODE = 8, 4
SMALL_VOCABULARY = 65500  # below it, tokens are written as uint16, else as int32


def read_documents(source: Path) -> Iterator[str]:
    """Yield the texts of a text file, of a JSONL file (key `text`), or of all files of a folder in sorted order.

    Raises:
        InvalidArgumentError: The source does not exist, is not UTF-8, or a line is no JSON object with a `text`.
    """
    if source.is_dir():
        for path in sorted(path for path in source.rglob("*") if path.is_file()):
            yield from read_documents(path)
        return
    try:
        text = source.read_bytes().decode("utf-8")
    except OSError as error:
        raise InvalidArgumentError(f"[tokenize] {source} cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"[tokenize] {source} is not UTF-8 at byte {error.start}") from error
    if source.suffix != ".jsonl":
        yield text
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)["text"]
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidArgumentError(f"[tokenize] {source}:{number} is no object with a text: {error}") from error
        if not isinstance(document, str):
            raise InvalidArgumentError(f"[tokenize] {source}:{number} has a text that is no string")
        yield document


def write_indexed(documents: Iterable[Sequence[int]], prefix: Path, vocabulary: int) -> tuple[int, int]:
    """Write prefix.bin and prefix.idx, both complete or not at all; empty documents are left out.

    Args:
        documents: Token ids of each document.
        prefix: Path without the suffix.
        vocabulary: Number of different ids; decides between uint16 and int32.

    Returns:
        Number of documents and of tokens.

    Raises:
        InvalidArgumentError: A token is outside the vocabulary.
        ResourceError: A file cannot be written.
    """
    small = vocabulary < SMALL_VOCABULARY
    dtype = np.dtype("<u2" if small else "<i4")
    lengths: list[int] = []
    parts = {suffix: prefix.with_name(prefix.name + suffix + ".part") for suffix in (".bin", ".idx")}
    try:
        with parts[".bin"].open("wb") as out:
            for document in documents:
                if len(document) == 0:
                    continue
                tokens = np.asarray(document, dtype=np.int64)
                if tokens.min() < 0 or tokens.max() >= vocabulary:
                    raise InvalidArgumentError(
                        f"[tokenize] tokens must be in 0..{vocabulary - 1}, document {len(lengths)} has "
                        f"{tokens.min()}..{tokens.max()}"
                    )
                out.write(tokens.astype(dtype).tobytes())
                lengths.append(len(document))
        sizes = np.asarray(lengths, dtype="<i4")
        pointers = np.zeros(len(lengths), dtype="<i8")
        pointers[1:] = np.cumsum(sizes[:-1], dtype=np.int64) * dtype.itemsize
        with parts[".idx"].open("wb") as out:
            out.write(MAGIC)
            code = UINT16_CODE if small else INT32_CODE
            out.write(struct.pack("<QBQQ", VERSION, code, len(lengths), len(lengths) + 1))
            out.write(sizes.tobytes())
            out.write(pointers.tobytes())
            out.write(np.arange(len(lengths) + 1, dtype="<i8").tobytes())
        for suffix, part in parts.items():
            part.replace(prefix.with_name(prefix.name + suffix))
    except OSError as error:
        raise ResourceError(f"[tokenize] {prefix}.bin and .idx cannot be written: {error}") from error
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
    return len(lengths), sum(lengths)


def tokenize(source: Path, encode: Callable[[str], list[int]], prefix: Path, vocabulary: int) -> tuple[int, int]:
    """Tokenize every document of `source` and write it; see `read_documents` and `write_indexed`."""
    return write_indexed((encode(text) for text in read_documents(source)), prefix, vocabulary)
