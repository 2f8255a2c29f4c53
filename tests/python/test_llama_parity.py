"""Logits, loss and every gradient of the native decoder equal those of transformers' own classes on the same weights.

`evenspan-train probe` computes them for a packed batch, on one rank and on several; here each document is run alone
through the Hugging Face model.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).parents[2]
PROGRAM = Path(os.environ.get("EVENSPAN_BUILD", ROOT / "build")) / "bin" / "evenspan-train"
LENGTHS = [37, 1, 64, 5, 90, 2]
VOCABULARY = 61

SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "attn_implementation": "sdpa",  # the eager one takes its softmax in float32 whatever the type
    "initializer_range": 0.2,  # large, so that no term of a gradient hides behind others
}

MODELS = {
    "llama": lambda: transformers.LlamaConfig(**SHAPE, tie_word_embeddings=False),
    "llama, tied": lambda: transformers.LlamaConfig(**SHAPE, tie_word_embeddings=True, rms_norm_eps=1e-5),
    "llama, biases, theta": lambda: transformers.LlamaConfig(
        **SHAPE, attention_bias=True, mlp_bias=True, head_dim=12, rope_theta=500.0
    ),
    "qwen2": lambda: transformers.Qwen2Config(**SHAPE, tie_word_embeddings=True),
    "qwen3": lambda: transformers.Qwen3Config(**SHAPE, head_dim=16, tie_word_embeddings=False),
    "mistral": lambda: transformers.MistralConfig(**SHAPE, sliding_window=None, tie_word_embeddings=False),
}


@pytest.fixture(autouse=True)
def program() -> None:
    assert PROGRAM.exists(), f"{PROGRAM} is not there; run `make build` or set EVENSPAN_BUILD to the build folder"


def make_model(name: str) -> torch.nn.Module:
    torch.manual_seed(7)
    model = transformers.AutoModelForCausalLM.from_config(MODELS[name](), attn_implementation="sdpa")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:  # norms and biases start as constants, which would hide mistakes
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def in_float64(model: torch.nn.Module) -> torch.nn.Module:
    """Make a copy that computes in float64 throughout: transformers fixes norms and rotary angles to float32."""
    model = model.double()

    def norm(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)

    def rotary(self: torch.nn.Module, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        config = self.config
        dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        theta = config.rope_parameters["rope_theta"]
        frequencies = theta ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)
        angles = position_ids[..., None].double() * frequencies
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos(), angles.sin()

    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = norm.__get__(module)
        elif type(module).__name__.endswith("RotaryEmbedding"):
            module.forward = rotary.__get__(module)
    return model


def reference(model: torch.nn.Module, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """Run every document alone; one loss over all labels."""
    logits, total = [], 0.0
    for document in ids.split(LENGTHS):
        out = model(input_ids=document[None], use_cache=False).logits[0]
        logits.append(out.detach())
        if len(document) > 1:
            wide = out[:-1] if out.dtype == torch.float64 else out[:-1].float()
            total = total + torch.nn.functional.cross_entropy(wide, document[1:], reduction="sum")
    loss = total / (len(ids) - len(LENGTHS))
    loss.backward()
    results = {"logits": torch.cat(logits), "loss": loss.detach()}
    results |= {f"grad.{name}": p.grad for name, p in model.named_parameters()}
    return results


def probe(folder: Path, ids: torch.Tensor, *options: str) -> dict[str, torch.Tensor]:
    save_file({"ids": ids, "lengths": torch.tensor(LENGTHS)}, folder / "tokens.safetensors")
    command = [PROGRAM, "probe", folder, "--tokens", folder / "tokens.safetensors", "--out", folder / "out.safetensors"]
    done = subprocess.run([*map(str, command), *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return load_file(folder / "out.safetensors")


def assert_equal(found: dict, expected: dict, tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = value.abs().max().clamp_min(1e-6).item()
        error = (found[name].double() - value.double()).abs().max().item() / scale
        assert error <= tolerance, f"{name} differs by {error:.2e} of its largest value, {scale:.2e}"


def make_ids() -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (sum(LENGTHS),), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("name", MODELS)
def test_float64(name: str, ranks: int, tmp_path: Path) -> None:
    model = make_model(name)
    model.save_pretrained(tmp_path)
    ids = make_ids()
    found = probe(tmp_path, ids, "--dtype", "float64", "--ranks", str(ranks))
    assert_equal(found, reference(in_float64(model), ids), 1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_float32(name: str, tmp_path: Path) -> None:
    model = make_model(name)
    model.save_pretrained(tmp_path)
    ids = make_ids()
    assert_equal(probe(tmp_path, ids, "--ranks", "2"), reference(model, ids), 5e-5)


def test_bfloat16(tmp_path: Path) -> None:
    model = make_model("llama").to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    ids = make_ids()
    found = probe(tmp_path, ids, "--dtype", "bfloat16", "--ranks", "2")
    narrow = reference(model, ids)
    exact_model = make_model("llama").to(torch.bfloat16)  # the same rounded weights
    exact = reference(in_float64(exact_model), ids)
    for key, value in exact.items():
        scale = value.square().mean().sqrt()
        ours = ((found[key].double() - value).square().mean().sqrt() / scale).item()
        theirs = ((narrow[key].double() - value).square().mean().sqrt() / scale).item()
        assert ours <= 2 * theirs + 2**-9, f"{key}: error {ours:.2e}, transformers has {theirs:.2e}"


def test_sharded_weights(tmp_path: Path) -> None:
    model = make_model("qwen3")
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    ids = make_ids()
    found = probe(tmp_path, ids, "--dtype", "float64")
    assert_equal(found, reference(in_float64(model), ids), 1e-10)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "rotary"),
        ({"hidden_act": "gelu"}, "silu"),
        ({"attention_dropout": 0.1}, "dropout"),
        ({"model_type": "gemma"}, "llama, mistral, qwen2 and qwen3"),
    ],
)
def test_unsupported_models_are_refused(change: dict, rule: str, tmp_path: Path) -> None:
    import json

    make_model("llama").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({"ids": make_ids(), "lengths": torch.tensor(LENGTHS)}, tmp_path / "tokens.safetensors")
    command = [PROGRAM, "probe", tmp_path, "--tokens", tmp_path / "tokens.safetensors", "--out", tmp_path / "out"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "[model config]" in done.stderr
    assert rule in done.stderr


def test_transformers_reads_a_checkpoint(training_config: Path, tmp_path: Path) -> None:
    command = [PROGRAM, training_config, "--ranks", 3, "--run.folder", tmp_path / "run", "--model.dtype", "float32"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    checkpoint = tmp_path / "run/checkpoints/step-00000003"
    model, report = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, output_loading_info=True)
    assert not any(report.values()), report
    ids = make_ids()
    assert_equal(probe(checkpoint, ids), reference(model, ids), 5e-5)
