"""`evenspan batch` with the planner flexsp, whose programs HiGHS solves."""

import json
import shutil
from pathlib import Path

import highsbox
import pytest
from program import BINARY, Run

LENGTHS = "60000\n20000\n9000\n3000\n1000\n700\n"
WORDS = ["--lengths", "-", "--ranks", 16, "--constants", "flexsp-7b", "--planner", "flexsp", "--solver-seconds", 20]


@pytest.mark.parametrize("slots", [[], ["--paper-slots"]])
def test_small_programs_are_solved_to_the_end(evenspan: Run, slots: list) -> None:
    done = evenspan("batch", *WORDS, *slots, "--json", "-", stdin=LENGTHS)
    assert done.returncode == 0, done.stderr
    assert "proven" in done.stderr and "2/2" in done.stderr
    got = json.loads(done.stdout)
    (step,) = got["steps"]
    (plan,) = step["plans"]
    assert plan["programs"] == plan["proven_programs"] == 2
    sizes = {}
    for micro in plan["micro_batches"]:
        for document in {share[0] for share in micro["shares"]}:
            sizes[document] = sum(share[0] == document for share in micro["shares"])
    assert sizes[0] == 16 and set(sizes.values()) <= {1, 2, 4, 8, 16}
    assert step["lower_bound"]["seconds"] <= plan["seconds"] < 1.1 * step["lower_bound"]["seconds"]


def test_a_short_time_is_kept(evenspan: Run) -> None:
    lengths = "".join(f"{200 + 37 * i * i % 9000}\n" for i in range(60))
    words = [*WORDS[:-1], 0.05]
    done = evenspan("batch", *words, "--json", "-", stdin=lengths)
    assert done.returncode == 0, done.stderr
    (plan,) = json.loads(done.stdout)["steps"][0]["plans"]
    assert 0 <= plan["proven_programs"] <= plan["programs"] > 0


def test_ranks_are_a_power_of_two(evenspan: Run) -> None:
    words = ["--lengths", "not-there.txt", "--ranks", 12, *WORDS[4:]]
    done = evenspan("batch", *words)
    assert done.returncode == 2 and "there are 12 ranks; groups of the planner flexsp are powers of two" in done.stderr


def test_where_the_library_is_found(evenspan: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(highsbox.__file__).parent / "highs_dist" / "lib"
    assert evenspan("batch", *WORDS, stdin=LENGTHS).returncode == 0  # that of the interpreter of the build
    assert evenspan("batch", *WORDS, "--highs", folder / "libhighs.so", stdin=LENGTHS).returncode == 0
    # A name without a slash is a file, too: once it was looked for among the system's libraries.
    (tmp_path / "libother.so").symlink_to(folder / "libhighs.so")
    assert evenspan("batch", *WORDS, "--highs", "libother.so", stdin=LENGTHS).returncode == 0
    (tmp_path / "l.txt").write_text("5\n")
    done = evenspan("batch", *WORDS, "--highs", "l.txt", stdin=LENGTHS)
    assert done.returncode == 2 and f"{tmp_path}/l.txt: file too short" in done.stderr
    # A wheel has bin/ beside lib/python3.N/site-packages/, whatever the program was built with.
    (tmp_path / "bin").mkdir()
    binary = Path(shutil.copy(BINARY, tmp_path / "bin"))
    packages = tmp_path / "lib" / "python3.99" / "site-packages" / "highsbox" / "highs_dist"
    packages.mkdir(parents=True)
    (packages / "lib").symlink_to(folder)
    monkeypatch.setenv("LD_DEBUG", "files")
    done = evenspan("batch", *WORDS, stdin=LENGTHS, binary=binary)
    assert done.returncode == 0, done.stderr
    assert f"file={packages}/lib/libhighs.so [0];  dynamically loaded by" in done.stderr
