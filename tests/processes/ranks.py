"""Runs a function on every rank of a real Gloo group: one process a rank, forked from a server that has torch."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

LIMIT_SECONDS = 60.0  # a test that takes longer hangs

Communicator = Any  # torch.classes.evenspan_test.Communicator, see ops.cc
Body = Callable[[Communicator], Any]


@dataclasses.dataclass
class Outcome:
    """What became of a rank: the result of its body or its error's text; neither when it died without a word."""

    result: Any = None
    error: str = ""
    seconds: float = 0.0  # that the body took


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def _main(rank: int, num_ranks: int, port: int, library: str, timeout_ms: int, body: Body, pipe: Any) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    torch.classes.load_library(library)
    dist.init_process_group(
        "gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=num_ranks,
        timeout=timedelta(seconds=LIMIT_SECONDS),
    )
    communicator = torch.classes.evenspan_test.Communicator(dist.group.WORLD.group_name, timeout_ms)
    communicator.synchronize()
    start = time.monotonic()
    outcome = Outcome()
    try:
        outcome.result = body(communicator)
    except RuntimeError as error:
        outcome.error = str(error)
    outcome.seconds = time.monotonic() - start
    pipe.send(outcome)
    pipe.close()
    os._exit(0)  # without a goodbye to the group: what others still need of it must not depend on one


def run_ranks(library: str, num_ranks: int, body: Body, timeout_ms: int = 20_000) -> list[Outcome]:
    """Returns the outcome of `body(communicator)` on every rank; `timeout_ms` is the communicator's."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torch.distributed"])
    port = free_port()
    processes, pipes = [], []
    for rank in range(num_ranks):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_main, args=(rank, num_ranks, port, library, timeout_ms, body, theirs))
        process.start()
        theirs.close()
        processes.append(process)
        pipes.append(ours)
    deadline = time.monotonic() + LIMIT_SECONDS
    outcomes = []
    for process, pipe in zip(processes, pipes, strict=True):
        outcome = Outcome()
        try:
            if pipe.poll(max(0.0, deadline - time.monotonic())):
                outcome = pipe.recv()
        except EOFError:
            pass
        process.join(max(0.1, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()
        outcomes.append(outcome)
    return outcomes
