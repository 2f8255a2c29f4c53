"""Steps of several micro-batches as planners compose and place them, predicted and measured: a Markdown table.

Gloo ranks of one thread, each on a host of its own (a network namespace with a shaped link), train a small model:
forward and backward of all micro-batches of a step, the same executor under every row. The planners' documents lie on
the ranks that the planner gives them (`evenspan.plan(groups=...)`); the micro-batches of the planner `auto` are placed
by a strategy, as the trainer and `evenspan.attach` do it. A rank goes from one micro-batch to the next by
itself; a step ends with its slowest rank. The rows take turns, and of each step the median counts. Predictions are of
`evenspan batch --simulate` with a profile that two ranks measure just before over the same links: where more ranks than
cores run, they are of a machine with a core for each, and only the order can be compared.

Needs root and iproute2. Run: python bench/hosts/batch_steps.py --help
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import evenspan
import torch
import torch.distributed as dist
import torch.nn.functional as F
from network import HostsError, Network, hosts, require_root, run_ranks
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
BINARY = ROOT / "build" / "bin" / "evenspan"
LAYERS, HEADS, KV_HEADS, HEAD_DIM, INTERMEDIATE, VOCABULARY = 2, 4, 4, 64, 512, 1024
HIDDEN = HEADS * HEAD_DIM
MODEL = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": LAYERS,
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "vocab_size": VOCABULARY,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "max_position_embeddings": 1 << 20,
    "torch_dtype": "float32",
}
LIMIT_SECONDS = 3000
LONGEST = 8192  # tokens; longer documents are cut there
STEP_TOKENS = 32768
MICRO_BATCH_TOKENS = 12288  # that fit on all ranks together
ROWS = {  # of the table: planner, and the strategy that places the documents; None: the planner does
    "auto, strategy auto": ("auto", "auto"),
    "auto, strategy mixed": ("auto", "mixed"),
    "flexsp": ("flexsp", None),
    "homogeneous": ("homogeneous", None),
    "static": ("static", None),
}


class Layer(nn.Module):
    """A decoder layer without rotation, which would cost every row the same."""

    def __init__(self) -> None:
        """Draw the weights."""
        super().__init__()
        self.qkv = nn.Linear(HIDDEN, (HEADS + 2 * KV_HEADS) * HEAD_DIM, bias=False)
        self.out = nn.Linear(HIDDEN, HIDDEN, bias=False)
        self.gate_up = nn.Linear(HIDDEN, 2 * INTERMEDIATE, bias=False)
        self.down = nn.Linear(INTERMEDIATE, HIDDEN, bias=False)

    def forward(self, x: torch.Tensor, plan: evenspan.Plan) -> torch.Tensor:
        """Return the next hidden states of this rank's rows, [tokens, hidden]."""
        normed = F.rms_norm(x, (HIDDEN,))
        heads = self.qkv(normed).view(len(x), -1, HEAD_DIM)
        q, k, v = (part.contiguous() for part in heads.split([HEADS, KV_HEADS, KV_HEADS], dim=1))
        x = x + self.out(evenspan.attention(q, k, v, plan).reshape(len(x), HIDDEN))
        gate, up = self.gate_up(F.rms_norm(x, (HIDDEN,))).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class Model(nn.Module):
    """A small decoder with its loss."""

    def __init__(self) -> None:
        """Draw the weights."""
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, HIDDEN)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.head = nn.Linear(HIDDEN, VOCABULARY, bias=False)

    def forward(self, tokens: torch.Tensor, plan: evenspan.Plan) -> torch.Tensor:
        """Return the sum of the losses of this rank's rows, of labels that are the tokens themselves."""
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x, plan)
        return F.cross_entropy(self.head(x), tokens, reduction="sum")


def plans_of(step: dict, planned: dict, strategy: str | None, profile: str) -> list[evenspan.Plan]:
    """Make the plans of a step's micro-batches."""
    shape = {"heads": HEADS, "kv_heads": KV_HEADS, "head_dim": HEAD_DIM, "dtype": "f32"}
    weighed = {"profile": profile, "model": (LAYERS, HIDDEN, INTERMEDIATE, VOCABULARY), "ranks_per_node": 1}
    plans = []
    for micro_batch in planned["micro_batches"]:
        groups: dict[int, list[int]] = {}
        for document, rank, _ in micro_batch["shares"]:
            groups.setdefault(document, []).append(rank)
        lengths = [step["lengths"][document] for document in groups]
        placed = {"strategy": strategy} if strategy else {"groups": list(groups.values())}
        plans.append(evenspan.plan(lengths, dist.get_world_size(), **shape, **weighed, **placed))
    return plans


class Step:
    """A step as a row of the tables has it, on this rank."""

    def __init__(self, plans: list[evenspan.Plan]) -> None:
        """Draw this rank's tokens and bind the plans."""
        self.plans = plans
        self.tokens = [torch.randint(VOCABULARY, (plan.tokens[dist.get_rank()],)) for plan in plans]
        self.times: list[float] = []
        for plan in plans:
            evenspan.bind(plan)

    def run(self, model: Model) -> None:
        """Run forward and backward of all micro-batches and note the slowest rank's time."""
        dist.barrier()
        begin = time.perf_counter()
        for plan, tokens in zip(self.plans, self.tokens, strict=True):
            model(tokens, plan).backward()
        slowest = torch.tensor(time.perf_counter() - begin, dtype=torch.float64)
        dist.all_reduce(slowest, dist.ReduceOp.MAX)
        self.times.append(float(slowest))
        model.zero_grad()


def measure(folder: Path, repetitions: int) -> None:
    """Run all steps of all rows by turns, on every rank, and write the table."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[dist.get_rank() % len(cores)]})
    report = json.loads((folder / "plans.json").read_text())
    model = Model()
    rows: dict[str, list[Step]] = {name: [] for name in ROWS}
    modelled = dict.fromkeys(ROWS, 0.0)
    for step in report["steps"]:
        planned = {plan["planner"]: plan for plan in step["plans"]}
        for name, (planner, strategy) in ROWS.items():
            rows[name].append(Step(plans_of(step, planned[planner], strategy, str(folder / "profile.json"))))
            modelled[name] += planned[planner][f"{strategy or 'placed'}_seconds"]
    for _ in range(1 + repetitions):
        for at in range(len(report["steps"])):
            for steps in rows.values():
                steps[at].run(model)
    if dist.get_rank() > 0:
        return
    table = [
        "| row | micro-batches | sent MB a layer | predicted s | measured s | predicted / first | measured / first |"
    ]
    table.append("|---" * 7 + "|")
    measured = {name: sum(statistics.median(step.times[1:]) for step in steps) for name, steps in rows.items()}
    first = next(iter(ROWS))
    for name, steps in rows.items():
        num_batches = sum(len(step.plans) for step in steps) / len(steps)
        sent = sum(sum(plan.sent_bytes) for step in steps for plan in step.plans) / len(steps) / 1e6
        table.append(
            f"| {name} | {num_batches:.1f} | {sent:.1f} | {modelled[name] / len(steps):.3f} "
            f"| {measured[name] / len(steps):.3f} | {modelled[name] / modelled[first]:.3f} "
            f"| {measured[name] / measured[first]:.3f} |"
        )
    (folder / "table.md").write_text("\n".join(table) + "\n")


def prepare(folder: Path, given: argparse.Namespace) -> None:
    """Measure the machine, draw documents and write what the planners make of them."""
    (folder / "config.json").write_text(json.dumps(MODEL))
    lengths = [min(LONGEST, int(x)) for x in (ROOT / f"bench/data/{given.lengths}_20000.txt").read_text().split()]
    (folder / "lengths.txt").write_text("".join(f"{length}\n" for length in lengths))
    shape = ["--heads", HEADS, "--kv-heads", KV_HEADS, "--head-dim", HEAD_DIM, "--dtype", "f32"]
    words = ["calibrate", *shape, "--longest", LONGEST, "--seconds", 45, "--out", folder / "profile.json"]
    with hosts(Network(f"evenspan-{os.getpid()}", 2, given.megabits)) as network:
        run_ranks(network, 1, lambda rank: [sys.executable, "-m", "evenspan", *words], folder, LIMIT_SECONDS)
    machine = ["--ranks", given.ranks, "--ranks-per-node", 1, "--profile", folder / "profile.json"]
    step = ["--lengths", folder / "lengths.txt", "--model", folder / "config.json", "--dtype", "f32", "--quiet"]
    step += ["--global-batch-tokens", STEP_TOKENS]
    roomy = planned([*machine, *step, "--memory-bytes", "64GiB", "--num-steps", 1, "--planner", "auto"])
    memory = math.ceil(roomy["state_bytes"] + MICRO_BATCH_TOKENS / given.ranks * roomy["token_bytes"])
    planners = ",".join(dict.fromkeys(planner for planner, _ in ROWS.values()))
    step += ["--memory-bytes", memory, "--num-steps", given.num_steps, "--solver-seconds", given.solver_seconds]
    report = planned([*machine, *step, "--planner", planners, "--simulate"])
    (folder / "plans.json").write_text(json.dumps(report))


def planned(words: list) -> dict:
    """Return what `evenspan batch` writes as JSON."""
    words = [BINARY, "batch", *words, "--json", "-"]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    if done.returncode != 0:
        raise HostsError(done.stderr.strip())
    return json.loads(done.stdout)


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=2, help="of one thread, each on a host of its own")
    parser.add_argument("--megabits", type=int, default=1000, help="rate of the links in Mbit/s")
    parser.add_argument("--lengths", choices=("wikipedia", "prolong"), default="wikipedia", help="of the documents")
    parser.add_argument("--num-steps", type=int, default=3)
    parser.add_argument("--repetitions", type=int, default=5, help="of each step and row, in turn")
    parser.add_argument("--solver-seconds", type=float, default=5, help="of the program of each micro-batch")
    return parser.parse_args()


def main() -> int:
    """Prepare, and start the ranks."""
    given = arguments()
    # Freed memory keeps its pages, as under evenspan train.
    os.environ |= {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
    try:
        require_root()
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            prepare(folder, given)
            words = [sys.executable, __file__, folder, given.repetitions]
            with hosts(Network(f"evenspan-{os.getpid()}", given.ranks, given.megabits)) as network:
                run_ranks(network, 1, lambda rank: words, folder, LIMIT_SECONDS)
            print((folder / "table.md").read_text(), end="")
    except HostsError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
        measure(Path(sys.argv[1]), int(sys.argv[2]))
        dist.destroy_process_group()
    else:
        sys.exit(main())
