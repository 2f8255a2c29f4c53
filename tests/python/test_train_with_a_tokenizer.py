"""Text for a model with a tokenizer of its own is trained on as its tokens, and never as bytes in silence."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
import transformers
from tokenizers.processors import TemplateProcessing

ROOT = Path(__file__).parents[2]
BUILD = Path(os.environ.get("EVENSPAN_BUILD", ROOT / "build"))
PROGRAM = BUILD / "bin" / "evenspan-train"
TEXTS = ["the quick brown fox", "the fox jumps over the lazy dog", "lazy lazy lazy fox", ""]
NATIVE = [str(PROGRAM)]
PROCESS = [sys.executable, "-m", "evenspan", "train"]


def call(words: list[str], *options: object, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **environment}
    words = [*words, *map(str, options)]
    return subprocess.run(words, capture_output=True, text=True, timeout=300, check=False, env=known)


@pytest.fixture
def tuning(tmp_path: Path) -> Path:
    """A folder `base` as Hugging Face writes it, four texts, and a configuration."""
    words = sorted(set(" ".join(TEXTS).split()))
    vocabulary = {word: i for i, word in enumerate(["<unk>", "<s>", "</s>", *words])}
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    raw.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(tmp_path / "base")
    config = transformers.LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    (tmp_path / "text").mkdir()
    for i, text in enumerate(TEXTS):
        (tmp_path / "text" / f"{i}.txt").write_text(text)
    path = tmp_path / "tune.toml"
    path.write_text(
        "[data]\npath = 'text'\nbatch_tokens = 30\nmax_document_tokens = 30\n[model]\nconfig = 'base'\n"
        "weights = 'base'\n[run]\nfolder = 'run'\nsteps = 2\n"
    )
    return path


@pytest.mark.parametrize("launcher", [NATIVE, PROCESS], ids=["threads", "process"])
def test_text_becomes_the_models_tokens(tuning: Path, launcher: list[str]) -> None:
    done = call(launcher, tuning)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "<s> begins a document and </s> ends it" in done.stdout
    expected = sum(len(text.split()) + 2 for text in TEXTS if text)
    assert f"3 documents with {expected} tokens" in done.stdout
    checkpoint = tuning.parent / "run/checkpoints/step-00000002"
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    assert (
        tokenizer(TEXTS[0])["input_ids"]
        == transformers.AutoTokenizer.from_pretrained(tuning.parent / "base")(TEXTS[0])["input_ids"]
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint)
    assert (checkpoint / "generation_config.json").is_file()
    model.generate(**tokenizer(TEXTS[0], return_tensors="pt"), max_new_tokens=2)

    again = call(launcher, tuning, "--run.resume", "latest", "--run.steps", 3)
    assert again.returncode == 0, again.stderr
    assert "is up to date" in again.stdout
    (tuning.parent / "text" / "4.txt").write_text("more text")
    other = call(launcher, tuning, "--run.resume", "latest", "--run.steps", 4)
    assert other.returncode == 2
    assert "a run resumes with the data that it was trained on" in other.stderr


def test_jsonl_and_initial_values_too(tuning: Path) -> None:
    lines = tuning.parent / "texts.jsonl"
    lines.write_text("".join(json.dumps({"text": text, "id": 7}) + "\n\n" for text in TEXTS))
    done = call(PROCESS, tuning, "--data.path", lines, "--model.weights", "")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 documents with 21 tokens" in done.stdout


def test_bytes_only_where_they_are_asked_for(tuning: Path) -> None:
    wide = transformers.LlamaConfig.from_pretrained(tuning.parent / "base", vocab_size=257)
    transformers.LlamaForCausalLM(wide).save_pretrained(tuning.parent / "bare")
    bare = ["--model.config", tuning.parent / "bare", "--model.weights", tuning.parent / "bare"]
    refused = call(NATIVE, tuning, *bare)
    assert refused.returncode == 2
    assert "has no tokenizer (tokenizer.json or the like), so it is unclear what its tokens are" in refused.stderr
    done = call(NATIVE, tuning, *bare, "--data.tokenizer", "bytes")
    assert done.returncode == 0, done.stderr
    assert f"{sum(len(text) + 1 for text in TEXTS if text)} tokens" in done.stdout
    checkpoint = tuning.parent / "run/checkpoints/step-00000002"
    assert not [path.name for path in checkpoint.iterdir() if "token" in path.name]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--run.folder", ""], "are kept in run.folder, and that is empty"),
        (["--data.tokenizer", "text"], 'must be "bytes" or a folder with a tokenizer'),
    ],
)
def test_what_cannot_be_tokenized_is_refused(tuning: Path, options: list[str], message: str) -> None:
    done = call(NATIVE, tuning, *(tuning.parent / "text" if option == "text" else option for option in options))
    assert done.returncode == 2
    assert message in done.stderr


def test_without_python_the_command_is_named(tuning: Path, tmp_path: Path) -> None:
    """An installed program in a folder without an interpreter, and none in the path that has evenspan."""
    (tmp_path / "bin").mkdir()
    for name in ("python3", "python"):
        (tmp_path / "bin" / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / "bin" / name).chmod(0o755)
    environment = {"PATH": str(tmp_path / "bin"), "EVENSPAN_PYTHON": str(tmp_path / "bin" / "python3")}
    done = call(NATIVE, tuning, **environment)
    assert done.returncode == 2, done.stdout
    assert "base has a tokenizer of its own (tokenizer.json)" in done.stderr
    named = re.search(r"run: python -m evenspan (tokenize .*) \(or set", done.stderr)
    assert named
    made = call([sys.executable, "-m", "evenspan", *named[1].split()])
    assert made.returncode == 0, made.stderr
    done = call(NATIVE, tuning, **environment)
    assert done.returncode == 0, done.stderr
    assert "are taken as they are" in done.stdout
