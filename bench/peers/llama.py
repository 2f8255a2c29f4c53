"""A training step of a small Hugging Face Llama with random weights on a packed batch, by three integrations.

All use the stand-in's kernel and the same weights, batch and optimiser. The loss of each is compared with that of one
process before anything is timed.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import time
from collections.abc import Callable
from typing import Any

import evenspan
import torch
import torch.distributed as dist
import torch.nn.functional as F
import transformers
from flash_attn import flash_attn_varlen_func
from layouts import cu_seqlens
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

LENGTHS = [1500, 900, 512, 400, 300, 211, 123, 80, 50, 20]
SIZES = {
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 2048,
    "max_position_embeddings": 8192,
}
SYSTEMS = (
    "evenspan.attach",
    "DeepSpeed UlyssesSPAttentionHF",
    "ring-flash-attn substitute_hf_flash_attn",
    "ring-flash-attn llama3_varlen by hand",
)
NO_LABEL = -100


def batch() -> dict[str, torch.Tensor]:
    """Return token ids, positions that begin anew in every document, and shifted labels; all [1, tokens]."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(SIZES["vocab_size"], (1, sum(LENGTHS)), generator=generator)
    labels = torch.full_like(ids, NO_LABEL)
    labels[:, :-1] = ids[:, 1:]
    labels[:, cu_seqlens(LENGTHS)[1:].long() - 1] = NO_LABEL
    return {"ids": ids, "positions": torch.cat([torch.arange(n) for n in LENGTHS]).unsqueeze(0), "labels": labels}


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within the documents that the positions tell, as transformers' flash attention does for packed rows."""
    starts = (kwargs["position_ids"][0] == 0).nonzero()[:, 0].to(torch.int32)
    cuts = torch.cat([starts, starts.new_tensor([query.shape[2]])])
    longest = int(cuts.diff().max())
    own = (x[0].transpose(0, 1) for x in (query, key, value))
    return flash_attn_varlen_func(*own, cuts, cuts, longest, longest, causal=True).unsqueeze(0), None


def model(attention: str) -> LlamaForCausalLM:
    """Return the model, the same on every call, with the named attention function."""
    torch.manual_seed(0)
    made = LlamaForCausalLM(LlamaConfig(**SIZES, attn_implementation="eager"))
    made.config._attn_implementation = (
        attention  # set behind the check of devices, which wants CUDA for flash attention
    )
    return made.train()


class _Trained:
    """A model with its optimiser; `step` returns the loss of the whole batch and, on request, the parameters' norm."""

    def __init__(self, made: LlamaForCausalLM) -> None:
        self.model = made
        self.optimizer = torch.optim.AdamW(made.parameters(), lr=1e-3)

    def step(self, forward: Callable[[], torch.Tensor], reduce: Callable[[], None]) -> float:
        loss = forward()
        loss.backward()
        reduce()
        self.optimizer.step()
        self.optimizer.zero_grad()
        total = loss.detach().clone()
        if dist.is_initialized():
            dist.all_reduce(total)
        return float(total)

    def share(self, ids: torch.Tensor, positions: torch.Tensor, labels: torch.Tensor, count: int) -> torch.Tensor:
        """Return the sum of these tokens' losses over the labels of all ranks."""
        logits = self.model(input_ids=ids, position_ids=positions, use_cache=False).logits
        total = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=NO_LABEL, reduction="sum")
        return total / count

    def reduce(self) -> None:
        """Sum the gradients of all ranks, in one message."""
        gradients = [p.grad for p in self.model.parameters()]
        total = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(total)
        for gradient, part in zip(gradients, total.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


def _alone(trained: _Trained) -> Callable[[], float]:
    whole = batch()
    count = int((whole["labels"] != NO_LABEL).sum())
    share = lambda: trained.share(whole["ids"], whole["positions"], whole["labels"], count)  # noqa: E731
    return lambda: trained.step(share, lambda: None)


def losses_alone(steps: int) -> list[float]:
    """Return the losses of one process."""
    ALL_ATTENTION_FUNCTIONS.register("packed_alone", packed_attention)
    step = _alone(_Trained(model("packed_alone")))
    return [step() for _ in range(steps)]


def _with_evenspan() -> Callable[[], float]:
    trained = _Trained(model("eager"))
    context = evenspan.attach(trained.model)
    whole = batch()
    documents = [ids.tolist() for ids in whole["ids"][0].split(LENGTHS)]

    def step() -> float:
        (local,) = list(context.shard([documents]))
        return trained.step(lambda: context.loss(trained.model(**local)), context.reduce_gradients)

    return step


def _contiguous(trained: _Trained, before: Callable[[], None]) -> Callable[[], float]:
    """Step on this rank's equal piece of the batch."""
    whole = batch()
    count = int((whole["labels"] != NO_LABEL).sum())
    rank, ranks = dist.get_rank(), dist.get_world_size()

    def step() -> float:
        local = [whole[key].chunk(ranks, dim=1)[rank] for key in ("ids", "positions", "labels")]
        before()
        return trained.step(lambda: trained.share(*local, count), trained.reduce)

    return step


def _with_deepspeed() -> Callable[[], float]:
    from deepspeed.runtime.sequence_parallel.ulysses_sp import UlyssesSPAttentionHF
    from systems import deepspeed_modes

    deepspeed_modes.start()
    ALL_ATTENTION_FUNCTIONS.register("packed_ulysses", packed_attention)
    trained = _Trained(model("packed_ulysses"))
    UlyssesSPAttentionHF.register_with_transformers(
        model_name_or_path=trained.model,
        core_attn_implementation="packed_ulysses",
        sequence_parallel_size=dist.get_world_size(),
        micro_batch_size=1,
        seq_length_is_variable=True,
    )
    return _contiguous(trained, lambda: None)


def _with_ring_flash_attn() -> Callable[[], float]:
    # The adapter imports a name that newer transformers lack, and never calls it.
    utilities = importlib.import_module("transformers.modeling_flash_attention_utils")
    with contextlib.suppress(AttributeError):
        if not hasattr(utilities, "is_flash_attn_greater_or_equal_2_10"):
            utilities.is_flash_attn_greater_or_equal_2_10 = True
    sys.modules.pop("ring_flash_attn.adapters", None)
    adapter = importlib.import_module("ring_flash_attn.adapters.hf_adapter")
    adapter.substitute_hf_flash_attn(dist.group.WORLD, SIZES["num_key_value_heads"])
    cuts = cu_seqlens(LENGTHS)
    update = lambda: adapter.update_ring_flash_attn_params(cuts, dist.group.WORLD)  # noqa: E731
    return _contiguous(_Trained(model("flash_attention_2")), update)


def _with_llama3() -> Callable[[], float]:
    """Do what the adapter of ring-flash-attn does, in an attention function of transformers' own interface."""
    from systems.ring_flash_attn_modes import llama3

    cuts, prepared = cu_seqlens(LENGTHS), []

    def prepare() -> None:
        found = llama3.llama3_flash_attn_prepare_cu_seqlens(cuts, True, dist.get_rank(), dist.get_world_size())
        prepared[:] = found

    def attend(
        module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, None]:
        *cut, keys = prepared
        own = (x[0].transpose(0, 1) for x in (query, key, value))
        stride = SIZES["num_key_value_heads"]
        group = dist.group.WORLD
        out = llama3.llama3_flash_attn_varlen_func(*own, *cut, stride, keys, causal=True, group=group)
        return out.unsqueeze(0), None

    ALL_ATTENTION_FUNCTIONS.register("packed_llama3", attend)
    return _contiguous(_Trained(model("packed_llama3")), prepare)


_STEPS = dict(zip(SYSTEMS, (_with_evenspan, _with_deepspeed, _with_ring_flash_attn, _with_llama3), strict=True))


class Llama:
    """What a rank keeps between the commands of the harness."""

    def __init__(self) -> None:
        """Begin with no system."""
        self._steps: dict[str, Callable[[], float]] = {}

    def check(self, name: str, steps: int) -> list[float]:
        """Return the losses of the first steps; the loss after an update tells of the gradients."""
        self._steps[name] = _STEPS[name]()
        return [self._steps[name]() for _ in range(steps)]

    def measure(self, names: list[str], repetitions: int) -> dict[str, list[float]]:
        """Return seconds of steps, all systems by turns, on one batch that is planned anew in every step."""
        times: dict[str, list[float]] = {name: [] for name in names}
        for repetition in range(repetitions + 1):  # the first one warms up
            start = repetition % max(1, len(names))
            for name in names[start:] + names[:start]:
                if name not in self._steps:
                    self._steps[name] = _STEPS[name]()
                dist.barrier()
                begin = time.perf_counter()
                self._steps[name]()
                times[name].append(time.perf_counter() - begin)
        return {name: found[1:] for name, found in times.items()}


VERSION = transformers.__version__
