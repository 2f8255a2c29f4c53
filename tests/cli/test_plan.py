"""`evenspan plan`: what it prints and writes, and what it says about bad input."""

import gzip
import json
from pathlib import Path

import pytest
from program import ROOT, Run

STRATEGIES = [
    "local",
    "ring",
    "zigzag",
    "striped",
    "all_gather",
    "zigzag_all_gather",
    "ulysses",
    "usp",
    "token_ring",
    "balanced_ring",
    "mesh",
    "disaggregated",
    "sequence_aware",
    "hierarchical",
    "mixed",
]
PROLONG = ROOT / "tests" / "data" / "prolong_100.txt"


def plan(evenspan: Run, tmp_path: Path, lengths: list[int], ranks: int, *options: object) -> dict:
    """The JSON of a plan that was proven and written."""
    text = "".join(f"{n}\n" for n in lengths)
    words = ["--lengths", "-", "--ranks", ranks, "--json", "plan.json", "--verify", *options]
    done = evenspan("plan", *words, stdin=text)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" or done.stderr.startswith("evenspan plan: note: no modelled seconds: ")
    assert "the plan: proven" in done.stdout
    return json.loads((tmp_path / "plan.json").read_text())


def refused(evenspan: Run, *words: object, stdin: str | bytes = "5\n") -> str:
    """What the program says when it refuses its arguments or input."""
    done = evenspan("plan", *words, stdin=stdin)
    assert done.returncode == 2, done.stdout
    assert done.stderr.startswith("evenspan plan: ["), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def allowed(mask: str, q: int, k: int) -> bool:
    """Whether the mask lets query position q see key position k."""
    if mask.startswith("window:"):
        return 0 <= q - k < int(mask.removeprefix("window:"))
    return mask == "full" or k <= q


def in_tile(kind: str, mask: str, q: int, k: int) -> bool:
    """Whether a tile of the kind counts the pair, by the issue's definition of the JSON form."""
    causal, window = q >= k, mask.startswith("window:") and q - k < int(mask.removeprefix("window:"))
    return {"full": True, "causal": causal, "window": window, "band": causal and window}[kind]


@pytest.mark.parametrize("mask", ["causal", "full", "window:5"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_json_is_a_whole_plan(evenspan: Run, tmp_path: Path, strategy: str, mask: str) -> None:
    lengths, ranks, heads = [13, 1, 7, 2, 29], 4, 6
    got = plan(
        evenspan,
        tmp_path,
        lengths,
        ranks,
        "--strategy",
        strategy,
        "--heads",
        heads,
        "--kv-heads",
        2,
        "--head-dim",
        4,
        "--dtype",
        "f32",
        "--mask",
        mask,
        "--ranks-per-node",
        2,
    )
    assert got["documents"] == lengths
    assert (got["ranks"], got["strategy"], got["mask"]) == (ranks, strategy, mask)
    assert (got["heads"], got["kv_heads"], got["head_dim"], got["bytes_per_element"]) == (heads, 2, 4, 4)

    # Every token lives on exactly one rank.
    tokens = [(d, t) for spans in got["placement"] for d, begin, end in spans for t in range(begin, end)]
    assert sorted(tokens) == [(d, t) for d, n in enumerate(lengths) for t in range(n)]
    # Every allowed pair of every head is in exactly one tile.
    pairs = [
        (d, h, q, k)
        for tiles in got["tiles"]
        for d, q0, q1, k0, k1, kind, h0, h1 in tiles
        for q in range(q0, q1)
        for k in range(k0, k1)
        if in_tile(kind, mask, q, k)
        for h in range(h0, h1)
    ]
    expected = [
        (d, h, q, k)
        for d, n in enumerate(lengths)
        for h in range(heads)
        for q in range(n)
        for k in range(n)
        if allowed(mask, q, k)
    ]
    assert sorted(pairs) == expected

    metrics = got["metrics"]
    held = [sum(end - begin for _, begin, end in spans) for spans in got["placement"]]
    assert metrics["tokens_max_over_mean"] == pytest.approx(max(held) * ranks / sum(lengths))
    assert len(got["sent_bytes"]) == ranks
    assert sum(got["sent_bytes"]) == metrics["sent_bytes_total"]
    assert metrics["ring_bytes_total"] == (ranks - 1) * sum(lengths) * 2 * 2 * 4 * 4
    assert metrics["work_max_over_mean"] >= 1
    assert len(got["sent_bytes_by_level"]) == 2
    assert sum(got["sent_bytes_by_level"]) == metrics["sent_bytes_total"]
    assert (metrics["modelled_seconds"], metrics["lower_bound_seconds"]) == (None, None)  # no profile of this shape
    assert metrics["peak_arena_bytes"] >= 0
    assert 0 < metrics["planning_seconds"] < 60


def test_ring_sends_what_a_ring_sends(evenspan: Run, tmp_path: Path) -> None:
    got = plan(evenspan, tmp_path, [64, 128], 4, "--strategy", "ring")
    assert got["metrics"]["sent_bytes_total"] == got["metrics"]["ring_bytes_total"] > 0


def simulated(evenspan: Run, lengths: list[int], *words: object) -> dict:
    text = "".join(f"{n}\n" for n in lengths)
    done = evenspan("simulate", "--lengths", "-", *words, "--json", "-", stdin=text)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("strategy", ["local", "zigzag", "ulysses", "hierarchical", "mixed"])
def test_modelled_seconds_are_those_of_simulate(evenspan: Run, tmp_path: Path, strategy: str) -> None:
    lengths, words = [9000, 3000, 700, 64], ["--ranks-per-node", 4, "--strategy", strategy]
    got = plan(evenspan, tmp_path, lengths, 8, *words, "--profile", "a100-40gb-ib")
    expected = simulated(evenspan, lengths, "--ranks", 8, *words, "--profile", "a100-40gb-ib")
    step = expected["strategies"][0]
    assert got["metrics"]["modelled_seconds"] == step["step_seconds"]
    assert got["metrics"]["lower_bound_seconds"] == expected["lower_bound_seconds"]
    assert got["metrics"]["peak_arena_bytes"] == step["peak_arena_bytes"]
    assert got["sent_bytes_by_level"] == step["forward"]["sent_bytes_by_level"]
    assert got["metrics"]["work_max_over_mean"] == step["work_max_over_mean"]
    # Without --profile the planner's work has FlexSP's constants, and the seconds are those of an H100.
    by_default = plan(evenspan, tmp_path, lengths, 8, *words)
    assert 0 < by_default["metrics"]["lower_bound_seconds"] < by_default["metrics"]["modelled_seconds"]
    assert by_default["metrics"]["modelled_seconds"] < got["metrics"]["modelled_seconds"]
    assert by_default["work_seconds"] != got["work_seconds"]


def test_auto_is_the_choice_of_simulate(evenspan: Run, tmp_path: Path) -> None:
    lengths, words = [9000, 3000, 700, 64], ["--ranks-per-node", 4, "--strategy", "auto", "--profile", "h100-sxm"]
    got = plan(evenspan, tmp_path, lengths, 8, *words)
    expected = simulated(evenspan, lengths, "--ranks", 8, *words)
    assert (got["strategy"], got["ranks_per_group"]) == (
        expected["auto"]["strategy"],
        expected["auto"]["ranks_per_group"],
    )
    assert got["metrics"]["modelled_seconds"] == expected["strategies"][0]["step_seconds"]
    named = [
        "--strategy",
        got["strategy"],
        *(["--ranks-per-group", got["ranks_per_group"]] * (got["ranks_per_group"] > 0)),
    ]
    again = plan(evenspan, tmp_path, lengths, 8, "--ranks-per-node", 4, "--profile", "h100-sxm", *named)
    assert again["hash"] == got["hash"]


def test_auto_has_a_default_profile_and_says_which(evenspan: Run, tmp_path: Path) -> None:
    note = "evenspan plan: note: auto chooses for the machine of the profile h100-sxm, since none is named"
    words = ["--lengths", "-", "--ranks", 2, "--strategy", "auto", "--json", "-"]
    done = evenspan("plan", *words, stdin="9000\n3000\n700\n")
    named = evenspan("plan", *words, "--profile", "h100-sxm", stdin="9000\n3000\n700\n")
    assert done.returncode == named.returncode == 0
    assert json.loads(done.stdout)["hash"] == json.loads(named.stdout)["hash"]
    assert done.stderr.startswith(note)
    assert "note" not in named.stderr
    done = evenspan("plan", *words, "--dtype", "f32", stdin="9000\n")
    assert done.returncode == 2
    assert done.stderr.startswith(note)
    assert "h100-sxm has no attention times of head dimension 128 in f32" in done.stderr


def test_a_topology_is_planned_for(evenspan: Run, tmp_path: Path) -> None:
    lengths, words = [9000, 3000, 700, 64], ["--strategy", "auto", "--profile", "h100-sxm"]
    machine = {"ranks": 8, "levels": [{"group_size": 2}, {"group_size": 4}, {"group_size": 8, "bytes_per_second": 1e3}]}
    machine["levels"][2]["latency_seconds"] = 1e-5
    (tmp_path / "cluster.json").write_text(json.dumps(machine))
    words += ["--topology", str(tmp_path / "cluster.json")]
    done = evenspan("plan", "--lengths", "-", *words, "--json", "-", stdin="\n".join(map(str, lengths)))
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    done = evenspan("simulate", "--lengths", "-", *words, "--json", "-", stdin="\n".join(map(str, lengths)))
    expected = json.loads(done.stdout)
    assert got["strategy"] == expected["auto"]["strategy"]
    assert got["metrics"]["modelled_seconds"] == expected["strategies"][0]["step_seconds"]
    assert got["sent_bytes_by_level"] == expected["strategies"][0]["forward"]["sent_bytes_by_level"]
    assert got["sent_bytes_by_level"][2] == 0  # a thousand bytes a second
    # A profile from standard input is read once, for the links and for the costs.
    (tmp_path / "lengths.txt").write_text("\n".join(map(str, lengths)))
    words[3:4], text = ["-"], (ROOT / "profiles" / "h100-sxm.json").read_text()
    done = evenspan("plan", "--lengths", str(tmp_path / "lengths.txt"), *words, "--json", "-", stdin=text)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["hash"] == got["hash"]


def test_auto_within_a_budget(evenspan: Run) -> None:
    words = ["--lengths", "-", "--ranks", 2, "--strategy", "auto", "--profile", "h100-sxm", "--memory-budget"]
    message = refused(evenspan, *words, "1KiB", stdin="5000\n300\n")
    assert "no candidate of auto keeps the memory budget of 1024 bytes; the least is " in message
    needed = int(message.split("which needs ")[1].split()[0])
    done = evenspan("plan", *words, needed, "--verify", stdin="5000\n300\n")
    assert done.returncode == 0, done.stderr
    assert "[plan] no candidate" in refused(evenspan, *words, needed - 1, stdin="5000\n300\n")


def test_a_plan_without_a_profile_of_its_shape_has_no_seconds(evenspan: Run) -> None:
    words = ["--lengths", "-", "--ranks", 2, "--head-dim", 72, "--json", "-"]
    done = evenspan("plan", *words, stdin="500\n")
    assert done.returncode == 0
    assert json.loads(done.stdout)["metrics"]["modelled_seconds"] is None
    assert "evenspan plan: note: no modelled seconds: [profile] h100-sxm has no attention times of" in done.stderr
    assert "no attention times of head dimension 72" in refused(evenspan, *words, "--profile", "h100-sxm")


def test_one_rank_sends_nothing(evenspan: Run, tmp_path: Path) -> None:
    for strategy in STRATEGIES:
        got = plan(evenspan, tmp_path, [3, 5], 1, "--strategy", strategy)
        assert got["metrics"]["sent_bytes_total"] == got["metrics"]["ring_bytes_total"] == 0
        assert got["metrics"]["work_max_over_mean"] == 1


def test_work_is_by_the_7b_constants(evenspan: Run, tmp_path: Path) -> None:
    got = plan(evenspan, tmp_path, [1000, 3000], 2, "--strategy", "local")
    seconds = sorted(5.128e-9 * n * (n + 1) + 0.1839576e-3 * n for n in got["documents"])
    assert sorted(got["work_seconds"]) == pytest.approx(seconds)


def test_table(evenspan: Run) -> None:
    done = evenspan("plan", "--lengths", PROLONG, "--ranks", 8, "--ranks-per-node", 4)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("mixed: 100 documents, ")
    assert lines[2].split() == ["rank", "tokens", "/", "mean", "work", "s", "/", "mean", "sent", "bytes"]
    assert [line.split()[0] for line in lines[3:12]] == [*"01234567", "all"]
    assert "bytes of a ring" in done.stdout
    assert "\nwork s: modelled seconds of all layers, " in done.stdout
    assert "sent bytes: keys and values, and queries and\noutputs too" in done.stdout


def test_lengths_from_plain_gzip_and_standard_input_are_the_same(evenspan: Run, tmp_path: Path) -> None:
    text = PROLONG.read_bytes()
    packed = gzip.compress(text)
    (tmp_path / "packed.gz").write_bytes(packed)
    (tmp_path / "members.gz").write_bytes(gzip.compress(text[:100]) + gzip.compress(text[100:]))
    (tmp_path / "unnamed").write_bytes(packed)
    outputs = []
    for source, stdin in [
        (PROLONG, b""),
        ("packed.gz", b""),
        ("members.gz", b""),
        ("unnamed", b""),
        ("-", text),
        ("-", packed),
    ]:
        done = evenspan("plan", "--lengths", source, "--ranks", 4, "--json", "plan.json", stdin=stdin)
        assert done.returncode == 0, done.stderr
        got = json.loads((tmp_path / "plan.json").read_text())
        del got["metrics"]["planning_seconds"]
        outputs.append(got)
    assert all(output == outputs[0] for output in outputs)


def test_spaces_comments_and_blank_lines_at_the_end(evenspan: Run) -> None:
    done = evenspan("plan", "--lengths", "-", "--ranks", 2, "--json", "-", stdin="# ProLong\n 5 \r\n\t7\n\n \n")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["documents"] == [5, 7]
    assert done.stderr.startswith("mixed: 2 documents, 12 tokens on 2 ranks")


def packed(text: bytes) -> bytes:
    """Compress with no time of day, so that tests have the same names in every process."""
    return gzip.compress(text, mtime=0)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ("", "[plan] the batch has no documents"),
        ("\n\n", "[plan] the batch has no documents"),
        ("5\n0\n", "[plan] document 1 has 0 tokens"),
        ("5\n7\n-3\n", "[plan] document 2 has -3 tokens; lengths are positive, drop empty documents"),
        ("5\n\n7\n", '[lengths] standard input, line 2 holds ""; a line holds the length of one document'),
        ("5\nabc\n", '[lengths] standard input, line 2 holds "abc"; a line holds the length of one document'),
        ("5 7\n", 'line 1 holds "5 7"'),
        ("5.0\n", 'line 1 holds "5.0"'),
        ("1e3\n", 'line 1 holds "1e3"'),
        ("99999999999999999999\n", 'line 1 holds "99999999999999999999"'),
        ("9223372036854775807\n9223372036854775807\n", "a batch holds less than"),
        (b"5\n\xff\x00\xfe\n", 'line 2 holds "\\xff\\x00\\xfe"'),
        (b"x" * 1000, 'line 1 holds "' + "x" * 40 + '..."'),
        (packed(b"5\n" * 1000)[:-12], "ends in the middle"),
        (packed(b"5\n7\n")[:8] + b"\x00" * 30, "is damaged at byte"),
        (packed(b"5\n") + b"junk", "is damaged at byte"),
        # Bombs: little memory, and no number of a line's bytes or of documents without end.
        (packed(b"7" * 2**27), "line 1 of"),
        (packed(b"4\n" * (2**20 + 1)), "more than 1048576 documents"),
        (packed(b"\n" * (2**22 + 2)), "lines without contents"),
    ],
)
def test_bad_lengths(evenspan: Run, lengths: str | bytes, message: str) -> None:
    assert message in refused(evenspan, "--lengths", "-", "--ranks", 2, stdin=lengths)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ranks", 2], "--lengths is missing; see evenspan plan --help"),
        (["--lengths", "-"], "--ranks or --topology is missing; see evenspan plan --help"),
        (["--lengths", "-", "--ranks-per-node", 2, "--topology", "x"], "--topology and --ranks-per-node say the same"),
        (["--lengths", "-", "--ranks"], "--ranks: 1 required N missing"),
        (["--lengths", "-", "--ranks", 0], "there are 0 ranks; give at least 1"),
        (["--lengths", "-", "--ranks", -4], "there are -4 ranks; give at least 1"),
        (["--lengths", "-", "--ranks", 100000], "there are 100000 ranks; a batch is on at most 8192"),
        (["--lengths", "-", "--ranks", "four"], '--ranks is "four"; give a whole number'),
        (["--lengths", "-", "--ranks", 2.5], '--ranks is "2.5"; give a whole number'),
        (["--lengths", "-", "--ranks", 99999999999], '--ranks is "99999999999", beyond 2147483647'),
        (["--lengths", "-", "--ranks", 2, "--ranks-per-node", -1], "-1 ranks per node"),
        (["--lengths", "-", "--ranks", 2, "--strategy", "rign"], 'no strategy "rign"'),
        (["--lengths", "-", "--ranks", 2, "--strategy", "rign"], "did you mean 'ring'?"),
        (["--lengths", "-", "--ranks", 2, "--strategy", "sequence-awar"], "did you mean 'sequence_aware'?"),
        (["--lengths", "-", "--ranks", 2, "--strategy", ""], 'no strategy ""'),
        (["--lengths", "-", "--ranks", 2, "--profile", "h100"], "did you mean 'h100-sxm'?"),
        (["--lengths", "-", "--ranks", 2, "--profile", "h100-sxm", "--dtype", "f32"], "of head dimension 128 in f32"),
        (["--lengths", "-", "--ranks", 2, "--heads", 7], "8 kv heads do not divide 7 heads"),
        (["--lengths", "-", "--ranks", 2, "--heads", 4, "--kv-heads", 8], "8 kv heads do not divide 4 heads"),
        (["--lengths", "-", "--ranks", 2, "--heads", 0], "each is at least 1"),
        (["--lengths", "-", "--ranks", 2, "--head-dim", -8], "each is at least 1"),
        (["--lengths", "-", "--ranks", 2, "--dtype", "fp16"], 'element type is "fp16"; use bf16, f16, f32 or f64'),
        (["--lengths", "-", "--ranks", 2, "--mask", "casual"], 'mask is "casual"; use causal, full, window:W'),
        (["--lengths", "-", "--ranks", 2, "--mask", "window:0"], 'mask is "window:0"'),
        (["--lengths", "-", "--ranks", 2, "--strategy", "hierarchical", "--token-slack", -1], "token slack is -1"),
        (
            ["--lengths", "-", "--ranks", 2, "--strategy", "hierarchical", "--token-slack", "nan"],
            "token slack is nan",
        ),
        (["--lengths", "-", "--ranks", 2, "--token-slack", "much"], '--token-slack is "much"; give a number'),
        (["--lengths", "-", "--ranks", 4, "--ranks-per-group", 3, "--strategy", "usp"], "do not divide 4 ranks"),
        (
            ["--lengths", "-", "--ranks", 4, "--ranks-per-group", 2, "--strategy", "ring"],
            "--ranks-per-group has no effect with the strategy ring",
        ),
        (["--lengths", "-", "--ranks", 4, "--stripe-tokens", 64], "--stripe-tokens has no effect"),
        (["--lengths", "-", "--ranks", 4, "--stripe-tokens", 0, "--strategy", "striped"], "stripes have 0 tokens"),
        (
            ["--lengths", "-", "--ranks", 2, "--memory-budget", "2GB"],
            "such as 1000, 64KiB, 8MiB or 2GiB; did you mean '2GiB'?",
        ),
        (["--lengths", "-", "--ranks", 2, "--memory-budget", "9999999999GiB"], "beyond 9223372036854775807 bytes"),
        (["--lengths", "-", "--ranks", 2, "--strateg", "ring"], "did you mean '--strategy'?"),
        (["--lengths", "-", "--ranks", 2, "more"], 'the argument "more" is one too many'),
        (["--lengths", "-", "--ranks", 2, "--ranks", 3], "--ranks"),
        (["--lengths", "absent.txt", "--ranks", 2], '"absent.txt" cannot be read: No such file or directory'),
        (["--lengths", ".", "--ranks", 2], '"." cannot be read: Is a directory'),
        (["--lengths", "-", "--ranks", 2, "--json", "a", "--text", "a"], "give them different files"),
        (["--lengths", "-", "--ranks", 2, "--json", "absent/plan.json"], "cannot be written: No such file"),
        (["--lengths", "-", "--ranks", 2, "--json", "."], "cannot be written: it is a folder"),
        (["--lengths", "-", "--ranks", 2, "--json", "/dev/full"], "cannot be written: No space left on device"),
    ],
)
def test_bad_arguments(evenspan: Run, tmp_path: Path, words: list, message: str) -> None:
    assert message in refused(evenspan, *words)
    assert list(tmp_path.iterdir()) == []


def test_an_idle_token_slack_is_noted(evenspan: Run) -> None:
    words = ["--lengths", "-", "--ranks", 2, "--token-slack", 0.2, "--strategy"]
    done = evenspan("plan", *words, "ring", stdin="5\n")
    assert done.returncode == 0
    assert done.stderr == "evenspan plan: note: --token-slack has no effect with the strategy ring\n"
    assert evenspan("plan", *words, "hierarchical", stdin="5\n").stderr == ""


def test_plain_text_under_a_gzip_name(evenspan: Run, tmp_path: Path) -> None:
    (tmp_path / "lengths.gz").write_text("5\n")
    assert "is not gzip although it is named so" in refused(evenspan, "--lengths", "lengths.gz", "--ranks", 2)


def test_no_plan_keeps_the_budget(evenspan: Run) -> None:
    message = refused(
        evenspan, "--lengths", "-", "--ranks", 2, "--strategy", "ring", "--memory-budget", "1KiB", stdin="5000\n"
    )
    assert "more than the memory budget of 1024 bytes" in message


def test_an_old_file_stays_when_the_other_cannot_be_written(evenspan: Run, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("old")
    refused(evenspan, "--lengths", "-", "--ranks", 2, "--json", "plan.json", "--text", "absent/plan.txt")
    assert (tmp_path / "plan.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_a_linked_file_is_written_where_the_link_leads(evenspan: Run, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "plan.json").symlink_to("there/plan.json")
    for _ in range(2):
        done = evenspan("plan", "--lengths", "-", "--ranks", 2, "--json", "plan.json", stdin="5\n")
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "plan.json").is_symlink()
        assert json.loads((tmp_path / "there" / "plan.json").read_text())["documents"] == [5]
