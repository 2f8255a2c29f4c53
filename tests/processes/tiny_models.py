"""Tiny models of every decoder family that the installed transformers has, each of its own configuration class."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModel, AutoModelForCausalLM, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

FAMILIES = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
WINDOW = 5

# What fields of these names become, where a configuration has them as larger numbers.
_SIZES = {
    64: "vocab_size vocab_size_per_layer_input unpadded_vocab_size decoder_vocab_size encoder_hash_byte_group_vocab "
    "ngram_vocab_size_base attention_hidden_size",
    48: "intermediate_size ffn_hidden_size decoder_ffn_dim encoder_ffn_dim ffn_dim n_inner dff dim_ff d_inner "
    "intermediate_size_mlp shared_intermediate_size dense_intermediate_size feed_forward_size expert_ffn_hidden_size",
    32: "hidden_size d_model n_embd embedding_size word_embed_proj_dim lru_width dim_model input_embedding_size "
    "output_embedding_size emb_dim embedding_dim hidden_size_global backbone_hidden_size adapter_in_dim "
    "adapter_out_dim adapter_input_size",
    16: "moe_intermediate_size shared_expert_intermediate_size moe_shared_expert_intermediate_size q_lora_rank "
    "shared_experts_intermediate_size o_lora_rank router_hidden_size index_block_size hc_lowrank ple_embed_dim "
    "laurel_rank adapter_rank pronunciation_embed_dim shape_embed_dim prompt_mid_dim mamba_d_state state_size "
    "ssm_state_size mamba_d_head mamba_head_dim mamba_headdim attention_head_dim swa_qk_head_dim "
    "original_max_position_embeddings split_ngram_parts num_centroids",
    8: "head_dim kv_channels dim_head d_head qk_nope_head_dim v_head_dim kv_lora_rank index_head_dim global_head_dim "
    "linear_key_head_dim linear_value_head_dim linear_head_dim attention_head_size swa_head_dim swa_v_head_dim "
    "hidden_size_per_layer_input query_pre_attn_scalar index_topk chunk_size mamba_chunk_size",
    4: "num_attention_heads n_head n_heads decoder_attention_heads encoder_attention_heads num_heads attention_heads "
    "swa_num_attention_heads num_encoder_attention_heads num_decoder_attention_heads rotary_dim index_n_heads "
    "num_experts num_local_experts n_routed_experts moe_num_experts qk_rope_head_dim linear_num_value_heads "
    "time_step_rank linear_num_heads n_mamba_heads mamba_n_heads mamba_num_heads d_rel mamba_dt_rank",
    2: "num_key_value_heads num_kv_heads swa_num_key_value_heads linear_num_key_heads num_query_groups "
    "num_hidden_layers decoder_layers encoder_layers n_layer n_layers num_layers num_encoder_layers "
    "num_decoder_layers num_experts_per_tok moe_topk moe_k num_experts_per_token n_groups num_blocks hc_mult "
    "num_random_blocks centroid_intermediate_top_k",
    1: "n_group topk_group num_expert_group zero_expert_num first_k_dense_replace num_nextn_predict_layers "
    "num_dense_layers",
    WINDOW: "sliding_window window_size local_attention attention_window_size sliding_window_size",
    128: "max_position_embeddings n_positions max_seq_len model_max_length n_ctx max_target_positions context_length",
}  # fmt: skip
SIZES = {name: size for size, names in _SIZES.items() for name in names.split()}

_WINDOWED = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
_BY_INDEX = {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1, "layer_types": None}
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_ROPES = {"full_attention": _ROPE, "sliding_attention": _ROPE}
_MAMBA_FIRST = {"layers_block_type": ["linear_attention", "hybrid"] * 2, "num_hidden_layers": 4}
_FOUR = ["sliding_attention", "full_attention"] * 2
_SHARED = {"layer_types": _FOUR, "num_hidden_layers": 4, "num_kv_shared_layers": 2, "intermediate_size": 48}
_ASSISTED = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4, "head_dim": 8,
    "num_key_value_heads": 2, "vocab_size": 64, "layer_types": _FOUR, "num_kv_shared_layers": 4,
}  # fmt: skip
_INDEXER = {
    "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 8,
    "indexer_compress_ratio": 2,
}  # fmt: skip

# What a family needs besides: fields that have no size in their name or must fit each other, and the parts that its
# published models have (windows, other layers) although the configuration's defaults have not.
OVERRIDES: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "cohere_compass_text": {**_WINDOWED, "rope_parameters": _ROPES},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 48, "hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {**_WINDOWED, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "dots3_note_text": {"layer_types": ["indexed_attention", "indexed_attention"], "num_key_value_heads": 4},
    "emu3": {"vocabulary_map": {"<image>": 5}},
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_d_head": 16},
    "gemma3n_text": {**_SHARED, "activation_sparsity_pattern": [0.95, 0.0, 0.0, 0.0]},
    "gemma4_assistant": {
        "text_config": {
            **_ASSISTED, "model_type": "gemma4_text", "hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0,
        },
    },
    "gemma4_text": _SHARED,
    "gemma4_unified_assistant": {"text_config": {**_ASSISTED, "model_type": "gemma4_unified_text"}},
    "gemma4_unified_text": _SHARED,
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"]},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "laguna": _WINDOWED,
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mellum": _WINDOWED,
    "minimax_m3_vl_text": {"layer_types": ["full_attention", "minimax_m3_sparse"]},
    "ministral": {**_WINDOWED, "head_dim": 8},
    "ministral3": {"sliding_window": WINDOW},
    "mixtral": {"sliding_window": WINDOW},
    "nemotron": {"num_key_value_heads": 2},
    "phi3": {"sliding_window": WINDOW},
    "phimoe": {"sliding_window": WINDOW},
    "qwen2": _BY_INDEX,
    "qwen2_moe": _BY_INDEX,
    "qwen3": _BY_INDEX,
    "mamba2": {"head_dim": 16},
    "qwen4_exp_text": _INDEXER,
    "qwen3_moe": {"use_sliding_window": True, "sliding_window": WINDOW},
    "reformer": {"axial_pos_embds": False, "num_hidden_layers": 2, "attn_layers": ["local", "lsh"]},
    "smollm3": {"use_sliding_window": True, "sliding_window": WINDOW, "layer_types": _WINDOWED["layer_types"]},
    "starcoder2": {"sliding_window": WINDOW},
    "xmod": {"default_language": "en_XX"},
    "zamba": _MAMBA_FIRST,
    "zamba2": _MAMBA_FIRST,
}  # fmt: skip

# Families whose configuration is of a pipeline, and the part of it that is the decoder's.
DECODERS = {"musicgen": "decoder", "musicgen_melody": "decoder"}

# Families whose own code computes in no float64.
NO_FLOAT64 = {"inkling2_text", "xglm"}


def _shrunk(config: PreTrainedConfig) -> dict[str, Any]:
    """Return the fields that make this configuration tiny."""
    fields: dict[str, Any] = {}
    given = vars(config)
    for name, value in given.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if name in SIZES and number and value > 1:
            fields[name] = min(value, SIZES[name])
        elif name in ("pad_token_id", "bos_token_id", "eos_token_id"):
            fields[name] = ("pad_token_id", "bos_token_id", "eos_token_id").index(name)
        elif name.endswith(("token_id", "token_index")) and number:
            fields[name] = 3
        elif number and ("drop" in name or "jitter" in name):
            fields[name] = type(value)(0)
        elif name == "is_decoder":
            fields[name] = True
    if given.get("qk_rope_head_dim"):  # latent attention: all heads have keys of two parts
        fields |= {"num_key_value_heads": 4, "qk_head_dim": 12}
        if given.get("head_dim") == given["qk_rope_head_dim"]:
            fields["head_dim"] = 4
    kinds = given.get("layer_types")
    if kinds:
        kinds = list(dict.fromkeys(kinds))
        kinds = kinds * 2 if len(kinds) == 1 else kinds
        fields |= {"layer_types": kinds, "num_hidden_layers": len(kinds)}
    for name in ("mlp_layer_types", "num_attention_heads_per_layer"):
        if isinstance(given.get(name), list):
            last = given[name][-fields.get("num_hidden_layers", 2) :]
            fields[name] = [4 if isinstance(entry, int) else entry for entry in last]
    rope = given.get("rope_parameters")
    if isinstance(rope, dict):
        fields["rope_parameters"] = {
            name: 16 if "max_position" in name and isinstance(value, int) else value for name, value in rope.items()
        }
    for name in config.sub_configs:
        if (part := getattr(config, name, None)) is not None:
            fields[name] = {**_shrunk(part), **OVERRIDES.get(part.model_type, {}), "model_type": part.model_type}
    return fields


def tiny_config(family: str) -> PreTrainedConfig:
    """Return the configuration of a model of two to four layers, with windows of WINDOW tokens if it can have some."""
    kind, override = CONFIG_MAPPING[family], OVERRIDES.get(family, {})
    whole = "text_config" in override
    config = kind(**({} if whole else _shrunk(kind())) | override)
    if family.endswith(
        "_assistant"
    ):  # such a model has no keys and values of its own, and transformers then none at all
        config.text_config.num_kv_shared_layers = 2
    return getattr(config, DECODERS[family]) if family in DECODERS else config


def tiny_model(family: str) -> torch.nn.Module:
    """Return the family's model with weights of 0.2, so that attention is far from even, in the widest type it has."""
    config = tiny_config(family)
    config._experts_implementation = "eager"  # others have no float64
    if family == "gemma3n":  # its vision tower is another library's, and is not for text
        module = importlib.import_module("transformers.models.gemma3n.modeling_gemma3n")
        module.AutoModel = _NoTower
    name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[family]
    torch.manual_seed(0)
    if family in DECODERS:
        module = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
        model = getattr(module, name)(config)
    else:
        model = AutoModelForCausalLM.from_config(config)
    model = model.to(torch.float32 if family in NO_FLOAT64 else torch.float64)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in model.parameters():
            noise = torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)
            p.copy_(noise * 0.2 if p.dim() > 1 else p + noise * 0.1)
    return model.eval()


class _NoTower:
    @staticmethod
    def from_config(config: PreTrainedConfig) -> torch.nn.Module:
        return AutoModel.from_config(config) if config.model_type.endswith("_text") else torch.nn.Identity()
