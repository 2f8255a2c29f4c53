"""Attention forward + backward, predicted and measured: a Markdown table on standard output.

Two Gloo processes of one thread, each on a core of its own, run random long-tailed batches with several strategies, all
of them by turns. Calibration takes its turns too, since the machine's clock drifts and its neighbours come and go: each
plan is simulated with the profile of each round; the mean counts. A time is the slowest rank's, from when all begin
a pass to its end; forward and backward are added, and the slowest tenth of the repetitions is left out of the mean.
Run: python bench/prediction_report.py [BATCHES [REPETITIONS_A_ROUND]]
"""

import math
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import evenspan
import torch
import torch.distributed as dist
from evenspan import _evenspan
from evenspan._groups import communicator_of

ROOT = Path(__file__).resolve().parents[1]
STRATEGIES = ["ring", "zigzag", "all_gather", "ulysses", "sequence_aware"]
SHAPE = {"heads": 4, "kv_heads": 2, "head_dim": 64, "dtype": "f32"}
TOKENS = 6144  # of a batch; documents are cut at a third of it
ROUNDS = 8  # of calibration and repetitions
CALIBRATION_SECONDS = 10  # in each round
TIE = 0.05  # times closer than this, as a part of the smaller one, have no order


def draw(lengths: list[int], generator: random.Random) -> list[int]:
    """Draw document lengths that sum to TOKENS."""
    batch: list[int] = []
    while (left := TOKENS - sum(batch)) > 0:
        batch.append(min(generator.choice(lengths), TOKENS // 3, left))
    return batch


class Stopwatch:
    """Times passes that all ranks begin together."""

    def __init__(self) -> None:
        """Begin at 0."""
        self.seconds = 0.0  # of the passes so far

    def run(self, work: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Do the work on all ranks and add the slowest one's time."""
        dist.barrier()
        begin = time.perf_counter()
        result = work()
        slowest = torch.tensor(time.perf_counter() - begin, dtype=torch.float64)
        dist.all_reduce(slowest, dist.ReduceOp.MAX)
        self.seconds += float(slowest)
        return result


class Case:
    """A batch with a strategy: its plan, this rank's rows, its times, and what the simulator says."""

    def __init__(self, batch: list[int], strategy: str) -> None:
        """Plan, and draw this rank's rows."""
        self.plan = evenspan.plan(lengths=batch, ranks=dist.get_world_size(), strategy=strategy, **SHAPE)
        rows = self.plan.tokens[dist.get_rank()]
        heads = [SHAPE["heads"], SHAPE["kv_heads"], SHAPE["kv_heads"]]
        self.inputs = [torch.randn(rows, h, SHAPE["head_dim"], requires_grad=True) for h in heads]
        self.gradient = torch.randn(rows, SHAPE["heads"], SHAPE["head_dim"])
        self.times: list[float] = []
        self.modelled = 0.0

    def run(self) -> None:
        """Run forward and backward once."""
        watch = Stopwatch()
        output = watch.run(lambda: evenspan.attention(*self.inputs, self.plan))
        watch.run(lambda: output.backward(self.gradient))
        for tensor in self.inputs:
            tensor.grad = None
        self.times.append(watch.seconds)

    @property
    def measured(self) -> float:
        """The mean of the repetitions without the slowest tenth, as calibration has it."""
        return statistics.mean(sorted(self.times)[: math.ceil(0.9 * len(self.times))])


def order_errors(cases: list[Case]) -> int:
    """Count the pairs of strategies whose measured times differ by more than TIE and whose modelled order is wrong."""
    wrong = 0
    for i, a in enumerate(cases):
        for b in cases[:i]:
            fast, slow = (a, b) if a.measured < b.measured else (b, a)
            wrong += slow.measured > (1 + TIE) * fast.measured and slow.modelled < fast.modelled
    return wrong


def report(cases: dict[int, list[Case]]) -> None:
    """Print the table and what the targets ask for."""
    print("| batch | documents | " + " | ".join(STRATEGIES) + " | worst | wrong order |")
    print("|---|---|" + "---|" * (len(STRATEGIES) + 2))
    within, right, errors = 0, 0, []
    for number, row in cases.items():
        error = [case.modelled / case.measured - 1 for case in row]
        errors += [abs(e) for e in error]
        worst = max(error, key=abs)
        wrong = order_errors(row)
        within += abs(worst) <= 0.1
        right += wrong == 0
        times = [f"{c.modelled * 1e3:.1f} / {c.measured * 1e3:.1f}" for c in row]
        cells = [str(number), str(len(row[0].plan.lengths)), *times, f"{100 * worst:+.1f} %", str(wrong)]
        print("| " + " | ".join(cells) + " |")
    pairs = len(STRATEGIES) * (len(STRATEGIES) - 1) // 2
    print(
        f"\n{within} of {len(cases)} batches have all strategies within 10 %; "
        f"{sum(e <= 0.1 for e in errors)} of {len(errors)} times are, the median error is "
        f"{100 * statistics.median(errors):.1f} %. {right} of {len(cases)} batches have all {pairs} pairs of "
        "strategies in the right order."
    )


def calibrate() -> _evenspan.Calibration:
    """Measure what pieces of programs cost."""
    words = [f"--{key.replace('_', '-')}={value}" for key, value in SHAPE.items()]
    words += ["--out=-", f"--longest={TOKENS // 3}", f"--seconds={CALIBRATION_SECONDS}"]
    return _evenspan.CalibrateCommand(words).calibrate(communicator_of(None))


def main(num_batches: int, repetitions: int) -> None:
    """Calibrate, predict and measure, on every rank."""
    torch.set_num_threads(1)
    torch.manual_seed(dist.get_rank())
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[dist.get_rank() % len(cores)]})
    lengths = list(map(int, (ROOT / "bench/data/wikipedia_20000.txt").read_text().split()))
    generator = random.Random(7)
    batches = [draw(lengths, generator) for _ in range(num_batches)]
    cases = {n: [Case(batch, name) for name in STRATEGIES] for n, batch in enumerate(batches)}
    calibrations = []
    for _ in range(ROUNDS):
        calibrations.append(calibrate())
        for _ in range(repetitions):
            for row in cases.values():
                for case in row:
                    case.run()
    for row in cases.values():
        for case in row:
            case.modelled = statistics.mean(sum(calibration.predict(case.plan)) for calibration in calibrations)
    if dist.get_rank() == 0:
        report(cases)


if __name__ == "__main__":
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 10, int(sys.argv[2]) if len(sys.argv) > 2 else 4)
        dist.destroy_process_group()
    else:
        # As evenspan train does: freed memory keeps its pages.
        kept = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
        environment = {**os.environ, **kept, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *sys.argv]
        os.execve(sys.executable, [sys.executable, *words], environment)
