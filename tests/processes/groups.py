"""Runs a function on every rank of a Gloo group, one process a rank, for the tests of the Python package.

The processes are forked from a server that has torch, transformers and evenspan: to import them takes seconds.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

LIMIT_SECONDS = 120.0

Body = Callable[[], Any]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def _main(rank: int, num_ranks: int, port: int, body: Body, pipe: Any) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=num_ranks)
    try:
        outcome = (body(), "")
    except Exception as error:
        outcome = (None, f"{type(error).__name__}: {error}")
    pipe.send(outcome)
    pipe.close()
    os._exit(0)


def run_ranks(num_ranks: int, body: Body, limit_seconds: float = LIMIT_SECONDS) -> list[tuple[Any, str]]:
    """Returns (result, error) of `body()` on every rank of a Gloo group."""
    port = free_port()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch.distributed", "transformers", "evenspan.huggingface"])
    ranks = []
    for rank in range(num_ranks):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_main, args=(rank, num_ranks, port, body, theirs))
        process.start()
        theirs.close()
        ranks.append((process, ours))
    outcomes = []
    for process, pipe in ranks:
        outcomes.append(pipe.recv() if pipe.poll(limit_seconds) else (None, "hangs"))
        process.join(10)
        if process.is_alive():
            process.kill()
    return outcomes


def results(outcomes: list[tuple[Any, str]]) -> list[Any]:
    assert [error for _, error in outcomes] == [""] * len(outcomes)
    return [result for result, _ in outcomes]
