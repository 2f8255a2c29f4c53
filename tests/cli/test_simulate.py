"""`evenspan simulate`: what it prints and writes, and what it says about bad input."""

import copy
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from program import LLAMA_8B, ROOT, Run

PROLONG = ROOT / "tests" / "data" / "prolong_100.txt"
PROFILES = sorted(path.stem for path in (ROOT / "profiles").glob("*.json"))


def simulate(evenspan: Run, tmp_path: Path, *words: object) -> dict:
    done = evenspan("simulate", "--lengths", PROLONG, "--json", "out.json", *words)
    assert done.returncode == 0, done.stderr
    return json.loads((tmp_path / "out.json").read_text())


def refused(evenspan: Run, *words: object, stdin: str = "500\n") -> str:
    done = evenspan("simulate", *words, stdin=stdin)
    assert done.returncode == 2, done.stdout
    assert done.stderr.startswith("evenspan simulate: ["), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_table(evenspan: Run) -> None:
    done = evenspan("simulate", "--lengths", PROLONG, "--ranks", 16, "--strategy", "local,hierarchical,ring")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("h100-sxm: 100 documents, ")
    assert lines[2].split()[:3] == ["strategy", "step", "ms"]
    assert [line.split()[0] for line in lines[3:6]] == ["local", "hierarchical", "ring"]
    assert all(line.endswith("programs") for line in lines[3:6])
    assert evenspan("simulate", "--lengths", PROLONG, "--ranks", 80, "--strategy", "ring").stdout.count("formula") == 1


def test_auto_says_what_it_chose_and_beside_what(evenspan: Run, tmp_path: Path) -> None:
    done = evenspan("simulate", "--lengths", PROLONG, "--ranks", 16, "--strategy", "auto,ring,hierarchical")
    said = done.stdout[done.stdout.index("\nauto is ") :]
    assert "Not simulated, since at least: " in said.replace("\n", " ")
    assert max(map(len, said.splitlines())) <= 120  # once it was a line of 600
    got = simulate(evenspan, tmp_path, "--ranks", 16, "--strategy", "auto,ring,zigzag,ulysses,hierarchical")
    step = {s["strategy"]: s["step_seconds"] for s in got["strategies"]}
    assert step["auto"] == min(step.values())
    looked_at = got["auto"]["candidates"]
    assert {c["strategy"] for c in looked_at} == {
        *("local", "ring", "zigzag", "striped", "all_gather", "zigzag_all_gather", "ulysses", "usp", "token_ring"),
        *("balanced_ring", "mesh", "disaggregated", "sequence_aware", "hierarchical", "mixed"),
    }
    assert step["auto"] == min(c["step_seconds"] for c in looked_at)
    assert "auto" not in simulate(evenspan, tmp_path, "--ranks", 16, "--strategy", "ring")


def test_json_has_every_number(evenspan: Run, tmp_path: Path) -> None:
    got = simulate(evenspan, tmp_path, "--ranks", 16, "--strategy", "zigzag,sequence_aware")
    assert (got["profile"], got["ranks"], got["ranks_per_node"], got["layers"]) == ("h100-sxm", 16, 8, 32)
    assert [level["group_size"] for level in got["levels"]] == [8, 16]
    for strategy in got["strategies"]:
        forward, backward = strategy["forward"], strategy["backward"]
        assert strategy["step_seconds"] > 32 * (forward["makespan_seconds"] + backward["makespan_seconds"]) / 2
        assert 0 <= strategy["idle_fraction"] < 1
        assert len(forward["ranks"]) == 16
        for rank in forward["ranks"]:
            assert rank["compute_seconds"] + rank["idle_seconds"] == pytest.approx(forward["makespan_seconds"])
            assert rank["transfer_seconds"] <= rank["finish_seconds"] <= forward["makespan_seconds"]
    zigzag = got["strategies"][0]["forward"]["sent_bytes_by_level"]
    assert sum(zigzag) == 15 * got["tokens"] * 2 * 8 * 128 * 2


def test_the_same_input_gives_the_same_output(evenspan: Run, tmp_path: Path) -> None:
    words = ["--ranks", 12, "--ranks-per-node", 4, "--strategy", "usp,hierarchical", "--trace", "trace.json"]
    outputs = []
    for _ in range(2):
        simulate(evenspan, tmp_path, *words)
        outputs.append([(tmp_path / name).read_text() for name in ("out.json", "trace.json")])
    assert outputs[0] == outputs[1]


def test_trace(evenspan: Run, tmp_path: Path) -> None:
    words = ["--ranks", 4, "--strategy", "ring,local", "--trace", "trace.json"]
    got = simulate(evenspan, tmp_path, *words)
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    names = {event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert names == {f"{strategy} rank {rank}" for strategy in ("ring", "local") for rank in range(4)}
    slices = [event for event in events if event["ph"] == "X"]
    assert {event["name"] for event in slices} >= {"attend", "attend_gradient", "exchange"}
    makespan = sum(got["strategies"][0][way]["makespan_seconds"] for way in ("forward", "backward"))
    assert max(event["ts"] + event["dur"] for event in slices) / 1e6 == pytest.approx(makespan)
    engines: dict[tuple, list] = {}
    for event in slices:
        engines.setdefault((event["pid"], event["tid"]), []).append((event["ts"], event["ts"] + event["dur"]))
    for intervals in engines.values():  # an engine does one thing at a time
        intervals.sort()
        assert all(a[1] <= b[0] + 1e-5 for a, b in itertools.pairwise(intervals))
    live = [event["args"]["live bytes"] for event in events if event["ph"] == "C"]
    assert 0 < max(live) <= got["strategies"][0]["peak_arena_bytes"]


def test_a_model_file_is_the_same_as_its_numbers(evenspan: Run, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B))
    by_default = simulate(evenspan, tmp_path, "--ranks", 4)
    assert simulate(evenspan, tmp_path, "--ranks", 4, "--model", "config.json") == by_default
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA_8B, "num_hidden_layers": 16, "vocab_size": 0}))
    half = simulate(evenspan, tmp_path, "--ranks", 4, "--model", "config.json")
    assert 0.4 < half["strategies"][0]["step_seconds"] / by_default["strategies"][0]["step_seconds"] < 0.5


def test_linear_layers_send_states(evenspan: Run, tmp_path: Path) -> None:
    kinds = ["kda", "kda", "kda", "full_attention"] * 8
    linear = {"layer_types": kinds, "linear_num_heads": 32, "linear_key_dim": 128, "linear_value_dim": 128}
    (tmp_path / "model.json").write_text(json.dumps({**LLAMA_8B, **linear}))
    words = ("--ranks", 16, "--strategy", "zigzag", "--model", "model.json", "--transport")
    got = {name: simulate(evenspan, tmp_path, *words, name) for name in ("all_gather", "ring")}
    for found in got.values():
        assert found["layers"] == 32 and found["linear_layers"] == 24
    layer = {name: found["strategies"][0]["linear"][0]["forward"] for name, found in got.items()}
    # A ring sends a state for each border between parts; a gather also sends transitions, and to every later rank.
    assert sum(layer["ring"]["sent_bytes_by_level"]) < sum(layer["all_gather"]["sent_bytes_by_level"])
    done = evenspan("simulate", "--lengths", PROLONG, *words, "ring")
    assert "32 layers, 24 of them linear (ring), the others of 32 heads" in done.stdout


def test_bad_transports(evenspan: Run, tmp_path: Path) -> None:
    words = ("--lengths", "-", "--ranks", 4, "--transport")
    assert "no effect on a model without linear layers" in refused(evenspan, *words, "ring")
    linear = {"layer_types": ["gla"] * 32, "linear_num_heads": 32, "linear_key_dim": 128, "linear_value_dim": 128}
    (tmp_path / "model.json").write_text(json.dumps({**LLAMA_8B, **linear}))
    assert "did you mean 'ring'" in refused(evenspan, *words, "rings", "--model", "model.json")
    (tmp_path / "model.json").write_text(json.dumps({**LLAMA_8B, **linear, "layer_types": ["gla"]}))
    assert "it lists 1 layers of 32" in refused(evenspan, *words, "ring", "--model", "model.json")


def test_a_topology_file_is_the_same_as_its_numbers(evenspan: Run, tmp_path: Path) -> None:
    zigzag = ["--strategy", "zigzag"]  # sends across nodes whatever the lengths are
    by_options = simulate(evenspan, tmp_path, "--ranks", 8, "--ranks-per-node", 4, *zigzag)
    topologies = [
        {"ranks": 8, "ranks_per_node": 4},
        {"ranks": 8, "nodes": 2, "ranks_per_node": 4, "levels": [{"group_size": 4}, {"group_size": 8}]},
        {"ranks": 8, "levels": [{"group_size": level["group_size"], **level} for level in by_options["levels"]]},
    ]
    for topology in topologies:
        (tmp_path / "topology.json").write_text(json.dumps(topology))
        assert simulate(evenspan, tmp_path, "--topology", "topology.json", *zigzag) == by_options
    slow = {"group_size": 8, "latency_seconds": 1e-4, "bytes_per_second": 1e9}
    (tmp_path / "topology.json").write_text(json.dumps({"ranks": 8, "levels": [{"group_size": 4}, slow]}))
    slower = simulate(evenspan, tmp_path, "--topology", "topology.json", *zigzag)
    assert slower["strategies"][0]["step_seconds"] > by_options["strategies"][0]["step_seconds"]


@pytest.mark.parametrize("name", PROFILES)
def test_shipped_profiles(evenspan: Run, tmp_path: Path, name: str) -> None:
    shipped = simulate(evenspan, tmp_path, "--ranks", 16, "--profile", name)
    assert shipped["profile"] == name
    assert simulate(evenspan, tmp_path, "--ranks", 16, "--profile", ROOT / "profiles" / f"{name}.json") == shipped


def test_shipped_profiles_are_as_derived() -> None:
    done = subprocess.run([sys.executable, ROOT / "profiles" / "derive.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_h100_reproduces_its_measurements(evenspan: Run, tmp_path: Path) -> None:
    """Milliseconds of one causal document's forward, 64 heads: hao-ai-lab/distca, compute-attn-H100.csv."""
    for length, milliseconds in [(2048, 0.355), (8192, 3.707), (32768, 51.89), (65536, 206.3)]:
        words = ["--lengths", "-", "--ranks", 1, "--strategy", "local", "--heads", 64, "--kv-heads", 4]
        done = evenspan("simulate", *words, "--json", "out.json", stdin=f"{length}\n")
        assert done.returncode == 0, done.stderr
        got = json.loads((tmp_path / "out.json").read_text())["strategies"][0]["forward"]["makespan_seconds"]
        assert got * 1e3 == pytest.approx(milliseconds, rel=0.03), length


def test_flexsp_reproduces_its_cost_model(evenspan: Run, tmp_path: Path) -> None:
    """alpha1 and alpha2 of the 7B model: a GPT with 12 hidden^2 weights a layer."""
    gpt = {**LLAMA_8B, "intermediate_size": 8 * 4096 // 3, "num_key_value_heads": 64, "num_attention_heads": 64}
    (tmp_path / "config.json").write_text(json.dumps({**gpt, "head_dim": 64, "vocab_size": 0}))
    words = ["--ranks", 1, "--strategy", "local", "--profile", "flexsp-7b", "--model", "config.json"]
    done = evenspan("simulate", "--lengths", "-", *words, "--json", "out.json", stdin="30000\n")
    assert done.returncode == 0, done.stderr
    got = json.loads((tmp_path / "out.json").read_text())["strategies"][0]["step_seconds"]
    assert got == pytest.approx(5.128e-9 * 30000**2 + 0.1839576e-3 * 30000, rel=0.001)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lengths", "-"], "--ranks or --topology is missing; see evenspan simulate --help"),
        (["--ranks", 2], "--lengths is missing"),
        (["--lengths", "-", "--ranks", 0], "there are 0 ranks; give at least 1"),
        (["--lengths", "-", "--ranks", 2, "--topology", "x"], "--topology and --ranks say the same twice"),
        (["--lengths", "-", "--ranks", 2, "--model", "x", "--heads", 4], "--model and --heads say the same twice"),
        (["--lengths", "-", "--ranks", 2, "--model", "absent"], '"absent" cannot be read'),
        (
            ["--lengths", "-", "--ranks", 2, "--profile", "h100"],
            'no shipped profile and no file "h100"; shipped are a100',
        ),
        (["--lengths", "-", "--ranks", 2, "--profile", "h100"], "did you mean 'h100-sxm'?"),
        (["--lengths", "-", "--ranks", 2, "--strategy", "ring,rign"], "did you mean 'ring'?"),
        (["--lengths", "-", "--ranks", 2, "--strategy", "ring,"], 'no strategy ""'),
        (["--lengths", "-", "--ranks", 2, "--strategy", "ring,ring"], "--strategy names ring twice"),
        (
            ["--lengths", "-", "--ranks", 2, "--stripe-tokens", 8],
            "no effect with auto, mixed, sequence_aware",
        ),
        (
            ["--lengths", "-", "--ranks", 2, "--head-dim", 72],
            "h100-sxm has no attention times of head dimension 72 in bf16",
        ),
        (
            ["--lengths", "-", "--ranks", 2, "--dtype", "f32"],
            "of head dimension 128 in f32; it has 64 in bf16, 64 in f16, 80 in bf16",
        ),
        (["--lengths", "-", "--ranks", 2, "--json", "a", "--trace", "a"], "give them different files"),
        (
            ["--lengths", "-", "--ranks", 65, "--strategy", "ring", "--trace", "t"],
            "--trace needs programs, and ring on 65",
        ),
        (["--lengths", "-", "--ranks", 65, "--strategy", "ring", "--mask", "window:4"], "knows causal and full masks"),
        (["--lengths", "absent", "--ranks", 2], '"absent" cannot be read'),
        (
            ["--lengths", "-", "--ranks", 2, "--memory-budget", "1KiB", "--strategy", "auto"],
            "no candidate of auto keeps the memory budget of 1024 bytes; the least is local, which needs",
        ),
        (
            ["--lengths", "-", "--ranks", 2, "--memory-budget", "1KiB", "--strategy", "ring"],
            "more than the memory budget of 1024 bytes; raise the budget",
        ),
    ],
)
def test_bad_arguments(evenspan: Run, tmp_path: Path, words: list, message: str) -> None:
    assert message in refused(evenspan, *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ("{", "is no JSON from line 1, column 2 on"),
        ('{"ranks": 8,\n "nodes" 2}', 'is no JSON from line 2, column 10 on, where "2}" stands'),
        ("[]", 'is "[]"; it is an object'),
        ("{}", "the field ranks is missing"),
        ('{"ranks": "8"}', 'ranks is "\\"8\\""; it is a whole number'),
        ('{"ranks": -8}', "it is not negative"),
        ('{"ranks": 0}', "there are 0 ranks"),
        ('{"ranks": 1e400}', "holds a number beyond 1.79769e+308"),
        # Once ended by a signal: what prints a list goes as deep as it does.
        ('{"ranks": ' + "[" * 200000 + "]" * 200000 + "}", "stand in each other more than 64 deep"),
        ('{"ranks": 8, "ranks": 4}', 'an object has the key "ranks" twice'),
        ('{"ranks": 2000000000}', "at most 32 levels and 1048576 ranks"),
        ('{"ranks": 8, "nodes": 9223372036854775807}', "it is not negative and below 2^31"),
        ('{"ranks": 8, "levels": [{"group_size": 0}, {"group_size": 8}]}', "level 0 has groups of 0 ranks"),
        ('{"ranks": 8, "node": 2}', "has a field \"node\" that means nothing here; did you mean 'nodes'?"),
        ('{"ranks": 12, "nodes": 2, "ranks_per_node": 8}', "2 x 8 are not 12"),
        ('{"ranks": 8, "levels": []}', "has 0 levels"),
        ('{"ranks": 128, "cores": 64}', "has 64 cores for 128 ranks; they are not negative, and at most"),
        ('{"ranks": 8, "levels": [{"group_size": 4}]}', "the last level holds 4 ranks; it holds all 8"),
        (
            '{"ranks": 8, "levels": [{"group_size": 3}, {"group_size": 4}, {"group_size": 8, "bytes_per_second": 1}]}',
            "the field levels[2].latency_seconds is missing",
        ),
        (
            '{"ranks": 12, "levels": [{"group_size": 4}, {"group_size": 6}, {"group_size": 12}]}',
            "the profile h100-sxm has no link for this level, give one",
        ),
        (
            '{"ranks": 12, "levels": [{"group_size": 4}, {"group_size": 6},'
            ' {"group_size": 12, "latency_seconds": 0, "bytes_per_second": 1}]}',
            "level 1 has groups of 6 ranks around groups of 4; a group holds whole groups of the level below",
        ),
        (
            '{"ranks": 4, "levels": [{"group_size": 4, "latency_seconds": 0, "bytes_per_second": 1, "cards": 2}]}',
            "level 0 has 2 cards of 0 bytes per second; give both, or neither",
        ),
        ('{"ranks": 8, "ranks_per_node": 2, "levels": [{"group_size": 8}]}', "the first level has groups of 8"),
    ],
)
def test_bad_topologies(evenspan: Run, tmp_path: Path, topology: str, message: str) -> None:
    (tmp_path / "topology.json").write_text(topology)
    got = refused(evenspan, "--lengths", "-", "--topology", "topology.json")
    assert got.startswith("evenspan simulate: [topology] ") or "there are 0 ranks" in got
    assert message in got


def test_cards_take_memory_by_the_ranks_that_use_them(evenspan: Run, tmp_path: Path) -> None:
    steps = []
    for cards in (2, 10**7):
        link = {"latency_seconds": 2e-5, "bytes_per_second": 1e9, "cards": cards, "card_bytes_per_second": 1e8}
        levels = [{"group_size": 2}, {"group_size": 8, **link}]
        (tmp_path / "cards.json").write_text(json.dumps({"ranks": 8, "levels": levels}))
        done = evenspan(
            "simulate", "--lengths", "-", "--topology", "cards.json", "--strategy", "usp", stdin="5000\n300\n"
        )
        assert done.returncode == 0, done.stderr
        steps.append(done.stdout)
    assert steps[0] == steps[1]  # a card for each rank of a group of two


def spoil(change: Callable[[dict], object]) -> str:
    profile = copy.deepcopy(json.loads((ROOT / "profiles" / "flexsp-7b.json").read_text()))
    change(profile)
    return json.dumps(profile)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.pop("name"), "the field name is missing"),
        (lambda p: p.update(link=[]), "has a field \"link\" that means nothing here; did you mean 'links'?"),
        (lambda p: p["attention"][0].update(queries=[0]), "queries has 0 after 0; the points of the grid"),
        (lambda p: p["attention"][0].update(dtypes=["fp8"]), 'element type is "fp8"'),
        (lambda p: p["attention"][1]["forward"].update(seconds=[[1], [2]]), "forward has 2 times for a grid of 1 x 1"),
        (lambda p: p["attention"][1]["forward"].update(seconds=[[1], [2, 3]]), "it is a list of equally long rows"),
        (lambda p: p["attention"][1].pop("tile"), "the field attention[1].tile is missing"),
        (lambda p: p["links"][1].update(bytes_per_second="fast"), "links[1].bytes_per_second is"),
        (lambda p: p.update(links=p["links"][:1]), "need 2 levels of links, the profile flexsp-7b has 1"),
        (lambda p: p.update(forward_flops_per_second=0), "a rate from 0.001 to 1e+21 a second"),
        (lambda p: p["links"][1].update(bytes_per_second=1e-308), "level 1 has a latency of"),
        (lambda p: p["links"][1].update(latency_seconds=1e308), "a time is 0 or from 1e-18 to 1e+06 s"),
        (lambda p: p["attention"][0].update(tile=2**62), "each is at least 1, and at most 1048576"),
        (lambda p: p["attention"][0].update(tile=2**63), "it is a whole number below 2^63"),
    ],
)
def test_bad_profiles(evenspan: Run, tmp_path: Path, change: Callable[[dict], object], message: str) -> None:
    (tmp_path / "profile.json").write_text(spoil(change))
    assert message in refused(evenspan, "--lengths", "-", "--ranks", 16, "--profile", "profile.json")


def test_the_windows_of_a_model_are_simulated(evenspan: Run, tmp_path: Path) -> None:
    def run(change: dict, *words: object) -> dict:
        (tmp_path / "config.json").write_text(json.dumps({**LLAMA_8B, **change}))
        words = ("--ranks", 16, "--strategy", "auto", "--model", "config.json", "--json", "out.json", *words)
        done = evenspan("simulate", "--lengths", "-", *words, stdin="60000\n20000\n9000\n700\n")
        assert done.returncode == 0, done.stderr
        return json.loads((tmp_path / "out.json").read_text())

    def step(got: dict) -> float:
        return got["strategies"][0]["step_seconds"]

    mistral = {"model_type": "mistral", "sliding_window": 4096}
    every = run(mistral)
    none = run({"model_type": "mistral", "sliding_window": None})
    some = run({"sliding_window": 4096, "layer_types": ["full_attention", "sliding_attention"] * 16})
    assert step(every) < step(some) < step(none)
    assert every["window_layers"] == [{"layers": 32, "window": 4096}]
    assert "windows" not in every["strategies"][0]  # all layers have the plan of the window
    assert step(run({**mistral, "sliding_window": None}, "--mask", "window:4096")) == step(every)
    assert step(run(mistral, "--mask", "window:100")) < step(every)
    (narrow,) = some["strategies"][0]["windows"]
    assert narrow["layers"] == 16
    assert narrow["forward"]["makespan_seconds"] < some["strategies"][0]["forward"]["makespan_seconds"]
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA_8B, **mistral}))
    words = ["--lengths", "-", "--strategy", "ring", "--model", "config.json"]
    assert "document 0 has the mask full" in refused(evenspan, *words, "--ranks", 2, "--mask", "full")
    assert "window" in refused(evenspan, *words, "--ranks", 65)


def test_a_language_model_beside_others_is_said_to_be_one(evenspan: Run, tmp_path: Path) -> None:
    nested = {"model_type": "of_images", "text_config": {**LLAMA_8B, "model_type": "llama"}, "vision_config": {"a": 1}}
    (tmp_path / "config.json").write_text(json.dumps(nested))
    done = evenspan("simulate", "--lengths", "-", "--ranks", 2, "--model", "config.json", stdin="500\n")
    assert done.returncode == 0, done.stderr
    assert "note: the language model of config.json alone is weighed, without vision_config" in done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": None}, "[model config] config.json: the field hidden_size is missing"),
        ({"num_attention_heads": 0}, "num_attention_heads is"),
        ({"num_hidden_layers": 0}, "the model has 0 layers"),
        ({"num_key_value_heads": 5}, "it divides the 32 query heads"),
        ({"head_dim": 72}, "h100-sxm has no attention times of head dimension 72"),
        ({"intermediate_size": "big"}, "it is a whole number"),
    ],
)
def test_bad_models(evenspan: Run, tmp_path: Path, change: dict, message: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA_8B, **change}))
    assert message in refused(evenspan, "--lengths", "-", "--ranks", 2, "--model", "config.json")


def test_a_lengths_file_with_text_in_it(evenspan: Run) -> None:
    assert 'line 2 holds "abc"' in refused(evenspan, "--lengths", "-", "--ranks", 2, stdin="5\nabc\n")
