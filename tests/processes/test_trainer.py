"""evenspan.huggingface.Trainer on Gloo processes beside transformers' Trainer on fewer."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import evenspan
import pytest
import torch
import torch.distributed as dist
import transformers
from groups import results, run_ranks

# transformers keeps losses and clips in float32, and rounds norms and rotary angles to it.
TOLERANCE = 2e-6


def llama() -> Any:
    torch.manual_seed(11)
    config = transformers.LlamaConfig(
        vocab_size=10, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, initializer_range=0.3,
    )  # fmt: skip
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").double()


def documents(count: int) -> list[dict[str, list[int]]]:
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(2, 14, (count,), generator=generator).tolist()
    return [{"input_ids": torch.randint(0, 10, (n,), generator=generator).tolist()} for n in lengths]


def padded(features: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    longest = max(len(feature["input_ids"]) for feature in features)
    ids = torch.zeros(len(features), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for i, feature in enumerate(features):
        ids[i, : len(feature["input_ids"])] = torch.tensor(feature["input_ids"])
        mask[i, : len(feature["input_ids"])] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


def as_torchrun_starts_it() -> None:
    rank, size = str(dist.get_rank()), str(dist.get_world_size())
    if size != "1":  # accelerate looks there before it asks torch
        os.environ.update(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=size, LOCAL_WORLD_SIZE=size)
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="1")  # the group is there


def make(kind: Any, folder: Path, pads: bool, **options: Any) -> Any:
    more = options.pop("trainer", {})
    if dist.is_initialized():
        as_torchrun_starts_it()
    args = transformers.TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to=[], disable_tqdm=True, seed=5, learning_rate=0.05,
        per_device_train_batch_size=3, per_device_eval_batch_size=3,
        gradient_accumulation_steps=2, max_steps=4, logging_steps=1, eval_strategy="steps", eval_steps=2,
        save_strategy="steps", save_steps=2, max_grad_norm=0.5, optim="sgd", lr_scheduler_type="linear", **options,
    )  # fmt: skip
    collator = padded if pads else transformers.DataCollatorWithFlattening(return_seq_idx=True)
    return kind(
        model=llama(), args=args, train_dataset=documents(26), data_collator=collator,
        eval_dataset=[*documents(6), {"input_ids": [3]}], **more,  # the last batch has no label
    )  # fmt: skip


def history(trainer: Any) -> list[dict[str, float]]:
    kept = ("loss", "grad_norm", "learning_rate", "eval_loss", "epoch", "step")
    return [{k: float(v) for k, v in entry.items() if k in kept} for entry in trainer.state.log_history[:-1]]


def parameters(trainer: Any) -> Any:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()]).numpy()


def shared(folder: Path, pads: bool, ranks_per_batch: int | None) -> Any:
    """What a run of four steps logs and ends with, and one that goes on from its second step."""
    how = {"ranks_per_batch": ranks_per_batch, "attach_options": {"strategy": "ring"}}
    trainer = make(evenspan.huggingface.Trainer, folder, pads, ddp_backend="gloo", trainer=how)
    trainer.train()
    again = make(evenspan.huggingface.Trainer, folder / "again", pads, ddp_backend="gloo", trainer=how)
    again.train(resume_from_checkpoint=str(folder / "checkpoint-2"))
    dist.barrier()
    return history(trainer), parameters(trainer), history(again), parameters(again)


def alone(folder: Path, pads: bool) -> Any:
    trainer = make(transformers.Trainer, folder, pads, ddp_backend="gloo")
    trainer.train()
    return history(trainer), parameters(trainer)


@pytest.mark.parametrize(("ranks", "ranks_per_batch", "pads"), [(2, None, False), (4, 2, True)])
def test_trains_as_transformers_trainer_on_fewer_ranks(
    tmp_path: Path, ranks: int, ranks_per_batch: int | None, pads: bool
) -> None:
    """Accumulation, clipping, evaluation, logs, checkpoints and resuming are transformers' own on a rank a batch."""
    replicas = 1 if ranks_per_batch is None else ranks // ranks_per_batch
    right_history, right = results(run_ranks(replicas, partial(alone, tmp_path / "alone", pads)))[0]
    assert len(right_history) == 6
    outcomes = results(run_ranks(ranks, partial(shared, tmp_path / "shared", pads, ranks_per_batch)))
    for logged, trained, logged_again, trained_again in outcomes:
        for entry, expected in zip(logged, right_history, strict=True):
            assert entry == pytest.approx(expected, abs=2e-5), (entry, expected)
        assert logged_again[3:] == logged[3:]
        assert abs(trained - right).max() < TOLERANCE
        assert (trained == trained_again).all()
    saved = sorted(path.name for path in (tmp_path / "shared" / "checkpoint-2").iterdir())
    assert saved.count("model.safetensors") == 1 and saved.count("trainer_state.json") == 1
    assert "evenspan" not in json.dumps(json.loads((tmp_path / "shared" / "checkpoint-2" / "config.json").read_text()))


def evaluated_first(folder: Path) -> tuple[float, str]:
    """The first loss logged when all ranks share a batch; what is said when they do not."""
    trainer = make(evenspan.huggingface.Trainer, folder, False, ddp_backend="gloo")
    trainer.evaluate()
    trainer.train()
    logged = trainer.state.log_history[0]["loss"]
    trainer = make(evenspan.huggingface.Trainer, folder, False, ddp_backend="gloo", trainer={"ranks_per_batch": 1})
    trainer.evaluate()
    try:
        trainer.train()
    except evenspan.UnsupportedError as error:
        return logged, str(error)
    return logged, ""


def test_evaluation_before_training(tmp_path: Path) -> None:
    """accelerate then leaves the model without DistributedDataParallel."""
    ((right, _),) = results(run_ranks(1, partial(alone, tmp_path / "alone", False)))
    for logged, said in results(run_ranks(2, partial(evaluated_first, tmp_path))):
        assert logged == pytest.approx(right[0]["loss"], abs=2e-5)
        assert "averaged over the 2 groups of ranks" in said and "eval_on_start" in said


def in_bfloat16(folder: Path) -> float:
    trainer = make(
        evenspan.huggingface.Trainer, folder, False, bf16=True, gradient_checkpointing=True, ddp_backend="gloo"
    )
    trainer.model.float()
    trainer.train()
    return trainer.state.log_history[0]["loss"]


def test_mixed_precision_and_checkpointed_layers(tmp_path: Path) -> None:
    first, second = results(run_ranks(2, partial(in_bfloat16, tmp_path)))
    assert first == second and 1 < first < 6


def test_what_the_trainer_refuses(tmp_path: Path) -> None:
    with pytest.raises(evenspan.UnsupportedError, match="label_smoothing_factor"):
        make(evenspan.huggingface.Trainer, tmp_path, True, label_smoothing_factor=0.1)
    with pytest.raises(evenspan.UnsupportedError, match="compute_metrics"):
        make(evenspan.huggingface.Trainer, tmp_path, True, trainer={"compute_metrics": lambda _: {}})
    with pytest.raises(evenspan.InvalidArgumentError, match="must divide the 1 ranks, it is 2"):
        make(evenspan.huggingface.Trainer, tmp_path, True, trainer={"ranks_per_batch": 2})
    with pytest.raises(evenspan.InvalidArgumentError, match="ranks_per_batch must be a whole number"):
        make(evenspan.huggingface.Trainer, tmp_path, True, trainer={"ranks_per_batch": "2"})
    with pytest.raises(evenspan.InvalidArgumentError, match="attach_options must be a mapping, it is 'auto'"):
        make(evenspan.huggingface.Trainer, tmp_path, True, trainer={"attach_options": "auto"})
    trainer = make(evenspan.huggingface.Trainer, tmp_path, True)
    with pytest.raises(evenspan.UnsupportedError, match="logits of whole batches"):
        trainer.predict(documents(2))
