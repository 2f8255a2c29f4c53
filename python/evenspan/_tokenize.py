"""Text to token ids: writes the Megatron indexed data (prefix.bin, prefix.idx) that the trainer reads."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evenspan import _evenspan
from evenspan._errors import Error, InvalidArgumentError, ResourceError

MAGIC = b"MMIDIDX\0\0"
VERSION = 1
UINT16_CODE, INT32_CODE = 8, 4
SMALL_VOCABULARY = 65500  # below it, tokens are written as uint16, else as int32
BATCH_CHARACTERS = 1 << 20  # of texts that a tokenizer gets at a time


@dataclass(frozen=True)
class Source:
    """Where texts are: a text file, a JSONL file (key `text`), or a folder of both.

    Attributes:
        path: The file or folder.
        jsonl: Whether a file is JSONL whatever its name; in a folder the name decides.
        suffixes: Only files of a folder whose names end with one of these; none: all files.
        exclude: Names of files and folders that are left out of a folder, wherever they stand.
        skip_invalid: Leave text files out that are not UTF-8, instead of refusing them.
    """

    path: Path
    jsonl: bool = False
    suffixes: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    skip_invalid: bool = False

    def files(self) -> list[Path]:
        """Return the files in the order of their documents: sorted by the bytes of their paths.

        Raises:
            InvalidArgumentError: There is no such file or folder, or no file of the folder is wanted.
        """
        if not self.path.is_dir():
            if not self.path.exists():
                raise InvalidArgumentError(f"[tokenize] {self.path} cannot be read: it does not exist")
            return [self.path]
        found = []
        for folder, folders, names in os.walk(self.path):
            folders[:] = [name for name in folders if name not in self.exclude]
            wanted = (name for name in names if name not in self.exclude and name.endswith(self.suffixes or ("",)))
            found += [path for path in (Path(folder) / name for name in wanted) if path.is_file()]
        if not found:
            raise InvalidArgumentError(
                f"[tokenize] {self.path} must hold a text file; look at suffixes {list(self.suffixes)} and "
                f"exclude {list(self.exclude)}"
            )
        return sorted(found, key=os.fsencode)

    def documents(self, progress: Callable[[float, float], None] = lambda done, total: None) -> Iterator[str]:
        """Yield the texts.

        Args:
            progress: Called with the bytes read and to read, before each text.

        Raises:
            InvalidArgumentError: A file cannot be read or is not UTF-8, or a line is no JSON object with a `text`.
        """
        files = self.files()
        total = sum(path.stat().st_size for path in files)
        done = 0
        for path in files:
            if path.suffix == ".jsonl" or (self.jsonl and path == self.path):
                for number, line in enumerate(_lines(path), start=1):
                    progress(done, total)
                    done += len(line)
                    if line.strip():
                        yield _text_of(line, f"{path}:{number}")
                continue
            progress(done, total)
            data = b"".join(_lines(path))
            done += len(data)
            try:
                yield data.decode("utf-8")
            except UnicodeDecodeError as error:
                if not self.skip_invalid:
                    raise InvalidArgumentError(f"[tokenize] {path} is not UTF-8 at byte {error.start}") from error


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except OSError as error:
        raise InvalidArgumentError(f"[tokenize] {path} cannot be read: {error}") from error


def _text_of(line: bytes, place: str) -> str:
    try:
        text = json.loads(line.decode("utf-8"))["text"]
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"[tokenize] {place} is not UTF-8 at its byte {error.start}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidArgumentError(f"[tokenize] {place} is no object with a text: {error}") from error
    if not isinstance(text, str):
        raise InvalidArgumentError(f"[tokenize] {place} has a text that is no string")
    return text


class Encoder:
    """A Hugging Face tokenizer, and what stands around every document.

    A document begins as the tokenizer lets a text begin (with `<s>`, or with nothing), and ends as it lets one end, or
    with its end-of-text token.

    Attributes:
        begin: Tokens before every document.
        end: Tokens after every document.
        vocabulary: Number of different tokens.
    """

    def __init__(self, folder: Path, end_of_document: str | None) -> None:
        """Load a tokenizer.

        Args:
            folder: With the tokenizer's files.
            end_of_document: The token that ends a document; None: the tokenizer's own; "none": none at all.

        Raises:
            InvalidArgumentError: There is no tokenizer in the folder, or no such token in it.
            Error: transformers is not installed.
        """
        if not folder.is_dir():
            raise InvalidArgumentError(f"[tokenize] --tokenizer must be a folder, {folder} is none")
        try:
            from transformers import AutoTokenizer
        except ImportError as error:
            raise Error(f"[tokenize] transformers is needed and cannot be imported ({error}); install it") from error
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        except (OSError, ValueError) as error:
            raise InvalidArgumentError(f"[tokenize] there is no tokenizer in {folder}: {error}") from error
        self.vocabulary: int = len(self._tokenizer)
        self.begin, self.end = self._around()
        if end_of_document == "none":
            self.end = []
        elif end_of_document is not None:
            known = self._tokenizer.get_vocab()
            if end_of_document not in known:
                raise InvalidArgumentError(f"[tokenize] --end-of-document {end_of_document!r} is not in the vocabulary")
            self.end = [known[end_of_document]]

    def _around(self) -> tuple[list[int], list[int]]:
        bare: list[int] = self._tokenizer("a", add_special_tokens=False, verbose=False)["input_ids"]
        whole: list[int] = self._tokenizer("a", verbose=False)["input_ids"]
        at = next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), 0)
        end = whole[at + len(bare) :]
        last = self._tokenizer.eos_token_id
        return whole[:at], end if end or last is None else [last]

    def words(self) -> str:
        """Return what stands around a document, in words."""

        def names(tokens: list[int]) -> str:
            return " ".join(self._tokenizer.convert_ids_to_tokens(tokens)) if tokens else "no token"

        return f"{names(self.begin)} begins a document and {names(self.end)} ends it"

    def __call__(self, texts: Iterable[str]) -> Iterator[list[int]]:
        """Yield the tokens of every text, none for an empty one."""
        batch: list[str] = []
        size = 0
        for text in texts:
            batch.append(text)
            size += len(text)
            if size >= BATCH_CHARACTERS:
                yield from self._encode(batch)
                batch, size = [], 0
        if batch:
            yield from self._encode(batch)

    def _encode(self, texts: list[str]) -> Iterator[list[int]]:
        for ids in self._tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]:
            yield [*self.begin, *ids, *self.end] if ids else []


def write_indexed(documents: Iterable[Sequence[int]], prefix: Path, vocabulary: int) -> tuple[int, int]:
    """Write prefix.bin and prefix.idx, both complete or not at all; empty documents are left out.

    Args:
        documents: Token ids of each document.
        prefix: Path without the suffix; its folder is made.
        vocabulary: Number of different ids; decides between uint16 and int32.

    Returns:
        Number of documents and of tokens.

    Raises:
        InvalidArgumentError: A token is outside the vocabulary, or there is no token at all.
        ResourceError: A file cannot be written.
    """
    small = vocabulary < SMALL_VOCABULARY
    dtype = np.dtype("<u2" if small else "<i4")
    lengths: list[int] = []
    parts = {suffix: prefix.with_name(prefix.name + suffix + ".part") for suffix in (".bin", ".idx")}
    try:
        prefix.parent.mkdir(parents=True, exist_ok=True)
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
        if not lengths:
            raise InvalidArgumentError("[tokenize] the texts have no token, all of them are empty")
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


def _fingerprint(source: Source, tokenizer: Path, end_of_document: str | None) -> str:
    """Return what names the texts, the tokenizer and the options; other tokens have another one."""
    made = hashlib.sha256(repr((source, end_of_document)).encode())
    for path in [*source.files(), *sorted(path for path in tokenizer.iterdir() if path.is_file())]:
        status = path.stat()
        made.update(repr((str(path), status.st_size, status.st_mtime_ns)).encode())
    return made.hexdigest()


def tokenize(
    source: Source, tokenizer: Path, prefix: Path, end_of_document: str | None, vocabulary: int | None, reuse: bool
) -> str:
    """Write the tokens of all texts to prefix.bin and prefix.idx; see `Source`, `Encoder` and `write_indexed`.

    Args:
        source: The texts.
        tokenizer: Folder of a Hugging Face tokenizer.
        prefix: Path without the suffix.
        end_of_document: See `Encoder`.
        vocabulary: How many different tokens the model knows; None: as many as the tokenizer.
        reuse: Leave the files as they are when they were made with `reuse` of the same texts, by their names, sizes and
            times, and of the same tokenizer.

    Returns:
        What was done, a line or two.
    """
    mark = prefix.with_name(prefix.name + ".made-of")
    files = [prefix.with_name(prefix.name + suffix) for suffix in (".bin", ".idx")]
    if not tokenizer.is_dir():
        raise InvalidArgumentError(f"[tokenize] --tokenizer must be a folder, {tokenizer} is none")
    made_of = _fingerprint(source, tokenizer, end_of_document) if reuse else ""
    if reuse and all(path.is_file() for path in [mark, *files]) and mark.read_text() == made_of:
        return f"tokens: {prefix}.bin is up to date"
    mark.unlink(missing_ok=True)
    encoder = Encoder(tokenizer, end_of_document)
    progress = _evenspan.Progress(f"tokenizing {source.path}")
    documents, tokens = write_indexed(encoder(source.documents(progress.at)), prefix, vocabulary or encoder.vocabulary)
    if reuse:
        mark.write_text(made_of)
    return (
        f"tokenizer: {tokenizer}, {encoder.vocabulary:,} tokens; {encoder.words()}\n"
        f"{prefix}.bin, {prefix}.idx: {documents} documents, {tokens} tokens"
    )
