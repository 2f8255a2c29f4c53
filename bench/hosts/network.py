"""Hosts made of network namespaces, joined by a bridge whose every port is shaped.

Each host is a namespace with one interface, `eth0`; its peer is a port of a bridge in a namespace of its own. A token
bucket on both ends of the pair shapes what the host sends and what it receives. Nothing outside of these namespaces
changes: they hold all interfaces, and removing them removes everything.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

INTERFACE = "eth0"
MTU = 1500


class HostsError(Exception):
    """What a user can mend: no root, no iproute2, a kernel that refuses. The text says what to do."""


@dataclasses.dataclass(frozen=True)
class Network:
    """Hosts and the rate of their links."""

    name: str  # of the namespaces: NAME-0, NAME-1, ..., NAME-bridge
    num_hosts: int
    megabits_per_second: int  # of each host's link, each way

    @property
    def bridge(self) -> str:
        """The namespace of the bridge."""
        return f"{self.name}-bridge"

    def host(self, index: int) -> str:
        """The namespace of a host."""
        return f"{self.name}-{index}"

    def address(self, index: int) -> str:
        """The IPv4 address of a host."""
        return f"10.77.0.{index + 1}"

    def namespaces(self) -> list[str]:
        """All namespaces of this network."""
        return [self.bridge, *(self.host(i) for i in range(self.num_hosts))]

    def creation(self) -> list[str]:
        """The commands that make the network, in order."""
        commands = [
            f"ip netns add {self.bridge}",
            f"ip -n {self.bridge} link add br0 type bridge",
            f"ip -n {self.bridge} link set br0 up",
        ]
        for i in range(self.num_hosts):
            host, port = self.host(i), f"port{i}"
            commands += [
                f"ip netns add {host}",
                f"ip -n {host} link set lo up",
                f"ip -n {host} link add {INTERFACE} mtu {MTU} type veth peer name {port} mtu {MTU} netns {self.bridge}",
                f"ip -n {host} addr add {self.address(i)}/24 dev {INTERFACE}",
                f"ip -n {self.bridge} link set {port} master br0",
                *self._wire(host, INTERFACE),
                *self._wire(self.bridge, port),
            ]
        return commands

    def _wire(self, namespace: str, interface: str) -> list[str]:
        """One end of a link: packets as they would be on a wire, none dropped, at most the rate."""
        burst = max(16_000, self.megabits_per_second * 125)  # bytes of a millisecond
        return [
            f"ip -n {namespace} link set {interface} gso_max_segs 1 up",
            f"tc -n {namespace} qdisc add dev {interface} root"
            f" tbf rate {self.megabits_per_second}mbit burst {burst} limit 64mb",
        ]

    def removal(self) -> list[str]:
        """The commands that remove the network."""
        return [f"ip netns del {namespace}" for namespace in self.namespaces()]

    def inside(self, index: int) -> list[str]:
        """The words before a command that is to run on a host."""
        return ["ip", "netns", "exec", self.host(index)]


def require_root() -> None:
    """Raise HostsError unless this process may make network namespaces."""
    if os.geteuid() != 0:
        raise HostsError(
            f"[bench-hosts] network namespaces need root, this is user {os.geteuid()}; run `sudo make bench-hosts`"
        )
    for program in ("ip", "tc"):
        if shutil.which(program) is None:
            raise HostsError(f"[bench-hosts] the program {program} is missing; install iproute2")


def run(command: str) -> None:
    """Run one command of a network."""
    done = subprocess.run(command.split(), capture_output=True, text=True, timeout=30)
    if done.returncode != 0:
        raise HostsError(
            f"[bench-hosts] `{command}` must succeed, it ended with {done.returncode}: {done.stderr.strip()}; "
            "the kernel needs network namespaces, veth, bridge and sch_tbf"
        )


@contextmanager
def hosts(network: Network) -> Iterator[Network]:
    """Make the network, and remove it whatever happens, an interrupt or a termination of this process included."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for command in network.creation():
            run(command)
        yield network
    finally:
        for number in before:
            signal.signal(number, signal.SIG_IGN)  # a second interrupt does not stop the removal
        for command in network.removal():
            subprocess.run(command.split(), capture_output=True, timeout=30)
        for number, handler in before.items():
            signal.signal(number, handler)


def run_ranks(
    network: Network, ranks_per_host: int, words_of: Callable[[int], list], folder: Path, limit_seconds: float
) -> None:
    """Run `words_of(rank)` for every rank on its host, with the variables that env:// reads and logs in `folder`.

    No process outlives the call. Raises RuntimeError with the log of a rank that failed or did not end in time.
    """
    num_ranks = network.num_hosts * ranks_per_host
    ranks = []
    try:
        for rank in range(num_ranks):
            environment = {
                **os.environ,
                "RANK": str(rank),
                "WORLD_SIZE": str(num_ranks),
                "LOCAL_RANK": str(rank % ranks_per_host),
                "LOCAL_WORLD_SIZE": str(ranks_per_host),
                "MASTER_ADDR": network.address(0),
                "MASTER_PORT": "29400",
                "GLOO_SOCKET_IFNAME": INTERFACE,
                "OMP_NUM_THREADS": "1",
            }
            words = [*network.inside(rank // ranks_per_host), *map(str, words_of(rank))]
            with (folder / f"{rank}.log").open("w") as log:
                ranks.append(subprocess.Popen(words, env=environment, stdout=log, stderr=log, start_new_session=True))
        deadline = time.monotonic() + limit_seconds
        while any(rank.poll() is None for rank in ranks):
            failed = [i for i, rank in enumerate(ranks) if rank.poll() not in (None, 0)]
            if failed or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        bad = [i for i, rank in enumerate(ranks) if rank.poll() != 0]
        if bad:
            failed = [i for i in bad if ranks[i].poll() is not None]
            why = f"rank {failed[0]} ended with {ranks[failed[0]].poll()}" if failed else "they run"
            log = (folder / f"{(failed or bad)[0]}.log").read_text()
            raise RuntimeError(f"[bench-hosts] ranks end within {limit_seconds:.0f} s, {why}:\n{log[-2000:]}")
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()


if __name__ == "__main__":  # says whether this user may, for scripts/bench_hosts.sh
    try:
        require_root()
    except HostsError as error:
        sys.exit(str(error))
