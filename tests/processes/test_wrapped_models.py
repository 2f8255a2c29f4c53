"""Models in DistributedDataParallel and FSDP over four Gloo processes: found, and gradients as on one rank."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import evenspan
import torch
import torch.distributed as dist
import torch.nn.functional as F
import transformers
from groups import results, run_ranks
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

STEPS = [  # two batches each, of two replicas
    ([[[3, 1, 4, 1, 5, 9], [2, 6]], [[5, 3, 5, 8, 9]]], [[[7, 9, 3]], [[2, 3, 8, 4, 6, 2, 6, 4]]]),
    ([[[3, 3]], [[8, 3, 2, 7]]], [[[9, 5, 0, 2], [8, 8, 4]], [[1, 9]]]),
]


def llama() -> Any:
    torch.manual_seed(11)
    config = transformers.LlamaConfig(
        vocab_size=10, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, initializer_range=0.3, tie_word_embeddings=True,
    )  # fmt: skip
    return transformers.AutoModelForCausalLM.from_config(config).double()


def alone(documents: list[list[int]]) -> tuple[float, list[torch.Tensor]]:
    model = llama()
    losses = [
        F.cross_entropy(model(input_ids=torch.tensor([d])).logits[0, :-1], torch.tensor(d[1:]), reduction="sum")
        for d in documents
    ]
    loss = torch.stack(losses).sum() / sum(len(d) - 1 for d in documents)
    loss.backward()
    return float(loss.detach()), [p.grad for p in model.parameters()]


def whole(model: Any) -> list[torch.Tensor]:
    """The gradients, of a model that may be sharded."""
    return [p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad.clone() for p in model.parameters()]


def groups() -> tuple[dist.ProcessGroup, dist.ProcessGroup, DeviceMesh]:
    """Of two ranks that share a batch, of two replicas, and all of it as a mesh."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "sp"))
    return mesh["sp"].get_group(), mesh["dp"].get_group(), mesh


def train(
    model: Any, context: evenspan.Context, replica: int | None, unsynchronised: Callable[[bool], Any]
) -> list[tuple[float, float]]:
    """(difference of the loss, of the gradients) from one rank, for each step."""
    outcome = []
    loader = [batch for step in STEPS for batch in (step[0] + step[1] if replica is None else step[replica])]
    accumulate = 4 if replica is None else 2
    steps = iter(STEPS)
    for i, batch in enumerate(context.shard(loader, accumulate=accumulate)):
        with unsynchronised(i % accumulate == accumulate - 1):
            context.loss(model(**batch)).backward()
        if context.step_ends:
            context.reduce_gradients()
            loss, expected = alone([document for batches in next(steps) for batch in batches for document in batch])
            worst = max((a - b).abs().max().item() for a, b in zip(whole(model), expected, strict=True))
            outcome.append((abs(context.mean_loss() - loss), worst))
            model.zero_grad()
    return outcome


def plainly(ends: bool) -> Any:
    return contextlib.nullcontext()


def shard_fully(model: Any, mesh: DeviceMesh | None) -> Any:
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def wrapped() -> dict[str, list[tuple[float, float]]]:
    """The outcome of every way to wrap."""
    same_batch, replicas, mesh = groups()
    replica = dist.get_rank() // 2
    outcome = {}

    def attached(name: str, group: Any, wrap: Callable[[Any], Any], before: bool, **how: Any) -> None:
        model = llama()
        given = wrap(model) if before else model
        context = evenspan.attach(given, group)
        given = given if before else wrap(model)
        unsynchronised = how.get("unsynchronised", lambda _: plainly)(given)
        outcome[name] = train(given, context, None if group is dist.group.WORLD else replica, unsynchronised)
        context.detach()

    def no_sync(model: Any) -> Callable[[bool], Any]:
        return lambda ends: contextlib.nullcontext() if ends else model.no_sync()

    def no_reduction(model: Any) -> Callable[[bool], Any]:
        @contextlib.contextmanager
        def during(ends: bool) -> Any:
            model.set_requires_gradient_sync(ends)
            yield

        return during

    ddp = DistributedDataParallel
    everyone = dist.group.WORLD
    attached("DDP over the ranks of a batch", everyone, ddp, True, unsynchronised=no_sync)
    attached("DDP after attach", everyone, ddp, False)
    attached("DDP, static", everyone, lambda m: ddp(m, static_graph=True), True)
    attached("DDP that looks for unused", everyone, lambda m: ddp(m, find_unused_parameters=True), False)
    attached("DDP over all replicas", same_batch, ddp, True, unsynchronised=no_sync)
    attached("DDP over one rank of each", same_batch, lambda m: ddp(m, process_group=replicas), False)
    attached("no wrapper", everyone, lambda m: m, True)
    attached("FSDP2", everyone, lambda m: shard_fully(m, None), True, unsynchronised=no_reduction)
    attached("FSDP2 after attach", everyone, lambda m: shard_fully(m, None), False)
    attached("FSDP2 over all replicas", same_batch, lambda m: shard_fully(m, None), True)
    attached("HSDP", same_batch, lambda m: shard_fully(m, mesh), False, unsynchronised=no_reduction)
    attached("FSDP2 over one rank of each", same_batch, lambda m: shard_fully(m, mesh["dp"]), True)
    return outcome


def refusal_of_unequal_steps() -> str:
    """What replicas hear whose steps have another number of batches."""
    same_batch, _, _ = groups()
    model = llama()
    parallel = DistributedDataParallel(model)
    context = evenspan.attach(parallel, same_batch)
    batch = [[[1, 2, 3, 4], [5, 6, 7, 8]], [[1, 2, 3, 4]]][dist.get_rank() // 2]
    try:
        for part in context.shard([batch] * 3, global_batch_tokens=8):
            context.loss(parallel(**part)).backward()
    except evenspan.InvalidArgumentError as error:
        return str(error)
    return "nothing"


def test_replicas_with_other_numbers_of_batches_are_refused() -> None:
    for rank, said in enumerate(results(run_ranks(4, refusal_of_unequal_steps))):
        assert f"in step 1 this one has {1 + rank // 2}, and 2 replicas have 3; give accumulate=" in said


def refused() -> dict[str, str]:
    """What the first batch of each says that cannot be right."""
    same_batch, _, _ = groups()
    three = dist.new_subgroups_by_enumeration([[0, 1, 2], [3]])[0]
    said = {}

    def first(name: str, model: Any, given: Any, group: Any = None, **how: Any) -> None:
        """`model` is attached, `given` is called."""
        try:
            during = how.pop("during", contextlib.nullcontext())
            context = evenspan.attach(model, group, **how)
            given = given(model) if callable(given) and not isinstance(given, torch.nn.Module) else given
            (batch,) = context.shard([[[1, 2, 3, 4], [5, 6]]])
            with during:
                context.loss(given(**batch)).backward()
            context.reduce_gradients()
            said[name] = "nothing"
        except evenspan.Error as error:
            said[name] = str(error)
        dist.barrier()

    ddp = DistributedDataParallel
    model = ddp(llama())
    first("no_sync", model, model, during=model.no_sync())
    model = shard_fully(llama(), None)
    model.set_requires_gradient_sync(False)
    first("no reduction", model, model)
    model = ddp(llama())
    first("two", model, model, average=True)
    model = llama()
    model.model = ddp(model.model)
    first("part", model, model)
    model = llama()
    fully_shard(model.model.layers[0])
    first("part of FSDP2", model, model)
    model = shard_fully(llama(), None)
    model.set_gradient_divide_factor(1.0)
    first("divided", model, model)
    model = llama()
    model.lm_head.weight._fsdp_flattened = True  # what FSDP1 marks, which needs a GPU to be made
    first("FSDP1", model, model)
    model = llama()
    ddp._set_params_and_buffers_to_ignore_for_model(model, ["model.norm.weight"])
    model = ddp(model)
    first("ignored", model, model)
    model = llama()
    first("other ranks", model, ddp(model, process_group=three), same_batch)
    model = llama()
    first("half a group", model, ddp(model, process_group=same_batch), dist.group.WORLD)
    return said


def test_wrappers_that_cannot_be_right_are_refused() -> None:
    expected = {
        "no_sync": "must run with DistributedDataParallel's gradient synchronisation",
        "no reduction": "must run with fully_shard's gradient synchronisation",
        "two": "DistributedDataParallel and average=True do; take one away",
        "part": "the model has a DistributedDataParallel inside it",
        "part of FSDP2": "it holds 9 of 20 on 1 meshes",
        "divided": "with a divide factor of its own",
        "FSDP1": "the model has a FullyShardedDataParallel around it",
        "ignored": "it ignores model.norm.weight and 0 more",
        "other ranks": "ranks and 2 share a batch; wrap the model over other ranks",
        "half a group": "it averages over 2 ranks and 4 share a batch",
    }
    for said in results(run_ranks(4, refused)):
        assert said.keys() == expected.keys()
        for name, text in expected.items():
            assert text in said[name], (name, said[name])


def test_gradients_of_wrapped_models_are_those_of_one_rank() -> None:
    outcomes = results(run_ranks(4, wrapped))
    for outcome in outcomes:
        for name, steps in outcome.items():
            assert len(steps) == len(STEPS), name
            for loss, gradient in steps:  # transformers rounds norms and rotary angles to float32
                assert loss < 2e-6 and gradient < 2e-6, (name, steps)
