"""`evenspan batch`: what it plans, prints and writes, and what it says about bad input."""

import json
import math
import re
from pathlib import Path

import pytest
from program import LLAMA_8B, ROOT, Run

PROLONG = ROOT / "tests" / "data" / "prolong_100.txt"
LENGTHS = list(map(int, PROLONG.read_text().split()))
SETTINGS = {  # a profile with a model and a memory, and published constants
    "machine": ["--ranks", 16, "--memory-bytes", "80GiB"],
    "constants": ["--ranks", 64, "--constants", "flexsp-7b"],
}


def batch(evenspan: Run, *words: object, stdin: str = "") -> dict:
    lengths = "-" if stdin else PROLONG
    done = evenspan("batch", "--lengths", lengths, *words, "--json", "-", stdin=stdin)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refused(evenspan: Run, *words: object, stdin: str = "500\n") -> str:
    done = evenspan("batch", *words, stdin=stdin)
    assert done.returncode == 2, done.stdout
    assert done.stderr.startswith("evenspan batch: ["), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_document_is_in_one_micro_batch_and_fits(evenspan: Run, setting: str) -> None:
    got = batch(evenspan, *SETTINGS[setting], "--global-batch-documents", 30)
    assert got["num_steps"] == len(got["steps"]) == 3
    assert got["left_out_last_documents"] == 10
    for number, step in enumerate(got["steps"]):
        assert (step["step"], step["first_document"]) == (number, 30 * number)
        assert step["lengths"] == LENGTHS[30 * number : 30 * number + 30]
        assert [plan["planner"] for plan in step["plans"]] == ["auto", "homogeneous", "static"]
        for plan in step["plans"]:
            seen: dict[int, int] = {}
            for micro in plan["micro_batches"]:
                tokens = [0] * got["ranks"]
                for document, rank, share in micro["shares"]:
                    tokens[rank] += share
                    seen[document] = seen.get(document, 0) + share
                assert tokens == micro["rank_tokens"]
                assert max(tokens) <= got["capacity_tokens"]
                assert micro["seconds"] == max(micro["rank_seconds"])
                assert sum(micro["rank_exchange_seconds"]) == pytest.approx(micro["exchange_seconds"])
            assert [seen[i] for i in range(30)] == step["lengths"]
            assert plan["seconds"] == pytest.approx(sum(micro["seconds"] for micro in plan["micro_batches"]))
            assert plan["seconds"] >= step["lower_bound"]["seconds"] * (1 - 1e-9)
            assert len(plan["micro_batches"]) >= step["lower_bound"]["least_micro_batches"]
            assert plan["peak_tokens"] == max(max(micro["rank_tokens"]) for micro in plan["micro_batches"])


def test_a_rank_pays_for_its_share_of_a_document(evenspan: Run) -> None:
    """The formulas of docs/global_batches.md, over the shares of every plan."""
    got = batch(evenspan, *SETTINGS["constants"], "--global-batch-documents", 50)
    for step in got["steps"]:
        for plan in step["plans"]:
            for micro in plan["micro_batches"]:
                seconds = [got["micro_batch_seconds"]] * got["ranks"]
                ranks_of: dict[int, list[int]] = {}
                for document, rank, _ in micro["shares"]:
                    ranks_of.setdefault(document, []).append(rank)
                for document, rank, share in micro["shares"]:
                    length = step["lengths"][document]
                    paid = math.ceil(math.log2(len(ranks_of[document])))
                    nodes = len({r // got["ranks_per_node"] for r in ranks_of[document]})
                    if nodes > 1:
                        paid = max(paid, 3 + math.ceil(math.log2(nodes)))
                    rate = got["square_seconds"] * length + got["token_seconds"] + got["exchange_seconds"][paid]
                    seconds[rank] += rate * share
                assert micro["rank_seconds"] == pytest.approx(seconds)


def test_the_static_step_of_flexsp(evenspan: Run) -> None:
    """512 documents of 8,000 tokens by hand: the constants of the published solver, groups filled to nine tenths."""
    words = ["--ranks", 64, "--constants", "flexsp-7b", "--published-lengths", "--planner", "static"]
    got = batch(evenspan, *words, "--global-batch-documents", 512, stdin="8000\n" * 512 + "191900\n8000\n")
    capacity = math.floor((30 * 1024 - 7.1174468994140625 * 16 / 64 * 1024) / 4.480441895)
    assert (got["capacity_tokens"], got["left_out_long_documents"], got["num_steps"]) == (capacity, 1, 1)
    length = 8064
    batches = math.ceil(512 / (0.9 * 64 * capacity // length))
    all_to_all = 4 * 2 * 32 * 4096 * 2 / 2**20 / 4.87  # 4 in either pass, of 2 bytes a number, at 4.87 MiB a ms
    milliseconds = 512 * (5.128e-6 * length**2 + (0.1839576 + all_to_all) * length) / 64 + 629.3563 * batches
    (plan,) = got["steps"][0]["plans"]
    assert len(plan["micro_batches"]) == batches == 12
    assert plan["seconds"] == pytest.approx(milliseconds / 1e3, rel=1e-9)
    smaller = batch(evenspan, *words, "--static-degree", 8, stdin="8000\n" * 512)
    for micro in smaller["steps"][0]["plans"][0]["micro_batches"]:
        nodes = {document: set() for document, _, _ in micro["shares"]}
        for document, rank, _ in micro["shares"]:
            nodes[document].add(rank // 8)
        assert all(len(of) == 1 for of in nodes.values())


def test_long_documents_take_short_ones_along_where_memory_is_full(evenspan: Run) -> None:
    """A step that fills four micro-batches to 99 %: of neighbours alone, five take less time than four."""
    lengths = (ROOT / "bench" / "data" / "prolong_20000.txt").read_text()
    words = ["--ranks", 64, "--constants", "flexsp-7b", "--published-lengths", "--planner", "auto"]
    words += ["--global-batch-documents", 512, "--first-step", 23, "--num-steps", 1]
    (step,) = batch(evenspan, *words, stdin=lengths)["steps"]
    (plan,) = step["plans"]
    assert len(plan["micro_batches"]) == step["lower_bound"]["least_micro_batches"] == 4
    assert plan["seconds"] < 1.08 * step["lower_bound"]["seconds"]
    documents = [sorted({document for document, _, _ in micro["shares"]}) for micro in plan["micro_batches"]]
    by_length = [sorted(step["lengths"][document] for document in some) for some in documents]
    longest = max(by_length, key=lambda some: some[-1])
    assert longest[0] < min(some[0] for some in by_length if some is not longest)


def link(ranks: int, bytes_per_second: float) -> str:
    level = {"group_size": ranks, "latency_seconds": 2e-5, "bytes_per_second": bytes_per_second}
    return json.dumps({"ranks": ranks, "levels": [level]})


@pytest.mark.parametrize(
    ("lengths", "words", "topology", "planners"),
    [
        # Where cutting is dear, the second document is on one rank for as long as the first is on all.
        ([600_000, 700], ["--memory-bytes", "51300MiB", "--states", "all"], link(64, 5e8), "homogeneous,wlb"),
        # One long document, and others of just over half a rank's memory: few fit beside each other.
        (
            [42_600, *range(5250, 5050, -1)],
            ["--memory-bytes", 73015328768, "--states", "all"],
            link(8, 5e8),
            "bytescale",
        ),
        # Equal documents, for which more micro-batches of even groups are faster than few full ones.
        ([30_000] * 100, ["--ranks", 32, "--constants", "flexsp-7b"], "", "homogeneous,wlb,skrull,megatron_dynamic"),
        # More micro-batches than are composed together.
        (
            [8000 + 37 * i % 12_001 for i in range(700)],
            ["--ranks", 8, "--constants", "flexsp-7b"],
            "",
            "homogeneous,wlb,skrull,bytescale",
        ),
    ],
    ids=["cutting is dear", "half a rank", "equal", "many micro-batches"],
)
def test_no_planner_of_whole_documents_is_faster(
    evenspan: Run, tmp_path: Path, lengths: list[int], words: list, topology: str, planners: str
) -> None:
    if topology:
        (tmp_path / "topology.json").write_text(topology)
        words = [*words, "--topology", "topology.json"]
    got = batch(evenspan, *words, "--planner", "auto," + planners, stdin="\n".join(map(str, lengths)) + "\n")
    own, *others = got["steps"][0]["plans"]
    assert own["seconds"] <= min(plan["seconds"] for plan in others) * (1 + 1e-9)


def test_simulated_steps(evenspan: Run) -> None:
    """Of one document on all ranks they are the strategies' steps; of several micro-batches their sum."""
    words = ["--ranks", 4, "--memory-bytes", "80GiB", "--states", "all", "--planner", "static", "--simulate"]
    done = evenspan(
        "simulate", "--lengths", "-", "--ranks", 4, "--strategy", "ulysses,mixed,auto", "--json", "-", stdin="8000\n"
    )
    wanted = {row["strategy"]: row["step_seconds"] for row in json.loads(done.stdout)["strategies"]}
    (plan,) = batch(evenspan, *words, stdin="8000\n")["steps"][0]["plans"]
    assert (plan["placed_seconds"], plan["mixed_seconds"]) == (wanted["ulysses"], wanted["mixed"])
    assert plan["auto_seconds"] == wanted["auto"]
    (plan,) = batch(evenspan, *words, stdin="24000\n" * 4)["steps"][0]["plans"]
    (one,) = batch(evenspan, *words, stdin="24000\n")["steps"][0]["plans"]
    assert len(plan["micro_batches"]) == 4
    assert plan["placed_seconds"] == pytest.approx(4 * one["placed_seconds"], rel=1e-12)
    assert plan["auto_seconds"] == pytest.approx(4 * one["auto_seconds"], rel=1e-12)
    assert plan["auto_seconds"] < min(plan["placed_seconds"], plan["mixed_seconds"]) * (1 + 1e-12)
    assert "placed s  mixed s  auto s" in evenspan("batch", "--lengths", "-", *words, stdin="8000\n").stdout


def test_memory_is_states_and_tokens(evenspan: Run) -> None:
    whole, divided = (batch(evenspan, *SETTINGS["machine"], "--states", states) for states in ("optimizer", "all"))
    weights = 32 * 4096 * (2 * (32 + 8) * 128 + 3 * 14336) + 2 * 128256 * 4096
    assert whole["state_bytes"] == pytest.approx(weights * (2 + 4 + 12 / 16))
    assert divided["state_bytes"] == pytest.approx(weights * (2 + 4 + 12) / 16)
    for got in (whole, divided):
        assert got["capacity_tokens"] == (got["memory_bytes"] - got["state_bytes"]) // got["token_bytes"]


def test_global_batches_of_tokens(evenspan: Run) -> None:
    words = [*SETTINGS["constants"], "--global-batch-tokens", 100, "--planner", "auto"]
    steps = batch(evenspan, *words, stdin="60\n40\n50\n60\n30\n10\n100\n5\n")["steps"]
    assert [step["lengths"] for step in steps] == [[60, 40], [50], [60, 30, 10], [100]]
    one = batch(evenspan, *words, "--first-step", 2, "--num-steps", 1, stdin="60\n40\n50\n60\n30\n10\n100\n5\n")
    assert one["steps"] == [{**steps[2], "plans": one["steps"][0]["plans"]}]
    # What fills no global batch is one where there is no other.
    assert [step["lengths"] for step in batch(evenspan, *words, stdin="30\n20\n")["steps"]] == [[30, 20]]
    documents = [*SETTINGS["constants"], "--global-batch-documents", 3, "--planner", "auto"]
    assert [step["lengths"] for step in batch(evenspan, *documents, stdin="30\n20\n")["steps"]] == [[30, 20]]


def test_table(evenspan: Run) -> None:
    words = ["batch", "--lengths", PROLONG, *SETTINGS["machine"], "--global-batch-documents", 30]
    lines = evenspan(*words).stdout.splitlines()
    tokens = sum(LENGTHS[:90])
    assert lines[0].startswith(f"h100-sxm: 90 documents, {tokens:,} tokens on 16 ranks (8 a node), 32 layers of 32 ")
    assert lines[1] == "3 steps, 30 documents a step; the last 10 documents fill no step and are left out."
    heading = lines.index("") + 1
    assert lines[heading].split()[:4] == ["planner", "step", "s", "of"]
    assert [line.split()[0] for line in lines[heading + 1 : heading + 4]] == ["auto", "homogeneous", "static"]
    assert max(map(len, lines)) <= 120
    bound = re.search(
        r"less than (\S+) s a step in the mean: (\S+) of work, (\S+) of all-to-alls and (\S+) of ", lines[4]
    )
    assert bound and float(bound[1]) == pytest.approx(sum(map(float, bound.groups()[1:])), abs=2e-3)
    assert "micro-batch  documents" not in "\n".join(lines)
    one = evenspan(*words, "--first-step", 1, "--num-steps", 1).stdout
    assert "\nStep 1 of steps 0 to 2, 30 documents a step; " in one
    assert one.count("micro-batch  documents  tokens  longest") == 3
    assert one.count("\nauto:\n") == 1


def test_many_sizes_of_groups_are_short(evenspan: Run) -> None:
    """Once a column of more than 230 characters."""
    words = ["batch", "--lengths", ROOT / "bench" / "data" / "prolong_20000.txt", "--ranks", 128, "--planner", "auto"]
    step = ["--first-step", 1, "--num-steps", 1]
    done = evenspan(*words, "--memory-bytes", "80GiB", "--global-batch-documents", 512, *step)
    assert done.returncode == 0, done.stderr
    assert re.search(
        r" \d+ on \d+, \d+ on \d+, \d+ on \d+, \d+ more sizes, \d+ on \d+, \d+ on \d+, \d+ on \d+\n", done.stdout
    )
    assert max(map(len, done.stdout.splitlines())) <= 140


def test_the_same_input_gives_the_same_output(evenspan: Run, tmp_path: Path) -> None:
    outputs = []
    for _ in range(2):
        done = evenspan("batch", "--lengths", PROLONG, *SETTINGS["machine"], "--no-times", "--json", "a", "--html", "b")
        outputs.append((done.stdout, (tmp_path / "a").read_text(), (tmp_path / "b").read_text()))
    assert outputs[0] == outputs[1]
    assert "plan ms" not in outputs[0][0] and "planning_seconds" not in outputs[0][1]
    done = evenspan("batch", "--lengths", PROLONG, *SETTINGS["machine"], "--json", "a")
    assert "plan ms" in done.stdout and "planning_seconds" in (tmp_path / "a").read_text()


def test_memory_for_the_longest_document(evenspan: Run) -> None:
    words = ["--lengths", "-", "--ranks", 4, "--planner", "auto", "--memory-bytes"]
    said = refused(evenspan, *words, "80GiB", stdin="60000\n90000\n")
    needed = re.search(r"document 0 has 60000 .* the longest document needs --memory-bytes (\d+)GiB\n", said)
    assert needed
    assert batch(evenspan, *words[2:], f"{needed[1]}GiB", stdin="60000\n90000\n")["steps"]
    assert "fits on no group" in refused(evenspan, *words, f"{int(needed[1]) - 1}GiB", stdin="60000\n90000\n")


def test_a_document_of_one_token(evenspan: Run) -> None:
    """Once no plan was found: fewer tokens than ranks cannot be divided evenly."""
    for plan in batch(evenspan, *SETTINGS["constants"], stdin="1\n")["steps"][0]["plans"]:
        assert len(plan["micro_batches"]) == 1


MACHINE = ["--lengths", "-", "--ranks", 4, "--memory-bytes", "160GiB"]
CONSTANTS = ["--lengths", "-", "--ranks", 64, "--constants", "flexsp-7b"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ranks", 4], "--lengths is missing"),
        (["--lengths", "-"], "--ranks or --topology is missing; see evenspan batch --help"),
        (["--lengths", "-", "--ranks", 4], "--memory-bytes is missing: the memory of a rank, such as 80GiB"),
        (["--lengths", "-", "--ranks", 4, "--memory-bytes", 0], "--memory-bytes is 0; a rank has 1 to "),
        (["--lengths", "-", "--ranks", 4, "--memory-bytes", "32TiB"], 'is "32TiB"; give a whole number of bytes, '),
        (["--lengths", "-", "--ranks", 4, "--memory-bytes", "80GB"], "or 2GiB; did you mean '80GiB'?"),
        (["--lengths", "-", "--ranks", 4, "--memory-bytes", "80G"], "or 2GiB; did you mean '80GiB'?"),
        (["--lengths", "-", "--ranks", 4, "--memory-bytes", "80 gib"], "or 2GiB; did you mean '80GiB'?"),
        (
            ["--lengths", "-", "--ranks", 4, "--memory-bytes", "8GiB"],
            "bytes (68GiB), or use more ranks; --states all divides weights and gradients over the ranks too",
        ),
        (["--lengths", "-", "--ranks", 4, "--memory-bytes", "8GiB", "--states", "all"], "bytes (34GiB), or use more "),
        ([*MACHINE, "--topology", "x"], "--topology and --ranks say the same twice"),
        ([*MACHINE, "--states", "some"], 'states cannot be sharded as "some"; give optimizer or all'),
        ([*MACHINE, "--profile", "h100"], "did you mean 'h100-sxm'?"),
        ([*MACHINE, "--dtype", "f32"], "h100-sxm has no attention times of head dimension 128 in f32"),
        ([*MACHINE, "--context-limit", 30], "--context-limit has no effect without --constants"),
        ([*MACHINE, "--published-lengths"], "--published-lengths has no effect without --constants"),
        ([*MACHINE, "--planner", "auto,atuo"], "did you mean 'auto'?"),
        ([*MACHINE, "--planner", "auto,"], 'there is no planner ""'),
        ([*MACHINE, "--planner", "auto,auto"], "--planner names auto twice"),
        ([*MACHINE, "--solver-seconds", 3], "--solver-seconds has no effect with the planners auto, homogeneous"),
        ([*MACHINE, "--paper-slots"], "--paper-slots has no effect with the planners auto, homogeneous, static"),
        ([*MACHINE, "--highs", "x"], "--highs has no effect with the planners auto, homogeneous, static"),
        ([*MACHINE, "--planner", "auto", "--static-degree", 2], "--static-degree has no effect with the planner auto"),
        ([*MACHINE, "--static-degree", 3], "have 3 ranks; the number is a power of two of at most 4"),
        ([*MACHINE, "--static-degree", 8], "have 8 ranks; the number is a power of two of at most 4"),
        ([*MACHINE, "--planner", "flexsp", "--solver-seconds", 0], "--solver-seconds is 0; give a time above 0"),
        ([*MACHINE, "--planner", "flexsp", "--solver-seconds", "nan"], "--solver-seconds is nan; give a time above 0"),
        ([*MACHINE, "--global-batch-documents", 0], "--global-batch-documents is 0; give at least 1"),
        ([*MACHINE, "--global-batch-tokens", -1], "--global-batch-tokens is -1; give at least 1"),
        ([*MACHINE, "--global-batch-documents", 4, "--global-batch-tokens", 9], "both say where a global batch ends"),
        ([*MACHINE, "--first-step", 2], "--first-step has no effect where all documents are one step's"),
        ([*MACHINE, "--num-steps", 2], "--num-steps has no effect where all documents are one step's"),
        ([*MACHINE, "--global-batch-documents", 1, "--num-steps", 0], "--num-steps is 0; give at least 1"),
        ([*MACHINE, "--global-batch-documents", 1, "--first-step", 1], "fill 1 step, and step 1 cannot be planned"),
        ([*MACHINE, "--global-batch-documents", 1, "--num-steps", 2], "fill 1 step, and 2 from step 0 on cannot be"),
        ([*MACHINE, "--global-batch-tokens", 400], "document 0 has 500 tokens and a global batch at most 400"),
        ([*MACHINE, "--json", "a", "--html", "a"], '--json and --html both go to "a"'),
        (["--lengths", "-", "--ranks", 4, "--constants", "flexsp-8b"], "did you mean 'flexsp-7b'?"),
        (["--lengths", "-", "--ranks", 0, "--constants", "flexsp-7b"], "there are 0 ranks; give 1 to "),
        (["--lengths", "-", "--ranks", 2, "--constants", "flexsp-7b"], "a rank has memory for -"),
        ([*CONSTANTS, "--profile", "h100-sxm"], "--profile has no effect with --constants"),
        ([*CONSTANTS, "--memory-bytes", "80GiB"], "--memory-bytes has no effect with --constants"),
        ([*CONSTANTS, "--model", "x"], "--model has no effect with --constants"),
        ([*CONSTANTS, "--states", "all"], "--states has no effect with --constants"),
        ([*CONSTANTS, "--ranks-per-node", 4], "--ranks-per-node has no effect with --constants"),
        ([*CONSTANTS, "--simulate"], "--simulate has no effect with --constants"),
        ([*CONSTANTS, "--context-limit", 0], "--context-limit is 0; it is in thousands of tokens, from 1"),
    ],
)
def test_bad_arguments(evenspan: Run, tmp_path: Path, words: list, message: str) -> None:
    assert message in refused(evenspan, *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [["--static-degree", 3], ["--planner", "atuo"], ["--profile", "h100"], ["--global-batch-tokens", 0]],
)
def test_options_are_checked_before_lengths_are_read(evenspan: Run, words: list) -> None:
    done = evenspan("batch", "--lengths", "not-there.txt", *MACHINE[2:], *words)
    assert done.returncode == 2 and "not-there" not in done.stderr


@pytest.mark.parametrize(
    ("lengths", "words", "message"),
    [
        ("5\nabc\n", [], 'line 2 holds "abc"'),
        ("", [], "there are no documents; a step needs at least one"),
        ("5\n0\n", [], "document 1 has 0 tokens; lengths are positive, drop empty documents"),
        ("5\n-3\n", ["--published-lengths"], "document 1 has 0 tokens"),
        (
            "9\n900000\n",
            [],
            "document 1 has 900000 tokens and the context limit is 192000; raise --context-limit, add ",
        ),
        ("900000\n", ["--context-limit", 1000], "fits on no group: all 64 ranks together hold "),
        ("900000\n", ["--published-lengths"], "there are no documents"),
        ("99999999999999\n", ["--published-lengths"], "document 0 has 99999999999999 tokens and the most that is "),
        ("30000\n", ["--static-degree", 4], "needs 5 ranks, and groups of the planner static have 4; use larger"),
    ],
)
def test_bad_documents(evenspan: Run, lengths: str, words: list, message: str) -> None:
    assert message in refused(evenspan, *CONSTANTS, *words, stdin=lengths)


def test_models_and_machines_of_other_kinds(evenspan: Run, tmp_path: Path) -> None:
    """Windows and linear layers make a step of long documents cheaper, shared cores make any twice as long."""

    def step_of(more: dict, topology: str = '{"ranks": 8}', *options: str) -> dict:
        (tmp_path / "topology.json").write_text(topology)
        (tmp_path / "model.json").write_text(json.dumps({**LLAMA_8B, **more}))
        words = ["--memory-bytes", "160GiB", "--topology", "topology.json"]
        words += ["--model", "model.json", "--no-times", "--planner", "auto", *options]
        report = batch(evenspan, *words, stdin="120000\n90000\n5000\n" * 4)
        return report["steps"][0]["plans"][0]

    full = step_of({})
    windows = {"model_type": "mistral", "sliding_window": 4096}
    linear = {
        "layer_types": (["gla"] * 3 + ["full_attention"]) * 8,
        "linear_num_heads": 32,
        "linear_key_dim": 128,
        "linear_value_dim": 128,
    }
    for more in (windows, linear):
        simulated = step_of(more, '{"ranks": 8}', "--simulate")
        assert simulated["seconds"] < 0.7 * full["seconds"]
        assert simulated["seconds"] < simulated["mixed_seconds"] < 2 * simulated["seconds"]
    shared = step_of({}, '{"ranks": 8, "cores": 4}')
    words = ["--lengths", "-", "--topology", "topology.json", "--memory-bytes", "160GiB", "--simulate"]
    assert "--simulate takes a core for each rank, and the topology has 4" in refused(evenspan, *words)
    assert 1.9 * full["seconds"] < shared["seconds"] < 2.1 * full["seconds"]


def test_a_model_file_is_the_same_as_the_default(evenspan: Run, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B))
    words = [*SETTINGS["machine"], "--no-times", "--planner", "auto"]
    assert batch(evenspan, *words, "--model", "config.json") == batch(evenspan, *words)


def test_a_solver_that_is_not_there(evenspan: Run) -> None:
    words = ["--planner", "auto,flexsp", "--highs", "/nonexistent/libhighs.so"]
    message = refused(evenspan, "--lengths", "not-there.txt", *MACHINE[2:], *words)  # lengths are read later
    assert (
        "cannot be used: there is none at /nonexistent/libhighs.so; install it with `pip install highsbox`" in message
    )
