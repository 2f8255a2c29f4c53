"""The proof that a model hears what it is told: a few tokens that it computes twice, as its author meant and as a part.

Once two short documents run as any user would run them, with torch's attention, while the probe hears what reaches it.
Then all their rows run as a rank's part would hold them, in an order of no meaning, with their positions. Both times
each layer's attention must get the same queries, keys and values for a row, and every module must give it the same:
then everything but attention depends on the token and its position alone, and attention goes through evenspan.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist

from evenspan._errors import Error, InvalidArgumentError, UnsupportedError
from evenspan._groups import communicator_of
from evenspan.huggingface._attention import NAME, Part
from evenspan.huggingface._hearing import Call, hearing, shape_of
from evenspan.huggingface._interface import TRUTH, implementations, put_back, set_attention
from evenspan.huggingface._models import Shape, check_layers, refusal, special_tokens, vocabulary_of
from evenspan.huggingface._rows import Rows, close, compare, features

DOCUMENTS, LENGTH = 2, 8  # of the probe
_STEP = 7  # the part has the documents' rows 0, 7, 14, ... modulo their number, of which it is no divisor
_SMALL = 1 << 20  # elements of a buffer that a forward pass may write to, as caches of angles are; weights it reads


def prove(model: Any, run: Any, config: Any, group: dist.ProcessGroup | None) -> Shape:
    """Prove the model on every rank of the group, which all call; see `probe`.

    Raises:
        UnsupportedError: On every rank where one has it.
        InvalidArgumentError: The ranks hold other weights.
    """
    if any(parameter.is_meta for parameter in model.parameters()):
        raise refusal("weights must be there when a batch is sharded", "some are on the meta device", "load them first")
    error = None
    try:
        shape, logits = probe(model, run, config)
        check_layers(config, shape)
    except UnsupportedError as refused:
        error = refused
    communicator = communicator_of(group)
    refusing = torch.zeros(communicator.size, dtype=torch.int64, device=model.device)
    refusing[communicator.rank] = error is not None
    ranks = communicator.all_reduce(refusing).nonzero()[:, 0].tolist()
    if error is not None:
        raise error
    if ranks:
        raise refusal(
            "the model must be the same on every rank",
            f"ranks {', '.join(map(str, ranks))} refuse it and rank {communicator.rank} does not",
            "see their errors",
        )
    for rank, theirs in enumerate(communicator.all_gather(logits)):
        if not close(logits, theirs, shape.calls):
            raise InvalidArgumentError(
                f"[attach] weights must be the same on every rank, those of ranks {communicator.rank} and {rank} give "
                "other logits; load them from one file, call torch.manual_seed before they are made, or attach the "
                "DistributedDataParallel or fully_shard of the model"
            )
    return shape


def probe(model: Any, run: Any, config: Any) -> tuple[Shape, torch.Tensor]:
    """Compute a few tokens twice, and refuse a model of which the two differ.

    Random state, modes, buffers and attention implementations are as before when it returns or raises; no gradients.
    Under FSDP every rank calls.

    Args:
        model: The model with its weights; evenspan's attention function is registered.
        run: The model, or the FullyShardedDataParallel around it.
        config: Its decoder's configuration.

    Returns:
        What every layer's attention is, and logits [rows, features].

    Raises:
        UnsupportedError: With what differs.
    """
    device = model.device
    ids = _tokens(vocabulary_of(model, config), special_tokens(model.config)).to(device)
    rows = torch.arange(ids.numel()) * _STEP % ids.numel()
    positions = torch.arange(LENGTH).repeat(DOCUMENTS)
    with _as_before(run), torch.no_grad(), torch.autocast(device.type, enabled=False):
        run.eval()
        set_attention(model, config, TRUTH)
        outputs = Rows(run)
        with hearing() as calls, outputs.kept(DOCUMENTS, LENGTH):
            # With a mask, releases before 5 do not look for packed documents, whose mask cannot be asked far on.
            logits = _logits(run, input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
        if not torch.isfinite(logits).all():
            raise refusal("weights must be there", "the model's logits are not finite", "load its weights first")
        shape = shape_of(calls, ids.numel())
        set_attention(model, config, NAME)
        for call in calls:
            call.module.training = True
        rehearsal = Rehearsal(calls, rows.to(device))
        with outputs.compared(rehearsal.rows, lambda: rehearsal.num_calls):
            again = _logits(
                run,
                input_ids=ids.flatten()[rehearsal.rows][None],
                position_ids=positions[rows][None].to(device),
                shift_labels=torch.full((1, ids.numel()), -100, device=device),
                use_cache=False,
                **{NAME: rehearsal},
            )
    rehearsal.finish()
    compare("logits", logits[rehearsal.rows], again, len(calls))
    return shape, features(logits)


def _tokens(vocabulary: int, special: dict[str, int]) -> torch.Tensor:
    """Return ids [DOCUMENTS, LENGTH]: plain ones, and those that end, begin or pad a text; no images and the like."""
    avoided = set(special.values())
    plain = [i for i in range(vocabulary) if i not in avoided] or [0]
    ids = torch.tensor([plain[(i * 7919 + 13) % len(plain)] for i in range(DOCUMENTS * LENGTH)])
    for i, name in enumerate(("eos_token_id", "pad_token_id", "bos_token_id")):
        if 0 <= special.get(name, -1) < vocabulary:
            ids[4 * i + 3] = special[name]
    ids[LENGTH + 2] = ids[1]  # a token at two positions
    return ids.view(DOCUMENTS, LENGTH)


def _logits(model: Any, **batch: Any) -> torch.Tensor:
    """Return the logits of all rows, [rows, vocabulary]; what goes wrong is a refusal."""
    try:
        logits: torch.Tensor = model(**batch).logits
    except InvalidArgumentError as error:  # attention got no part, or has not its rows
        raise refusal(
            "the model must hand its keywords on to every layer's attention",
            f"{type(model).__name__} does not",
            "use another model",
        ) from error
    except Error as error:
        raise UnsupportedError(str(error).replace("[attention]", "[attach]")) from error
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        line = (str(error).splitlines() or [""])[0]
        raise refusal(
            "the model must run on input_ids, position_ids and keywords that it hands on to its attention",
            f"{type(model).__name__} raised {type(error).__name__}: {line}",
            "use another model",
        ) from error
    if logits.shape[:-1] != batch["input_ids"].shape:
        raise refusal(
            "the model must give logits for every token",
            f"{type(model).__name__} gives {list(logits.shape)} for {list(batch['input_ids'].shape)} tokens",
            "use a causal language model",
        )
    return logits.flatten(0, -2)


@contextlib.contextmanager
def _as_before(model: Any) -> Iterator[None]:
    """Put back what running a model may change."""
    modules = list(model.modules())
    modes = [module.training for module in modules]
    buffers = [dict(module._buffers) for module in modules]
    small = [b for held in buffers for b in held.values() if b is not None and b.numel() <= _SMALL]
    values = [(b, b.clone()) for b in small]
    before = implementations(model)
    devices = {parameter.device for parameter in model.parameters() if parameter.is_cuda}
    try:
        with torch.random.fork_rng(list(devices)), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for module, mode, held in zip(modules, modes, buffers, strict=True):
            module.training = mode
            module._buffers.clear()
            module._buffers.update(held)
            if hasattr(module, "reshard"):  # FSDP2 keeps what it gathered for a backward pass, which does not come
                module.reshard()
        for buffer, value in values:
            if not torch.equal(buffer, value):
                buffer.copy_(value)
        put_back(before)


class Rehearsal(Part):
    """The probe's rows as a part: compares what reaches attention with what did, and answers with what was answered."""

    def __init__(self, calls: list[Call], rows: torch.Tensor) -> None:
        """Expect these calls again, with `rows` of their rows."""
        self.num_tokens = rows.numel()
        self.rows = rows
        self._calls = calls
        self.num_calls = 0

    def attend(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
        sliding_window: int | None,
    ) -> torch.Tensor:
        """Return the output that torch's attention had for these rows."""
        call = self._calls[self.num_calls] if self.num_calls < len(self._calls) else None
        if call is None or call.module is not module:
            raise self._other_calls()
        module.training = False  # dropout in attention would have been heard; what follows may have its own
        layer = getattr(module, "layer_idx", self.num_calls)
        for name, found, expected in (
            ("queries", query, call.query), ("keys", key, call.key), ("values", value, call.value),
        ):  # fmt: skip
            compare(f"{name} of layer {layer}", expected[self.rows], found, self.num_calls)
        self.num_calls += 1
        return call.output[self.rows]

    def finish(self) -> None:
        """Check that all calls came."""
        if self.num_calls != len(self._calls):
            raise self._other_calls()

    def _other_calls(self) -> UnsupportedError:
        return refusal(
            "every layer's attention must go through transformers' AttentionInterface",
            f"other layers do with evenspan's than the {len(self._calls)} that do with {TRUTH}",
            "use another model",
        )
