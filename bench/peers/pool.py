"""Ranks as processes that outlive what they run: a system that raises or hangs costs the processes, not the run."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import tempfile
import time
from pathlib import Path
from typing import Any

import worker

GRACE_SECONDS = 5.0  # for the other ranks to answer, when one has failed


class RankError(RuntimeError):
    """A rank raised, ended or did not answer in time."""


class Pool:
    """The ranks, started at the first call and anew after a failure."""

    def __init__(self, ranks: int, backend: str) -> None:
        """Start nothing yet."""
        self.ranks = ranks
        self.starts = 0
        self._backend = backend
        self._folder: tempfile.TemporaryDirectory | None = None
        self._processes: list[Any] = []
        self._pipes: list[multiprocessing.connection.Connection] = []

    def call(self, command: str, *arguments: object, limit_seconds: float = 300.0) -> list[Any]:
        """Run a command of worker.py on all ranks at once and return what each returns.

        Raises:
            RankError: With the first failing rank's exception, or the time limit; no rank is left.
        """
        if not self._processes:
            self._start()
        for pipe in self._pipes:
            pipe.send((command, arguments))
        answers: dict[int, Any] = {}
        failure = ""
        deadline = time.monotonic() + limit_seconds
        while len(answers) < self.ranks and time.monotonic() < deadline:
            waiting = [p for r, p in enumerate(self._pipes) if r not in answers]
            for pipe in multiprocessing.connection.wait(waiting, timeout=max(0.0, deadline - time.monotonic())):
                rank = self._pipes.index(pipe)
                try:
                    good, answers[rank] = pipe.recv()
                except EOFError:
                    good, answers[rank] = False, f"its process ended with {self._exit_code(rank)}"
                if not good and not failure:
                    failure = f"rank {rank}: {answers[rank]}"
                    deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
        if not failure and len(answers) < self.ranks:
            failure = f"{self.ranks - len(answers)} ranks did not answer within {limit_seconds:.0f} s"
        if failure:
            self.stop()
            raise RankError(failure)
        return [answers[rank] for rank in range(self.ranks)]

    def _exit_code(self, rank: int) -> int | None:
        self._processes[rank].join(timeout=GRACE_SECONDS)
        return self._processes[rank].exitcode

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["worker"])
        self._folder = tempfile.TemporaryDirectory()
        self.starts += 1
        for rank in range(self.ranks):
            own, other = context.Pipe()
            arguments = (rank, self.ranks, self._backend, str(Path(self._folder.name) / "store"), other)
            process = context.Process(target=worker.serve, args=arguments, daemon=True)
            process.start()
            other.close()
            self._processes.append(process)
            self._pipes.append(own)

    def stop(self) -> None:
        """End all ranks."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        for pipe in self._pipes:
            pipe.close()
        if self._folder is not None:
            self._folder.cleanup()
        self._processes, self._pipes, self._folder = [], [], None
