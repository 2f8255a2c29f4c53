"""Bytes between hosts: what a plan sends, what that is on the wire, and what the interfaces counted.

On the wire each segment of MSS bytes carries an Ethernet header of 14 bytes, an IPv4 header of 20, and a TCP header of
20 with 12 bytes of time stamps; the receiver acknowledges every second segment with these headers alone.
"""

from __future__ import annotations

import re
from pathlib import Path

WAITING = ""  # as a strategy: the barriers around one, and nothing between them

HEADER_BYTES = 14 + 20 + 32
MSS = 1500 - 20 - 32

BLOCK = re.compile(r"(?P<tensor>[a-z_]+)(?P<sums>\.acc)?@\w+\+\d+/\d+ d\d+\[(\d+):(\d+)\) h\[(\d+):(\d+)\)")
WIDTH_1 = {"lse", "delta"}
NUM_BYTES = {"bf16": 2, "f16": 2, "f32": 4, "f64": 8}


def data_bytes(payload: int) -> int:
    """Bytes that carry `payload` over a link: itself and a header for each segment."""
    return payload + -(-payload // MSS) * HEADER_BYTES


def acknowledgement_bytes(payload: int) -> int:
    """Bytes that go the other way: a header for each second segment."""
    return -(-payload // (2 * MSS)) * HEADER_BYTES


def goodput(bits_per_second: float) -> float:
    """Payload bytes a second of a link whose other direction is as busy: data and acknowledgements share it."""
    return bits_per_second / 8 * MSS / (MSS + 1.5 * HEADER_BYTES)


def matrix(plan_text: str) -> list[list[int]]:
    """Bytes from each rank to each other, forward and backward, of a plan in text form."""
    shape = re.search(r"^shape .*head_dim=(\d+) element=(\w+)$", plan_text, re.MULTILINE)
    ranks = re.search(r"^topology ranks=(\d+)$", plan_text, re.MULTILINE)
    if shape is None or ranks is None:
        raise ValueError("[bench-hosts] a plan in text form has its shape and topology, this one has not")
    head_dim, element = int(shape[1]), NUM_BYTES[shape[2]]
    sent = [[0] * int(ranks[1]) for _ in range(int(ranks[1]))]
    rank = 0
    for line in plan_text.splitlines():
        if line.startswith("rank "):
            rank = int(line.split()[1])
        elif line.startswith("  exchange "):
            for message in line.split(" | ")[1:]:
                direction, peer, blocks = message.split(" ", 2)
                if direction == "to":
                    sent[rank][int(peer)] += sum(
                        (int(end) - int(begin))
                        * (int(last) - int(first))
                        * (1 if tensor in WIDTH_1 else head_dim)
                        * (max(4, element) if sums else element)
                        for tensor, sums, begin, end, first, last in BLOCK.findall(blocks)
                    )
    return sent


def between_hosts(sent: list[list[int]], ranks_per_host: int) -> list[list[int]]:
    """Bytes from each host to each other; those that stay on a host count nowhere."""
    num_hosts = len(sent) // ranks_per_host
    crossing = [[0] * num_hosts for _ in range(num_hosts)]
    for sender, row in enumerate(sent):
        for receiver, payload in enumerate(row):
            a, b = sender // ranks_per_host, receiver // ranks_per_host
            if a != b:
                crossing[a][b] += payload
    return crossing


def expected_bytes(crossing: list[list[int]]) -> list[int]:
    """What the interface of each host is to count as sent: its data, and what it acknowledges."""
    return [
        sum(data_bytes(out) for out in row) + sum(acknowledgement_bytes(other[host]) for other in crossing)
        for host, row in enumerate(crossing)
    ]


def counted_bytes(interface: str, root: Path = Path("/sys/class/net")) -> int:
    """What the interface of this namespace has sent so far, headers of all layers included."""
    return int((root / interface / "statistics" / "tx_bytes").read_text())
