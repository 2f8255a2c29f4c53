"""The program evenspan-train as a user meets it: help, mistakes, runs compared, checkpoints in transformers."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = Path(os.environ.get("EVENSPAN_BUILD", ROOT / "build")) / "bin" / "evenspan-train"

MODEL = {
    "model_type": "llama",
    "vocab_size": 257,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 128,
}


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(a) for a in (PROGRAM, *arguments)], capture_output=True, text=True, check=False)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Write a model, nine texts and a configuration for them."""
    (tmp_path / "config.json").write_text(json.dumps(MODEL))
    (tmp_path / "text").mkdir()
    for i in range(9):
        (tmp_path / "text" / f"{i}.txt").write_text("The quick brown fox. " * i)
    path = tmp_path / "run.toml"
    path.write_text(
        "[data]\npath = 'text'\nmax_document_tokens = 100\nbatch_tokens = 300\n"
        "[model]\nconfig = 'config.json'\ndtype = 'float64'\n[optimizer]\nlearning_rate = 1e-2\n[run]\nsteps = 3\n"
    )
    return path


def test_help_lists_every_key() -> None:
    done = call("--help")
    assert done.returncode == 0
    header = (ROOT / "include/evenspan/train/config.h").read_text()
    for section, struct in {
        "data": "DataConfig",
        "model": "ModelSection",
        "optimizer": "OptimizerConfig",
        "parallel": "ParallelConfig",
        "run": "RunConfig",
    }.items():
        body = re.search(rf"struct {struct} {{(.*?)}};", header, re.DOTALL)
        assert body
        fields = re.findall(r"(\w+)(?: = [^;]*)?;", body[1])
        assert fields
        for field in fields:
            assert f"--{section}.{field} " in done.stdout
    for command in ("compare", "probe"):
        assert call(command, "--help").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one CONFIG file is needed"),
        (["none.toml"], "cannot open none.toml"),
        (["CONFIG", "--optimizer.learningrate", "1"], "did you mean 'optimizer.learning_rate'?"),
        (["CONFIG", "--rank", "2"], "did you mean --ranks?"),
        (["CONFIG", "--ranks", "0"], "--ranks must be a whole number of at least 1"),
        (["CONFIG", "--run.steps"], "--run.steps needs a value after it"),
        (["CONFIG", "--parallel.strategy", "zigzga"], "zigzag"),
        (["compare", "a"], "RUN and REFERENCE are needed"),
        (["compare", "a", "b"], "must be the run.folder of a finished run"),
    ],
)
def test_mistakes_are_explained(config: Path, arguments: list[str], message: str) -> None:
    done = call(*[config if a == "CONFIG" else a for a in arguments])
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.startswith("evenspan-train: [")


def test_runs_are_compared(config: Path, tmp_path: Path) -> None:
    for ranks in (1, 4):
        done = call(config, "--ranks", ranks, f"--run.folder={tmp_path / str(ranks)}", "--run.record_placement", "true")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(" tokens/s ") == 3
    assert call(config, "--run.folder", tmp_path / "other", "--model.seed", 5).returncode == 0
    equal = call("compare", tmp_path / "4", tmp_path / "1", "--page", tmp_path / "report.html")
    assert equal.returncode == 0, equal.stdout + equal.stderr
    assert equal.stdout.count("EQUAL") == 1
    page = (tmp_path / "report.html").read_text()
    assert "<svg" in page
    assert not re.search(r"<script|https?://|<link|@import|url\(", page)  # nothing from outside
    different = call("compare", tmp_path / "4", tmp_path / "other")
    assert different.returncode == 3
    assert "NOT EQUAL" in different.stdout


def test_transformers_reads_a_checkpoint(config: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    done = call(config, "--ranks", 3, "--run.folder", tmp_path / "run", "--model.dtype", "float32")
    assert done.returncode == 0, done.stderr
    checkpoint = tmp_path / "run/checkpoints/step-00000003"
    model, report = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, output_loading_info=True)
    assert not any(report.values()), report
    ids = torch.arange(40, 120)
    save_file({"ids": ids, "lengths": torch.tensor([len(ids)])}, tmp_path / "tokens.safetensors")
    out = tmp_path / "out.safetensors"
    probe = call("probe", checkpoint, "--tokens", tmp_path / "tokens.safetensors", "--out", out)
    assert probe.returncode == 0, probe.stderr
    with torch.no_grad():
        expected = model(input_ids=ids[None]).logits[0]
    torch.testing.assert_close(load_file(out)["logits"], expected, rtol=1e-4, atol=1e-4)
