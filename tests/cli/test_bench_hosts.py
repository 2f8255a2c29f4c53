"""What of `make bench-hosts` needs no root: the arithmetic of bytes, the commands, the removal, what it refuses."""

import json
import os
import re
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from program import ROOT, Run

sys.path.insert(0, str(ROOT / "bench" / "hosts"))
import accounting
import bench_hosts
import network
import prediction

STRATEGIES = ["ring", "zigzag", "all_gather", "ulysses", "usp", "sequence_aware", "hierarchical", "mixed"]


def test_bytes_on_the_wire() -> None:
    assert accounting.data_bytes(0) == 0
    assert accounting.data_bytes(1) == 1 + 66
    assert accounting.data_bytes(1448) == 1514  # a full Ethernet frame
    assert accounting.data_bytes(1449) == 1449 + 2 * 66
    assert [accounting.acknowledgement_bytes(n) for n in (0, 1, 2896, 2897)] == [0, 66, 66, 132]
    payload = 1448 * 1000
    both_ways = accounting.data_bytes(payload) + accounting.acknowledgement_bytes(payload)
    assert accounting.goodput(8e6) * both_ways / payload == pytest.approx(1e6)


def test_bytes_of_hosts() -> None:
    sent = [[0, 9, 1, 2], [9, 0, 4, 8], [3, 0, 0, 9], [0, 0, 9, 0]]
    crossing = accounting.between_hosts(sent, 2)
    assert crossing == [[0, 15], [3, 0]]
    assert accounting.expected_bytes(crossing) == [15 + 66 + 66, 3 + 66 + 66]
    assert accounting.between_hosts(sent, 4) == [[0]]


def written(evenspan: Run, command: str, *words: object) -> None:
    """Runs a command for three documents on two hosts."""
    shape = ["--heads", 4, "--kv-heads", 2, "--head-dim", 128, "--dtype", "bf16"]
    machine = ["--ranks", 4, "--ranks-per-node", 2]
    done = evenspan(command, "--lengths", "-", *machine, *shape, *words, stdin="3000\n700\n90\n")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_forward_bytes_of_a_plan_in_text_form(evenspan: Run, tmp_path: Path, strategy: str) -> None:
    written(evenspan, "plan", "--strategy", strategy, "--text", "plan.txt", "--json", "plan.json")
    text = (tmp_path / "plan.txt").read_text()
    forward = re.sub(r"^phase backward.*?(?=^rank |\Z)", "", text, flags=re.MULTILINE | re.DOTALL)
    sent = [sum(row) for row in accounting.matrix(forward)]
    assert sent == json.loads((tmp_path / "plan.json").read_text())["sent_bytes"]
    assert sum(sent) > 0


@pytest.mark.parametrize("strategy", bench_hosts.UNIFORM)
def test_all_bytes_of_a_plan_are_those_of_the_simulator(evenspan: Run, tmp_path: Path, strategy: str) -> None:
    written(evenspan, "plan", "--strategy", strategy, "--text", "plan.txt")
    written(evenspan, "simulate", "--strategy", strategy, "--json", "step.json")
    sent = accounting.matrix((tmp_path / "plan.txt").read_text())
    across = sum(map(sum, accounting.between_hosts(sent, 2)))
    step = json.loads((tmp_path / "step.json").read_text())["strategies"][0]
    simulated = [step[way]["sent_bytes_by_level"] for way in ("forward", "backward")]
    assert [sum(level) for level in zip(*simulated, strict=True)] == [sum(map(sum, sent)) - across, across]


def test_a_text_that_is_no_plan() -> None:
    with pytest.raises(ValueError, match="has its shape"):
        accounting.matrix("hello")


def test_counters(tmp_path: Path) -> None:
    statistics = tmp_path / "eth0" / "statistics"
    statistics.mkdir(parents=True)
    (statistics / "tx_bytes").write_text("123456\n")
    assert accounting.counted_bytes("eth0", tmp_path) == 123456


def test_commands_stay_in_the_namespaces_that_they_made() -> None:
    net = network.Network("test-1", 3, 200)
    made: set[str] = set()
    for command in net.creation():
        words = command.split()
        if words[:3] == ["ip", "netns", "add"]:
            made.add(words[3])
        else:
            assert words[1] == "-n" and words[2] in made, command
    assert made == set(net.namespaces()) == {command.split()[-1] for command in net.removal()}
    shaped = [command for command in net.creation() if " tbf " in command]
    assert len(shaped) == 2 * 3  # both ends of each host's link
    assert all("rate 200mbit" in command for command in shaped)
    assert len({net.address(i) for i in range(3)}) == 3
    assert net.inside(1) == ["ip", "netns", "exec", "test-1-1"]


@pytest.mark.parametrize("how", ["fails", "SIGINT", "SIGTERM", "ends"])
def test_the_hosts_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    log = tmp_path / "log"
    for program in ("ip", "tc"):
        refuses = 'case "$*" in *tbf*) echo no tbf >&2; exit 2;; esac' if how == "fails" else ""
        (tmp_path / program).write_text(f'#!/bin/sh\necho "{program} $*" >>{log}\n{refuses}\n')
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    net = network.Network("test-2", 2, 100)
    if how == "ends":
        with network.hosts(net):
            pass
    else:
        expected = network.HostsError if how == "fails" else KeyboardInterrupt
        with pytest.raises(expected) as caught, network.hosts(net):
            os.kill(os.getpid(), signal.Signals[how])
        assert how != "fails" or "ended with 2: no tbf" in str(caught.value)
    lines = log.read_text().splitlines()
    assert lines[-len(net.removal()) :] == net.removal()
    assert how == "fails" or lines == net.creation() + net.removal()


def test_without_root_it_says_so() -> None:
    """Started as root, it gives its rights up first, once it has read its files."""
    program = (
        f"import os, sys; sys.path.insert(0, {str(ROOT / 'bench' / 'hosts')!r}); sys.argv = ['bench_hosts.py']\n"
        "import bench_hosts\n"
        "if os.geteuid() == 0: os.seteuid(65534)\n"
        "sys.exit(bench_hosts.main())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("[bench-hosts] network namespaces need root, this is user ")
    assert "run `sudo make bench-hosts`" in done.stderr
    assert done.stdout == ""


def test_without_iproute2_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(network.HostsError, match="the program ip is missing; install iproute2"):
        network.require_root()


def test_the_batch_is_the_same_each_time() -> None:
    batch = bench_hosts.draw(16384, 4096, 7)
    assert batch == bench_hosts.draw(16384, 4096, 7) != bench_hosts.draw(16384, 4096, 8)
    assert sum(batch) == 16384
    assert 0 < min(batch) <= max(batch) <= 4096


def test_the_prediction_takes_a_measured_machine(
    evenspan: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = {"latency_seconds": 1e-4, "bytes_per_second": 1e9, "processor_seconds_per_byte": 1e-9}
    link["processor_seconds_per_message"] = 2e-5
    machine = {
        "forward": {"seconds": [[1e-5, 5e-5], [4e-5, 2e-4]], "square_seconds": [8e-6, 1.3e-4]},
        "backward": {"seconds": [[3e-5, 2.9e-5], [9e-5, 6e-4]], "square_seconds": [2e-5, 4e-4]},  # 2.9e-5 is noise
        "copied_bytes_per_second": 4e9,
        "inside": link,
        "between": link,
    }
    shape = {"heads": 4, "kv_heads": 2, "head_dim": 64}
    job = {
        "lengths": [900, 400, 60],
        "shape": shape,
        "ranks_per_host": 2,
        "points": [32, 128],
        "megabits_per_second": 100,
    }
    for strategy in STRATEGIES:
        seconds = []
        for num_cores in (1, 2, 8, 64, 1024):
            monkeypatch.setattr(os, "cpu_count", lambda n=num_cores: n)
            found = prediction.predict((strategy, 0), job, [machine] * 8, tmp_path)
            seconds.append(found["seconds"])
            # A link is shared by the ranks of its host, and nothing is faster than it.
            assert found["seconds"] >= found["payload"] / 4 / accounting.goodput(100e6)
        if strategy not in bench_hosts.UNIFORM:
            continue  # plans otherwise when computing is slower
        assert seconds == sorted(seconds, reverse=True)
        assert seconds[0] > seconds[-2] == seconds[-1] > 0  # transfers need no core of their own then


def test_pairs_in_the_wrong_order() -> None:
    def row(name: str, predicted: float, *seconds: float) -> dict:
        return {
            "strategy": name,
            "predicted": predicted,
            "median": statistics.median(seconds),
            "seconds": list(seconds),
        }

    a, b, c = row("a", 1, 2.9, 3, 3.1), row("b", 2, 1.9, 2, 2.2), row("c", 3, 4, 4, 4)
    assert bench_hosts.inversions([a, b, c]) == bench_hosts.inversions([c, a, b]) == ["a/b"]
    assert bench_hosts.inversions([b, c]) == []
    assert bench_hosts.inversions([row("a", 1, 2.05, 2.05, 2.3), b]) == []  # as good as equal
    assert bench_hosts.inversions([row("a", 1.95, 3, 3, 3), b]) == []  # predicted as equal
    assert bench_hosts.inversions([row("a", 1, 3, 3, 2.1), b]) == []  # not always slower


def test_a_table_never_falls() -> None:
    assert prediction.rising([[2.0, 1.0], [3.0, 2.5]]) == [[2.0, 2.0], [3.0, 3.0]]
