"""An exception in the caller's code on one rank reaches the others over Gloo, long before their time-out of 300 s."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import evenspan
import torch
import torch.distributed as dist
import transformers
from groups import free_port, results, run_ranks

PROMPT_SECONDS = 60.0
PLACES = ("loader", "forward", "body")


def fail_at(place: str) -> str:
    """What this rank hears when rank 1 fails in the second step; every place has a group of its own."""
    group = dist.new_group(list(range(dist.get_world_size())))
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.LlamaConfig(
            vocab_size=11, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
        )
    )
    step = 0

    def fail(where: str) -> None:
        if (where, step, dist.get_rank()) == (place, 2, 1):
            raise ValueError(f"bad {where}")

    def loader() -> Iterator[list[list[int]]]:
        nonlocal step
        for step in (1, 2, 3):  # noqa: B007
            fail("loader")
            yield [list(range(10)), [3, 4, 5]]

    model.register_forward_pre_hook(lambda *_: fail("forward"))
    try:
        with evenspan.attach(model, group, strategy="ring") as context:
            for batch in context.shard(loader()):
                loss = context.loss(model(**batch))
                loss.backward()
                fail("body")
                context.reduce_gradients()
    except (evenspan.CommunicationError, ValueError) as error:
        return f"step {step}: {error}"
    return "no error"


def fail_everywhere() -> list[tuple[str, float]]:
    heard = []
    for place in PLACES:
        start = time.monotonic()
        heard.append((fail_at(place), time.monotonic() - start))
    return heard


def test_the_other_ranks_hear_of_an_exception() -> None:
    outcomes = results(run_ranks(3, fail_everywhere))
    for i, place in enumerate(PLACES):
        for rank in range(3):
            text, seconds = outcomes[rank][i]
            assert seconds < PROMPT_SECONDS
            if rank == 1:
                assert text == f"step 2: bad {place}"
            else:
                assert f'rank 1 failed in "the caller\'s code": ValueError: bad {place}' in text


PROGRAM = """
import evenspan, torch, torch.distributed as dist

dist.init_process_group("gloo")
plan = evenspan.plan([40], 2, heads=2, head_dim=8, dtype="f32", strategy="ring")
handle = evenspan.bind(plan)
if dist.get_rank() == 1:
    raise ValueError("lost")
q = torch.zeros(plan.tokens[0], 2, 8)
evenspan.attention(q, q, q, plan)
"""


def test_the_other_ranks_hear_of_an_exception_that_ends_the_process(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    port = free_port()
    ranks = []
    for rank in range(2):
        place = {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", **{name: str(x) for name, x in place.items()}}
        ranks.append(subprocess.Popen([sys.executable, program], env=environment, stderr=subprocess.PIPE, text=True))
    errors = [rank.communicate(timeout=120)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [1, 1], errors
    assert "CommunicationError: " in errors[0]
    assert 'rank 1 failed in "the caller\'s code": ValueError: lost' in errors[0]
    assert "ValueError: lost" in errors[1]
