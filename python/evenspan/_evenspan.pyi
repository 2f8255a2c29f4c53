"""Types of the extension module (python/bindings)."""

from collections.abc import Callable, Sequence

import torch

DEFAULT_STRATEGY: str
VERSION: str

class Plan:
    """Who holds which tokens and who computes what, for one batch on all ranks. Immutable; made by `evenspan.plan`.

    A copy of it, of a model's settings for instance, is itself.
    """

    @property
    def lengths(self) -> list[int]: ...
    @property
    def ranks(self) -> int: ...
    @property
    def strategy(self) -> str: ...
    @property
    def heads(self) -> int: ...
    @property
    def kv_heads(self) -> int: ...
    @property
    def head_dim(self) -> int: ...
    @property
    def dtype(self) -> str: ...
    @property
    def num_tokens(self) -> int: ...
    @property
    def placement(self) -> list[list[tuple[int, int, int]]]: ...
    @property
    def tokens(self) -> list[int]: ...
    @property
    def pairs(self) -> list[float]:
        """Of a query and a key that attend in forward, by rank; a pair of some heads counts as that part of one."""
    @property
    def work(self) -> list[float]: ...
    @property
    def sent_bytes(self) -> list[int]: ...
    @property
    def metrics(self) -> dict[str, float]: ...
    @property
    def hash(self) -> int: ...
    def with_mask(self, mask: str | Sequence[str]) -> Plan:
        """Plan layers of the same model that have another mask, on this plan's placement.

        Hidden states stay where they are from layer to layer, so all layers of a model share a placement. Documents on
        which both masks allow the same pairs have the tiles of this plan; queries of the others stay where they are at
        home, and the keys that their mask needs travel. `work` counts by this plan's costs.

        Args:
            mask: "causal", "full", "window:W" (a query sees W keys, itself the last) or "prefix:N"; one for all
                documents or one for each.

        Raises:
            InvalidArgumentError: There are fewer masks than documents, or more.
            ResourceError: The plan's memory budget is too small for these layers.
        """
    def text(self) -> str: ...

class Planner:
    """Plans batches that differ in their documents only, caches the plans, and plans ahead on a thread of its own.

    `model` is (layers, hidden, intermediate, vocabulary) of the model that `auto` simulates, or a config.json; Llama 3
    8B's sizes by default.

    `layers` are the kinds of softmax layers that the model has, [(how many, window)]: queries see `window` keys, the
    last of them their own (what transformers calls `sliding_window`), or, with None, all that the mask allows. A batch
    has a plan for each kind, all on one placement, which is chosen for the model as a whole: the widest kind's pairs
    and, by the token, the others'. Without `layers` there is one plan, of the mask itself.
    """

    def __init__(
        self,
        *,
        ranks: int,
        ranks_per_node: int,
        topology: str | None,
        strategy: str,
        heads: int,
        kv_heads: int,
        head_dim: int,
        dtype: str,
        token_slack: float,
        ranks_per_group: int,
        memory_budget: int,
        profile: str | None,
        model: tuple[int, int, int, int] | str | None,
        layers: Sequence[tuple[int, int | None]],
        capacity: int,
    ) -> None: ...
    def prefetch(self, lengths: Sequence[int], mask: str | Sequence[str]) -> None:
        """Begin to make all plans of the batch on the planner's thread, unless they are there."""
    def plans(self, lengths: Sequence[int], mask: str | Sequence[str]) -> list[Plan]:
        """Return the batch's plans, in the order of `layers`; kinds that see the same in it have the same object.

        `mask` is what a layer without a window sees: "causal" for a language model.
        """
    def plan_of_groups(
        self, lengths: Sequence[int], mask: str | Sequence[str], groups: Sequence[Sequence[int]]
    ) -> Plan:
        """Return the plan of documents that each lie, in equal parts, on the ranks of its group."""
    def micro_batches(self, lengths: Sequence[int], tokens: int, planner: str) -> list[list[int]]:
        """Return the documents of each micro-batch of a step, ascending; one has at most so many tokens on all ranks.

        By the times of the planner's profile, or without one by operations, on its model.
        """
    def take_note(self) -> str: ...
    @property
    def counts(self) -> dict[str, int]: ...

class Communicator:
    def __init__(self, group_name: str | None, timeout: float) -> None: ...
    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...
    def all_gather(self, tensor: torch.Tensor) -> list[torch.Tensor]: ...
    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor: ...
    @property
    def call_hash(self) -> int:
        """Of all calls of this rank so far, in order: equal on ranks that made the same ones; below 2**63."""
    def compare(
        self,
        parts: Sequence[tuple[str, int]],
        *,
        operation: str,
        things: str,
        remedy: str,
        device: str = "cpu",
    ) -> None:
        """Raise CommunicationError on every rank, naming the parts, unless each part has one value on all ranks.

        One small all-gather on `device`. Values are hashes, or numbers from 0; those below 2**31 are shown:
        `[operation] ranks 0 and 1 hold different THINGS: they differ in PART, PART (3 on rank 0, 4 on rank 1); REMEDY`.
        """
    def refuse(self, operation: str, reason: str) -> None:
        """Tell the other ranks that this one takes no part in its next call, and count that call.

        Ranks that all refuse it go on; who waits in it or later raises CommunicationError.
        """
    def abort(self, operation: str, reason: str) -> None:
        """Tell the other ranks that this one failed; the communicator stays failed on all."""

class Executable:
    def __init__(self, plan: Plan, communicator: Communicator, device: str) -> None: ...
    @property
    def handle(self) -> torch.Tensor: ...
    @property
    def rank(self) -> int: ...
    @property
    def num_tokens(self) -> int: ...

class Summary:
    steps: int
    first_loss: float
    last_loss: float
    held_out_loss: float
    tokens: int
    seconds: float
    stopped_by: int
    checkpoint: str

class Calibration:
    """What `calibrate` measured: a profile for the simulator."""

    @property
    def json(self) -> str: ...
    def predict(self, plan: Plan) -> tuple[float, float]:
        """Modelled seconds of one layer's attention, forward and backward, each begun by all ranks together."""

class CalibrateCommand:
    """The words after `calibrate`."""

    ranks_per_node: int

    def __init__(self, words: Sequence[str]) -> None: ...
    @property
    def help(self) -> bool: ...
    @property
    def ranks(self) -> int | None: ...
    @property
    def device(self) -> str: ...
    @staticmethod
    def describe_options() -> str: ...
    def run(self, communicator: Communicator) -> str: ...
    def calibrate(self, communicator: Communicator) -> Calibration: ...

def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, executable: Executable) -> torch.Tensor: ...

class SavedStates:
    """The states that a call of `linear_attention` starts from, for a layer that is computed again in backward.

    The first call with it fills it; further ones with the same inputs send nothing.
    """

    def __init__(self) -> None: ...

def linear_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    gate: torch.Tensor | None,
    beta: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    executable: Executable,
    *,
    transport: str,
    state_blocks: int,
    scale: float,
    normalize: bool,
    final_state: bool,
    states: SavedStates | None,
    kernel: Callable[..., tuple[torch.Tensor, torch.Tensor]] | None,
) -> tuple[torch.Tensor, torch.Tensor | None]: ...
def short_convolution(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, executable: Executable
) -> torch.Tensor: ...
def transports() -> list[str]: ...
def train(config: str, overrides: Sequence[tuple[str, str]], communicator: Communicator) -> Summary: ...
def tokenization_words(config: str, overrides: Sequence[tuple[str, str]], ranks: int) -> list[str]: ...
def describe_training() -> str: ...

class Progress:
    """How far long work has come, on standard error, once it has taken two seconds."""

    def __init__(self, what: str) -> None: ...
    def at(self, done: float, total: float) -> None: ...
