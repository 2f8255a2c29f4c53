"""The c10d communicator over real Gloo processes: what it moves, and what every rank says when one fails."""

import os
import threading
import time
from functools import partial

import pytest
import torch
import torch.distributed as dist
from ranks import Communicator, Outcome, run_ranks

PROMPT_SECONDS = 10.0  # well below the time-out of 20 s, and far above what a loaded machine needs


def results(outcomes: list[Outcome]) -> list:
    assert [outcome.error for outcome in outcomes] == [""] * len(outcomes)
    return [outcome.result for outcome in outcomes]


def full(value: float, count: int = 4) -> torch.Tensor:
    return torch.full((count,), float(value))


def receive(communicator: Communicator, source: int, operation: str, count: int = 4) -> torch.Tensor:
    tensor = full(-1, count)
    communicator.exchange([], [], [source], [tensor], operation)
    return tensor


def send(communicator: Communicator, destination: int, tensor: torch.Tensor, operation: str) -> None:
    communicator.exchange([destination], [tensor], [], [], operation)


# What it moves.


def all_pairs(communicator: Communicator) -> bool:
    """Two messages and an empty one to every other rank, in another order of peers on every rank, many times."""
    rank, size = communicator.rank(), communicator.size()
    others = [(rank * 3 + step) % size for step in range(size) if (rank * 3 + step) % size != rank]
    counts = [5, 0, 100_000]
    good = True
    for step in range(5):
        to = [peer for peer in others for _ in counts]
        sent = [full(100 * rank + 10 * peer + i + step, n) for peer in others for i, n in enumerate(counts)]
        sources = [peer for peer in reversed(others) for _ in counts]
        received = [full(-1, n) for _ in others for n in counts]
        communicator.exchange(to, sent, sources, received, f"step {step}")
        expected = [full(100 * p + 10 * rank + i + step, n) for p in reversed(others) for i, n in enumerate(counts)]
        good = good and all(torch.equal(a, b) for a, b in zip(received, expected, strict=True))
    return good


def test_all_pairs_in_any_order(library: str) -> None:
    assert results(run_ranks(library, 3, all_pairs)) == [True] * 3


def collectives(communicator: Communicator) -> list[str]:
    """The names of the collectives whose results differ in a bit from those of the threads backend."""
    rank, size = communicator.rank(), communicator.size()
    wrong = []
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64):
        generator = torch.Generator().manual_seed(5)
        inputs = [(torch.randn(7, 13, generator=generator) * 10**i).to(dtype) for i in range(size)] * size
        inputs = [tensor * (1 + i // size) for i, tensor in enumerate(inputs)]
        for name in ("all_gather", "reduce_scatter", "all_reduce", "all_to_all", "broadcast"):
            theirs = communicator.collective(name, inputs[rank * size : (rank + 1) * size])
            ours = torch.ops.evenspan_test.threads_collective(name, inputs, size, rank)
            if not all(torch.equal(a, b) for a, b in zip(theirs, ours, strict=True)):
                wrong.append(f"{name} of {dtype}")
    return wrong


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_collectives_have_the_bits_of_threads(library: str, num_ranks: int) -> None:
    assert results(run_ranks(library, num_ranks, collectives)) == [[]] * num_ranks


def in_subgroup(communicator: Communicator) -> list[float]:
    group = dist.new_group([0, 2])
    if communicator.rank() == 1:
        return []
    part = torch.classes.evenspan_test.Communicator(group.group_name, 20_000)
    gathered = part.collective("all_gather", [full(communicator.rank(), 1)])
    return [part.rank(), part.size(), *torch.cat(gathered).tolist()]


def test_a_subgroup_has_ranks_of_its_own(library: str) -> None:
    assert results(run_ranks(library, 3, in_subgroup)) == [[0, 2, 0, 2], [], [1, 2, 0, 2]]


def half(communicator: Communicator) -> Communicator:
    first = communicator.rank() // 2 * 2
    return communicator.split([first, first + 1])


def in_halves(communicator: Communicator) -> list[float]:
    """The halves of 4 ranks add up different numbers of times, between sums of all."""
    group, rank = half(communicator), communicator.rank()
    sums = [group.rank(), group.size()]
    for _ in range(3):
        for _ in range(20 if rank < 2 else 3):
            group_sum = group.collective("all_reduce", [full(rank, 1)])
        sums += torch.cat(group_sum + communicator.collective("all_reduce", [full(rank, 1)])).tolist()
    return sums


def test_groups_of_one_backend_call_as_often_as_they_like(library: str) -> None:
    expected = [[rank % 2, 2] + [1.0 if rank < 2 else 5.0, 6.0] * 3 for rank in range(4)]
    assert results(run_ranks(library, 4, in_halves)) == expected


def fail_in_a_half(communicator: Communicator, dies: bool) -> None:
    """Rank 2 fails while rank 3 waits in its group, and the others for all ranks."""
    group = half(communicator)
    if communicator.rank() == 2:
        time.sleep(0.4)
        if dies:
            os._exit(3)
        group.abort("layer", "out of memory")
    if communicator.rank() >= 2:
        group.collective("all_reduce", [full(1)])
    communicator.synchronize()


def test_a_failure_in_a_group_is_that_of_all(library: str) -> None:
    for outcome in run_ranks(library, 4, partial(fail_in_a_half, dies=False)):
        assert 'rank 2 failed in "layer": out of memory' in outcome.error
        assert outcome.seconds < PROMPT_SECONDS
    outcomes = run_ranks(library, 4, partial(fail_in_a_half, dies=True))
    for rank in (0, 1, 3):
        assert "the transfer with rank 2 broke" in outcomes[rank].error
        assert outcomes[rank].seconds < PROMPT_SECONDS


def leave_when_done(communicator: Communicator) -> list[float]:
    """Rank 0, which hosts the store, ends first, then rank 1 right after its last message; both are waited for."""
    rank = communicator.rank()
    if rank == 0:
        time.sleep(0.3)
        send(communicator, 1, full(1), "first")
        return []
    if rank == 1:
        tensor = receive(communicator, 0, "first")
        time.sleep(0.5)
        send(communicator, 2, tensor + 1, "last")
        return tensor.tolist()
    return receive(communicator, 1, "last").tolist()


def test_ranks_that_have_done_their_part_may_leave(library: str) -> None:
    assert results(run_ranks(library, 3, leave_when_done)) == [[], [1.0] * 4, [2.0] * 4]


# What every rank says when one fails.


def die_in_a_step(communicator: Communicator, victim: int) -> None:
    """Every rank waits for the next one."""
    if communicator.rank() == victim:
        time.sleep(0.4)
        os._exit(3)
    receive(communicator, (communicator.rank() + 1) % 3, "exchange 7")


def test_a_rank_that_dies_is_named_by_all(library: str) -> None:
    outcomes = run_ranks(library, 3, partial(die_in_a_step, victim=1))
    for rank in (0, 2):  # 0 waits for 1, 2 for 0; 0 hosts the store and must not take the news along
        assert '[exchange 7] rank 0 failed in "exchange 7": the transfer with rank 1 broke' in outcomes[rank].error
        assert outcomes[rank].seconds < PROMPT_SECONDS


def test_the_death_of_rank_0_takes_the_store_along(library: str) -> None:
    outcomes = run_ranks(library, 3, partial(die_in_a_step, victim=0))
    for rank, peer in ((1, 2), (2, 0)):
        assert f'rank {rank} failed in "exchange 7": the transfer with rank {peer} broke' in outcomes[rank].error
        assert "the group's store is gone, so its host, usually rank 0, probably died first" in outcomes[rank].error
        assert outcomes[rank].seconds < PROMPT_SECONDS


def die_in_a_transfer(communicator: Communicator) -> None:
    rank = communicator.rank()
    count = 40 << 20
    if rank == 1:
        tensor = torch.zeros(count)
        receive(communicator, 0, "ready")
        threading.Timer(0.02, os._exit, [3]).start()
        send(communicator, 0, tensor, "big")
        time.sleep(1)
    elif rank == 0:
        tensor = torch.zeros(count)
        send(communicator, 1, full(0), "ready")
        communicator.exchange([], [], [1], [tensor], "big")
        receive(communicator, 1, "after")
    else:
        receive(communicator, 0, "chain")


def test_a_rank_that_dies_in_the_middle_of_a_transfer_is_named_by_all(library: str) -> None:
    outcomes = run_ranks(library, 3, die_in_a_transfer)
    for rank in (0, 2):
        assert ": the transfer with rank 1 broke" in outcomes[rank].error
        assert outcomes[rank].seconds < PROMPT_SECONDS


def stall(communicator: Communicator) -> None:
    rank = communicator.rank()
    if rank == 2:
        time.sleep(1)
    else:
        receive(communicator, rank + 1, f"exchange of rank {rank}")


def test_a_stall_is_named_with_who_waits_for_whom(library: str) -> None:
    outcomes = run_ranks(library, 3, stall, timeout_ms=500)
    for rank in (0, 1):
        assert f"[exchange of rank {rank}] rank " in outcomes[rank].error
        assert " did not come within 500 ms; " in outcomes[rank].error
        assert "; rank 2 waits for nobody" in outcomes[rank].error
        assert 0.5 <= outcomes[rank].seconds < PROMPT_SECONDS


def abort(communicator: Communicator) -> None:
    rank = communicator.rank()
    if rank == 2:
        time.sleep(0.3)
        communicator.abort("attention backward", "out of memory")
    receive(communicator, 1 - rank if rank < 2 else 0, "exchange 3")


def test_an_abort_reaches_all(library: str) -> None:
    for rank, outcome in enumerate(run_ranks(library, 3, abort)):
        error, _, remedy = outcome.error.partition("; ")
        assert error == '[exchange 3] rank 2 failed in "attention backward": out of memory'
        assert ("start them anew" in remedy) == (rank == 2)
        assert outcome.seconds < PROMPT_SECONDS


def disagree(communicator: Communicator) -> None:
    rank = communicator.rank()
    if rank == 0:
        send(communicator, 1, full(0, 4), "push")
    elif rank == 1:
        receive(communicator, 0, "pull", count=3)


def test_different_sizes_name_both_ends(library: str) -> None:
    for outcome in run_ranks(library, 2, disagree):
        assert 'rank 0 sends 16 bytes in "push"' in outcome.error
        assert 'rank 1 receives 12 bytes in "pull"' in outcome.error
        assert outcome.seconds < PROMPT_SECONDS
