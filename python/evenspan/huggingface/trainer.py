"""transformers' Trainer over ranks that share a batch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
import transformers
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader

from evenspan._arguments import described, whole_number
from evenspan._errors import InvalidArgumentError, UnsupportedError
from evenspan.huggingface._attach import attach
from evenspan.huggingface._batches import KNOWN_KEYS


class Trainer(transformers.Trainer):  # type: ignore[misc]
    """transformers' Trainer, whose batches are each shared by several ranks: it does what that does on fewer ranks.

    A program differs in the class alone. Every rank of a group gets the same batches: `per_device_train_batch_size` is
    the number of examples of a batch, on all ranks that share it. Logged losses, clipped gradient norms, evaluation
    losses, accumulated gradients and checkpoints are those of transformers' Trainer on one rank for each group. The
    collator gives what `Context.shard` reads: DataCollatorWithFlattening (no padding at all) or one that pads.

    Attributes:
        context: The Context of the model; `with trainer.context.detached():` is for `generate`.
    """

    def __init__(
        self,
        *args: Any,
        ranks_per_batch: int | None = None,
        attach_options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Attach the model.

        Args:
            *args: Of transformers' Trainer.
            ranks_per_batch: Consecutive ranks that share a batch, all of them by default; a divisor of their number.
            attach_options: Of `evenspan.attach`: strategy, profile, ...
            **kwargs: Of transformers' Trainer.

        Raises:
            UnsupportedError: Something is asked for that needs the logits of whole batches on one rank, or another way
                to spread the model.
            InvalidArgumentError: `ranks_per_batch` is no divisor, `attach_options` no mapping.
            Error: As `evenspan.attach`.
        """
        super().__init__(*args, **kwargs)
        self._refuse_unsupported()
        ranks = max(1, self.args.world_size)
        shared = ranks if ranks_per_batch is None else whole_number("Trainer", "ranks_per_batch", ranks_per_batch)
        if attach_options is not None and not isinstance(attach_options, Mapping):
            raise InvalidArgumentError(
                f"[Trainer] attach_options must be a mapping, it is {described(attach_options)}; give such as "
                '{"strategy": "auto"}'
            )
        if shared < 1 or ranks % shared:
            raise InvalidArgumentError(
                f"[Trainer] ranks_per_batch must divide the {ranks} ranks, it is {shared}; leave it out for all of them"
            )
        self._ranks_per_batch = shared
        group = None
        if shared < ranks:
            groups = [list(range(first, first + shared)) for first in range(0, ranks, shared)]
            group, _ = dist.new_subgroups_by_enumeration(groups)  # type: ignore[no-untyped-call]
        self.context = attach(self.model, group, **(attach_options or {}))
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True
        self.accelerator.prepare_data_loader = self._prepare_data_loader

    def _refuse_unsupported(self) -> None:
        args = self.args
        asked = {
            "compute_metrics (logits are spread over ranks)": self.compute_metrics is not None,
            "compute_loss_func (labels are spread over ranks)": self.compute_loss_func is not None,
            "model_init (the model is attached once)": self.model_init is not None,
            "label_smoothing_factor": args.label_smoothing_factor != 0,
            "use_liger_kernel": args.use_liger_kernel,
            "more than one GPU in a process (start it with torchrun)": args.n_gpu > 1,
            "deepspeed": self.is_deepspeed_enabled,
            "fsdp (write the loop with fully_shard)": self.is_fsdp_enabled,
            "parallelism_config (ranks_per_batch says it)": getattr(args, "parallelism_config", None) is not None,
        }
        found = [name for name, is_asked in asked.items() if is_asked]
        if found:
            raise UnsupportedError(f"[Trainer] {', '.join(found)} must not be given, it is not supported; leave it out")

    def get_cp_size(self) -> int:
        """Return the ranks that share a batch, of which transformers' counts of batches and examples know so."""
        return self._ranks_per_batch

    def _prepare_data_loader(
        self, data_loader: DataLoader[Any], device_placement: bool | None = None, slice_fn_for_dispatch: Any = None
    ) -> DataLoader[Any]:
        """Deal the batches to groups of ranks, where accelerate deals them to ranks."""
        accelerator = self.accelerator
        prepared: DataLoader[Any] = prepare_data_loader(
            data_loader,
            accelerator.device,
            num_processes=max(1, self.args.world_size) // self._ranks_per_batch,
            process_index=self.args.process_index // self._ranks_per_batch,
            split_batches=accelerator.split_batches,
            put_on_device=False,  # batches are read on the CPU
            rng_types=accelerator.rng_types.copy(),
            dispatch_batches=False,
            even_batches=accelerator.even_batches,
            use_seedable_sampler=accelerator.use_seedable_sampler,
            data_seed=accelerator.dataloader_config.data_seed,
        )
        accelerator._dataloaders.append(prepared)
        return prepared

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        self._signature_columns: list[str] = sorted({*self._signature_columns, *KNOWN_KEYS})  # or dropped unread

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], torch.Tensor | int | None]:
        """Return this rank's parts of the batches of a step, and how many labels they have in their group."""
        batches = list(itertools.islice(epoch_iterator, num_batches))
        labels = 0
        sharded = []
        for batch in self.context.shard(batches, accumulate=max(1, len(batches))):
            sharded.append(batch)
            labels += self.context.num_labels
        return sharded, labels

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return this rank's share of the step's loss, see `Context.loss`."""
        outputs = model(**inputs)
        loss = self.context.loss(outputs, inputs)
        return (loss, outputs) if return_outputs else loss

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run forward and backward of a batch, and end the step with its last one.

        Returns:
            The rank's part of the loss; transformers logs the mean over all ranks.

        Raises:
            UnsupportedError: Nobody averages gradients over the groups of ranks.
        """
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        ranks, averaged = max(1, self.args.world_size), self.context.averaging_ranks
        if averaged not in (ranks, ranks // self._ranks_per_batch):
            raise UnsupportedError(
                f"[Trainer] gradients must be averaged over the {ranks // self._ranks_per_batch} groups of ranks, the "
                "model is not in DistributedDataParallel: accelerate leaves it out when evaluate() comes before "
                "train(); evaluate with eval_on_start=True"
            )
        if self.context.step_ends:
            self.context.reduce_gradients()
        logged: torch.Tensor = loss * (ranks / averaged)
        return logged

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate; each batch counts once for the ranks that share it."""
        self.gather_function = self._gather_once
        return super().evaluation_loop(*args, **kwargs)

    def _gather_once(self, losses: torch.Tensor) -> torch.Tensor:
        by_rank = self.accelerator.gather(losses).reshape(-1, losses.numel())
        once: torch.Tensor = by_rank[:: self._ranks_per_batch].flatten()
        state = self.accelerator.gradient_state
        return once[: state.remainder] if state.end_of_dataloader and state.remainder > 0 else once

    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """Return the loss of a batch: with several groups of ranks its share, as transformers' Trainer weighs those.

        It is NaN where no group has labels, as transformers' own is, which its mean then leaves out.

        Raises:
            UnsupportedError: Logits are asked for, as `predict` does.
        """
        if not prediction_loss_only:
            raise UnsupportedError(
                "[Trainer] logits of whole batches must not be asked for, they are spread over ranks; evaluate with "
                "prediction_loss_only, or predict with transformers' Trainer"
            )
        with torch.no_grad(), self.compute_loss_context_manager():
            for batch in self.context.shard([inputs]):
                self.context.loss(model(**batch), batch)
        weight = torch.tensor([self.context.label_weight], dtype=torch.float64, device=self.args.device)
        every = self.accelerator.gather(weight)[:: self._ranks_per_batch]
        share = float(weight / every.mean()) if float(every.sum()) > 0 else math.nan
        return torch.tensor(self.context.mean_loss() * share, device=self.args.device), None, None
