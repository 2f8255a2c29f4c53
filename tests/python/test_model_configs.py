"""What `simulate --model` reads of config.json: every decoder family of the installed transformers, and its keys."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("EVENSPAN_BIN", ROOT / "build" / "bin" / "evenspan"))
TOLERANCE = 0.02  # of the weights of all layers: norms, biases and gates of a head or an expert are left out

# Families whose model cannot be built from the defaults of its configuration, with what makes it one.
MENDED: dict[str, dict[str, Any]] = {
    "dots1": {"n_routed_experts": 16, "n_shared_experts": 2, "num_experts_per_tok": 2, "first_k_dense_replace": 3},
    "hunyuan_v1_dense": {"head_dim": 128},
    "ministral": {"head_dim": 128},
    "nemotron": {"head_dim": 128, "num_key_value_heads": 8},
}
# Whose configuration or model cannot be built at all.
BROKEN = {"cohere_compass_text", "gemma4_assistant"}

# Keys that say what the sizes and windows are; what a configuration leaves out has a default.
KEYS = (
    "decoder_sparse_step", "ffn_dim", "first_k_dense_replace", "head_dim", "hidden_size", "intermediate_size",
    "layer_types", "max_window_layers", "mlp_layer_types", "mlp_only_layers", "moe_intermediate_size", "moe_k",
    "moe_layer_end_index", "moe_layer_interval", "moe_layer_start_index", "moe_num_experts", "moe_num_shared_experts",
    "moe_topk", "multi_query", "n_inner", "n_routed_experts", "n_shared_experts", "new_decoder_architecture",
    "num_attention_heads", "num_experts", "num_experts_per_tok", "num_hidden_layers", "num_key_value_heads",
    "num_kv_heads", "num_local_experts", "num_shared_experts", "shared_expert_intermediate_size",
    "shared_intermediate_size", "sliding_window", "sliding_window_pattern", "use_sliding_window", "vocab_size",
)  # fmt: skip

Config = dict[str, Any]


@pytest.fixture(scope="module")
def weigh(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Returns what the program reads of a configuration, or nothing and why it refuses it."""
    folder = tmp_path_factory.mktemp("configs")
    times = {"operation_seconds": 0, "segment_seconds": 0, "seconds": [[1e-6]]}
    profile = json.loads((ROOT / "profiles" / "flexsp-7b.json").read_text())
    profile["attention"] = [
        {
            "head_dim": head_dim, "dtypes": ["bf16"], "tile": 1, "queries": [10], "keys": [10],
            "forward": times, "backward": times,
        }
        for head_dim in range(1, 600)
    ]  # fmt: skip
    (folder / "profile.json").write_text(json.dumps(profile))
    words = "simulate --lengths - --ranks 1 --strategy local --profile profile.json --model config.json --json -"

    @functools.cache
    def run(text: str) -> tuple[Config, str]:
        (folder / "config.json").write_text(text)
        done = subprocess.run([BINARY, *words.split()], input="1\n", capture_output=True, text=True, cwd=folder)
        if done.returncode == 0:
            names = (
                "layers", "hidden", "heads", "kv_heads", "head_dim", "vocabulary", "window_layers", "layer_weights",
                "active_layer_weights",
            )  # fmt: skip
            got = json.loads(done.stdout)
            return {name: got[name] for name in names}, ""
        start = "evenspan simulate: [model config] config.json: "
        assert done.returncode == 2 and done.stderr.startswith(start), f"{text[:2000]}: {done.stderr}"
        return {}, done.stderr.removeprefix(start).strip()

    return lambda config: run(json.dumps(config))


def build_config(family: str) -> Any:
    return CONFIG_MAPPING[family](**MENDED.get(family, {}))


def all_keys(config: Any) -> Config:
    return json.loads(config.to_json_string(use_diff=False))


@functools.cache
def families() -> list[str]:
    return sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - BROKEN)


def layer_weights(config: Any, vocabulary: int) -> int:
    """Of the model itself, in its layers."""
    with torch.device("meta"), warnings.catch_warnings(action="ignore"):
        model = AutoModelForCausalLM.from_config(config)
    outside = re.compile(r"embed|wte|wpe|lm_head|vision|visual|audio|adaptor|multi_modal")
    return sum(
        p.numel() for name, p in model.named_parameters() if vocabulary not in p.shape and not outside.search(name)
    )


def test_every_family_is_weighed_or_refused_by_name(weigh: Any) -> None:
    weighed = set()
    for family in families():
        config = build_config(family)
        got, refusal = weigh(all_keys(config))
        if refusal:  # names the key
            key = re.match(r"(the field )?(text_config\.)?(\w+) (is|has) ", refusal)
            assert key, f"{family}: {refusal}"
            continue
        weighed.add(family)
        expected = layer_weights(config, got["vocabulary"])
        assert got["layer_weights"] == pytest.approx(expected, rel=TOLERANCE), family
        kinds = getattr(config.get_text_config(), "layer_types", None)
        if kinds is not None:
            assert sum(kind["layers"] for kind in got["window_layers"]) == kinds.count("sliding_attention"), family
    # Those of the table, each for what it says there, and no fewer.
    page = (ROOT / "docs" / "simulator.md").read_text()
    listed = page[page.index("These are read, by their `model_type`:") :].split("\n\n")[1]
    known = set(re.findall(r"`(\w+)`", listed))
    assert known & set(families()) <= weighed
    assert len(weighed) >= 70


def variants(config: Config) -> list[tuple[str, Config]]:
    """The configuration without each of its keys, and with a window switched on."""
    changed = [(key, {k: v for k, v in config.items() if k != key}) for key in KEYS if key in config]
    if "sliding_window" in config or "use_sliding_window" in config:
        on = {k: v for k, v in config.items() if k != "layer_types"} | {"sliding_window": 100, "max_window_layers": 3}
        changed.append(("window", on | ({"use_sliding_window": True} if "use_sliding_window" in config else {})))
    return changed


def test_keys_left_out_mean_what_transformers_takes(weigh: Any) -> None:
    num_compared = 0
    for family in families():
        full = all_keys(build_config(family))
        if weigh(full)[1] or full.get("text_config"):
            continue
        for name, changed in variants(full):
            got, refusal = weigh(changed)
            if refusal:
                continue
            try:
                meant = all_keys(CONFIG_MAPPING[family](**changed))
            except Exception:  # a configuration that the class refuses
                continue
            num_compared += 1
            assert got == weigh(meant)[0], f"{family} with another {name}"
    assert num_compared > 150


LLAMA: Config = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000, "hidden_act": "silu",
}  # fmt: skip
GEMMA: Config = {  # as the 4B model was published
    "model_type": "gemma3", "mm_tokens_per_image": 256, "vision_config": {"hidden_size": 1152},
    "text_config": {
        "model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34,
        "sliding_window": 1024,
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LLAMA, {"window_layers": [], "layer_weights": 32 * 4096 * (80 * 128 + 3 * 14336)}),
        (LLAMA | {"model_type": "mistral"}, {"window_layers": [{"layers": 32, "window": 4096}]}),
        (LLAMA | {"model_type": "mistral", "sliding_window": None}, {"window_layers": []}),
        (LLAMA | {"model_type": "mistral", "sliding_window": 9}, {"window_layers": [{"layers": 32, "window": 9}]}),
        (LLAMA | {"model_type": "qwen2", "sliding_window": 9, "max_window_layers": 20}, {"window_layers": []}),
        (
            LLAMA | {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 9, "max_window_layers": 20},
            {"window_layers": [{"layers": 12, "window": 9}]},
        ),
        (
            LLAMA | {"sliding_window": 9, "layer_types": ["sliding_attention"] * 31 + ["full_attention"]},
            {"window_layers": [{"layers": 31, "window": 9}]},
        ),
        (GEMMA, {"heads": 8, "kv_heads": 4, "head_dim": 256, "window_layers": [{"layers": 29, "window": 1024}]}),
        (
            LLAMA | {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2},
            {
                "layer_weights": 32 * 4096 * (80 * 128 + 8 * 3 * 14336 + 8),
                "active_layer_weights": 32 * 4096 * (80 * 128 + 2 * 3 * 14336 + 8),
            },
        ),
        (
            {"model_type": "gpt2", "n_embd": 768, "n_head": 12, "n_layer": 12, "vocab_size": 50257},
            {"head_dim": 64, "kv_heads": 12, "layer_weights": 12 * 12 * 768**2},
        ),
        (LLAMA | {"model_type": "a_new_one", "rope_theta": 5e5, "unknown": None}, {"kv_heads": 8}),
    ],
)
def test_what_configs_say(weigh: Any, config: Config, expected: Config) -> None:
    got, refusal = weigh(config)
    assert refusal == ""
    assert {name: got[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (LLAMA | {"sliding_window": 9}, "sliding_window is"),
        (LLAMA | {"sliding_window": 9, "layer_types": ["sliding_attention"]}, "layer_types is"),
        (LLAMA | {"layer_types": ["sliding_attention"] * 32}, "layer_types lists 32 layers with a window"),
        (LLAMA | {"layer_types": ["mamba"] * 32}, 'layer_types has "mamba"; full_attention, sliding_attention and'),
        (LLAMA | {"attention_chunk_size": 8192}, "attention in chunks is not weighed"),
        (LLAMA | {"kv_lora_rank": 512}, "(MLA), are not weighed"),
        (LLAMA | {"quantization_config": {"quant_method": "fp8"}}, "products of quantised weights are not weighed"),
        (LLAMA | {"is_encoder_decoder": True}, "decoders alone are"),
        (LLAMA | {"swa_head_dim": 64}, "swa_head_dim is"),
        (LLAMA | {"v_head_dim": 64}, "values of another width than keys"),
        (
            LLAMA | {"model_type": "a_new_one", "num_experts": 8, "num_experts_per_tok": 2},
            "only models without experts",
        ),
        (LLAMA | {"model_type": "a_new_one", "hidden_act": "gelu"}, "hidden_act is"),
        (LLAMA | {"model_type": "a_new_one", "num_key_value_heads": None}, "the field num_key_value_heads is missing"),
        (LLAMA | {"model_type": "mixtral", "num_experts_per_tok": None}, "how many of the 8 experts a token passes"),
        (LLAMA | {"model_type": "mixtral", "num_experts_per_tok": 9}, "how many of the 8 experts a token passes"),
        (LLAMA | {"num_hidden_layers": 2147483647}, "it is at most 65536"),
        (LLAMA | {"intermediate_size": 2**40}, "it is not negative and below 2^31"),
        (GEMMA | {"text_config": 3}, "it is an object"),
        (GEMMA | {"quantization_config": {"quant_method": "fp8"}}, "products of quantised weights are not weighed"),
        (GEMMA | {"text_config": GEMMA["text_config"] | {"use_bidirectional_attention": True}}, "attention to later"),
    ],
)
def test_what_is_refused(weigh: Any, config: Config, text: str) -> None:
    got, refusal = weigh(config)
    assert got == {}
    assert text in refusal
