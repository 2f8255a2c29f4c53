"""The Context in one process: steps of several batches, what is refused, and how a model is let go."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import evenspan
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers

BATCHES = [[[1, 2, 3, 4], [5, 6]], [[7, 8, 9]], [[3], [1, 2]], [[4, 4, 4, 4, 4]]]
REFUSED = evenspan.InvalidArgumentError


def llama() -> Any:
    torch.manual_seed(2)
    config = transformers.LlamaConfig(
        vocab_size=11, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, pad_token_id=0, initializer_range=0.3,
    )  # fmt: skip
    return transformers.AutoModelForCausalLM.from_config(config).double()


def with_windows() -> Any:
    torch.manual_seed(2)
    config = transformers.MistralConfig(
        vocab_size=11, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, pad_token_id=0, initializer_range=0.3, sliding_window=3,
    )  # fmt: skip
    return transformers.AutoModelForCausalLM.from_config(config).double()


@pytest.fixture
def profile(write_profile: Callable[..., Path]) -> Path:
    """A machine whose kernels were measured for the heads of llama()."""
    return write_profile(8, "f64")


def alone(model: Any, documents: list[list[int]]) -> tuple[torch.Tensor, int]:
    """The sum of the losses of documents one by one, and how many there are."""
    losses = [
        F.cross_entropy(
            model(input_ids=torch.tensor([d])).logits[0, :-1], torch.tensor(d[1:], dtype=torch.int64), reduction="sum"
        )
        for d in documents
    ]
    return torch.stack(losses).sum(), sum(len(d) - 1 for d in documents)


def gradients(model: Any) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def train(
    context: evenspan.Context, model: Any, accumulate: int | None = None, batches: Any = BATCHES, **options: Any
) -> Iterator[float]:
    """Trains, and yields the loss of each step, with its gradients in place."""
    for batch in context.shard(batches, accumulate, **options):
        context.loss(model(**batch)).backward()
        if context.step_ends:
            context.reduce_gradients()
            yield context.mean_loss()
            model.zero_grad()


@pytest.mark.parametrize("accumulate", [1, 2, 3, 4, 9])
def test_the_batches_of_a_step_have_one_loss(accumulate: int) -> None:
    reference, model = llama(), llama()
    expected = []
    for first in range(0, len(BATCHES), accumulate):
        reference.zero_grad()
        total, count = alone(reference, [d for batch in BATCHES[first : first + accumulate] for d in batch])
        (total / count).backward()
        expected.append((float(total.detach()) / count, gradients(reference)))
    with evenspan.attach(model) as context:
        found = [(loss, gradients(model)) for loss in train(context, model, accumulate)]
    assert len(found) == len(expected)
    for (loss, gradient), (right, right_gradient) in zip(found, expected, strict=True):
        assert loss == pytest.approx(right, rel=1e-6)  # transformers rounds norms and rotary angles to float32
        torch.testing.assert_close(gradient, right_gradient, rtol=0, atol=2e-6)


def steps_of(model: Any, steps: list[list[list[list[int]]]]) -> list[tuple[float, torch.Tensor]]:
    """The loss and gradients of steps of some batches each, document by document."""
    expected = []
    for step in steps:
        model.zero_grad()
        total, count = alone(model, [d for batch in step for d in batch])
        (total / count).backward()
        expected.append((float(total.detach()) / count, gradients(model)))
    return expected


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"global_batch_tokens": 7}, [BATCHES[:1], BATCHES[1:3], BATCHES[3:]]),
        ({"global_batch_tokens": 100}, [BATCHES]),
        ({"accumulate": 3, "micro_batch_tokens": 5}, [BATCHES[:3], BATCHES[3:]]),
        ({"accumulate": 4, "micro_batch_tokens": 6, "batch_planner": "wlb"}, [BATCHES]),
        ({"global_batch_tokens": 9, "micro_batch_tokens": 8}, [BATCHES[:2], BATCHES[2:]]),
        ({"micro_batch_tokens": 5}, [[batch] for batch in BATCHES]),
    ],
    ids=str,
)
def test_micro_batches_of_a_step_have_its_loss(options: dict[str, Any], steps: Any, profile: Path) -> None:
    model = llama()
    expected = steps_of(llama(), steps)
    with evenspan.attach(model, profile=profile) as context:
        most = options.get("micro_batch_tokens", 100)
        assert all(batch["input_ids"].numel() <= most for batch in context.shard(BATCHES, **options))
        found = [(loss, gradients(model)) for loss in train(context, model, **options)]
    assert len(found) == len(expected)
    for (loss, gradient), (right, right_gradient) in zip(found, expected, strict=True):
        assert loss == pytest.approx(right, rel=1e-6)  # transformers rounds norms and rotary angles to float32
        torch.testing.assert_close(gradient, right_gradient, rtol=0, atol=2e-6)


def test_weights_go_with_their_documents(profile: Path) -> None:
    ids = torch.tensor([[1, 2, 3, 4, 5, 6, 7]])
    weighed = {"input_ids": ids, "documents": [4, 3], "loss_weights": torch.tensor([[0.0, 2.0, 0, 0.5, 1, 3, 0.25]])}
    plain = {"input_ids": [[8, 9, 10]]}
    losses = []
    for options in ({"accumulate": 2}, {"accumulate": 2, "micro_batch_tokens": 4}):
        model = llama()
        with evenspan.attach(model, profile=profile) as context:
            (loss,) = train(context, model, batches=[weighed, plain], **options)
            losses.append(loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"accumulate": 2, "global_batch_tokens": 9}, "give one of them"),
        ({"global_batch_tokens": 5}, "it has 6, and global_batch_tokens is 5; raise that"),
        ({"global_batch_tokens": 0}, "global_batch_tokens must be a whole number of tokens, at least 1"),
        ({"accumulate": 2, "micro_batch_tokens": 3}, "document 0 has 4 tokens and a micro-batch holds 3"),
        ({"micro_batch_tokens": 9, "batch_planner": "flexsp"}, "a solver that a clock stops"),
        ({"micro_batch_tokens": 9, "batch_planner": "atuo"}, "auto"),
        ({"batch_planner": "static"}, "must be left out without micro_batch_tokens"),
    ],
    ids=str,
)
def test_steps_that_cannot_be_are_refused(options: dict[str, Any], text: str, profile: Path) -> None:
    with pytest.raises(evenspan.Error, match=text):
        list(evenspan.attach(llama(), profile=profile).shard(BATCHES, **options))


def test_numbers_may_be_of_other_libraries() -> None:
    options = {"accumulate": np.int64(4), "micro_batch_tokens": torch.tensor(5)}
    plain = {"accumulate": 4, "micro_batch_tokens": 5}
    found = [
        [batch["input_ids"].tolist() for batch in evenspan.attach(llama()).shard(BATCHES, **given)]
        for given in (options, plain)
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", ["llama", "windows"])
def test_micro_batches_need_no_profile(kind: str) -> None:
    """Without one they are cut by operations; layers with windows see less of a document."""

    def made() -> Any:
        return llama() if kind == "llama" else with_windows()

    model = made()
    expected = steps_of(made(), [BATCHES])
    with evenspan.attach(model) as context:
        options = {"accumulate": 4, "micro_batch_tokens": 5}
        assert all(batch["input_ids"].numel() <= 5 for batch in context.shard(BATCHES, **options))
        found = [(loss, gradients(model)) for loss in train(context, model, **options)]
    assert found[0][0] == pytest.approx(expected[0][0], rel=1e-6)  # transformers rounds norms and angles to float32
    torch.testing.assert_close(found[0][1], expected[0][1], rtol=0, atol=2e-6)


def test_labels_weigh_what_they_are_given() -> None:
    ids, weights = torch.tensor([[1, 2, 3, 4, 5]]), torch.tensor([[0.0, 2.0, 0.0, 0.5, 1.0]])
    reference, model = llama(), llama()
    each = F.cross_entropy(reference(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none")
    total = (each * weights[0, 1:]).sum() / weights[0, 1:].sum()
    total.backward()
    halves = [{"input_ids": ids, "loss_weights": weights}, {"input_ids": ids, "loss_weights": weights * 3}]
    with evenspan.attach(model) as context:
        (loss,) = train(context, model, 1, halves[:1])
        assert loss == pytest.approx(float(total.detach()), rel=1e-6)
        (loss,) = [(x, gradients(model)) for x in train(context, model, 2, halves)]
        assert loss[0] == pytest.approx(float(total.detach()), rel=1e-6)  # the same mean, of both batches
        torch.testing.assert_close(loss[1], gradients(reference), rtol=0, atol=2e-6)
        assert context.evaluate(halves) == pytest.approx(float(total.detach()), rel=1e-6)
        model.zero_grad()
        nothing = {"input_ids": ids, "loss_weights": weights * 0}
        assert [(x, float(gradients(model).abs().max())) for x in train(context, model, 1, [nothing])] == [(0, 0)]


def test_two_batches_in_hand() -> None:
    """The loss of outputs takes the labels of their batch, whichever ran or was yielded last."""
    model = llama()
    first, second = [[1, 2, 3, 4]], [[5, 6, 7, 8]]
    right = [float(total.detach()) / count for total, count in (alone(model, first), alone(model, second))]
    context = evenspan.attach(model)
    a, b = list(context.shard([first, second]))
    outputs = [model(**b), model(**a)]
    assert [float(context.loss(x).detach()) for x in reversed(outputs)] == pytest.approx(right, rel=1e-6)
    with torch.no_grad():
        outputs = [model(**b), model(**a)]
        assert [float(context.loss(x)) for x in reversed(outputs)] == pytest.approx(right, rel=1e-6)
        with pytest.raises(REFUSED, match=r"loss\(outputs, batch\)"):
            context.loss(outputs[0].logits * 1)
        assert float(context.loss(outputs[0].logits * 1, b)) == pytest.approx(right[1], rel=1e-6)
        with pytest.raises(REFUSED, match="another batch's"):
            context.loss(outputs[0], a)
    (again,) = context.shard([first])  # logits that were computed from the model's lead back to them
    assert float(context.loss(model(**again).logits.double() * 1).detach()) == pytest.approx(right[0], rel=1e-6)


def test_gradients_are_reduced_once_a_step() -> None:
    model = llama()
    context = evenspan.attach(model)
    with pytest.raises(REFUSED, match="there must be gradients to reduce, no loss ran"):
        context.reduce_gradients()
    with pytest.raises(REFUSED, match=r"at step 2 the parameters hold those of step 1; .*accumulate=n"):
        for batch in context.shard(BATCHES):  # reduced after each batch, and never zeroed
            (context.loss(model(**batch)) / 2).backward()
            context.reduce_gradients()
    with pytest.raises(REFUSED, match="those of step 1 are reduced already"):
        context.reduce_gradients()
    model.zero_grad()
    with pytest.raises(REFUSED, match="the gradients of step 3 must be reduced before the backward of step 4"):
        for batch in context.shard(BATCHES):
            context.loss(model(**batch)).backward()
    model.zero_grad(set_to_none=False)  # a step that is given up; zeros are no gradients
    with pytest.raises(REFUSED, match=r"of the 3 of step 5 1 did; call it where step_ends"):
        for batch in context.shard(BATCHES, accumulate=3):
            context.loss(model(**batch)).backward()
            assert not context.step_ends
            context.reduce_gradients()
    model.zero_grad()
    with pytest.raises(REFUSED, match=r"the gradients of the 1 batches of step 6 that ran are gone"):
        for batch in context.shard(BATCHES, accumulate=2):
            context.loss(model(**batch)).backward()
            model.zero_grad()
    first, second = context.shard(BATCHES[:1]), context.shard(BATCHES[:1])
    context.loss(model(**next(first))).backward()
    with pytest.raises(REFUSED, match="the parameters hold those of"):  # two loops at once
        context.loss(model(**next(second))).backward()


def test_the_optimizer_waits_for_reduced_gradients() -> None:
    model, other = llama(), torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    context = evenspan.attach(model)
    batches = context.shard(BATCHES, accumulate=2)
    for ran in (1, 2):
        context.loss(model(**next(batches))).backward()
        with pytest.raises(REFUSED, match=rf"step 1 are not reduced, of its 2 batches {ran} ran"):
            optimizer.step()
        torch.optim.SGD(other.parameters(), lr=0.1).step()
    context.reduce_gradients()
    optimizer.step()
    optimizer.zero_grad()
    context.detach()
    optimizer.step()  # a detached model is its owner's


@pytest.mark.parametrize("to_none", [True, False])
def test_a_model_that_is_detached_in_the_middle_of_a_step(to_none: bool) -> None:
    """Its gradients are this rank's part of a sum, which an optimizer once used without a word."""
    model, prompt = llama(), torch.tensor([[1, 2, 3]])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    start = model.lm_head.weight.detach().clone()
    text = r"step {} are not reduced, of its 2 batches 1 ran before the model was detached; end a step .* zero_grad\(\)"
    with evenspan.attach(model) as context:
        batches = context.shard(BATCHES, accumulate=2)
        context.loss(model(**next(batches))).backward()
        with context.detached():
            model.generate(prompt, max_new_tokens=2)
            with pytest.raises(REFUSED, match=text.format(1)):
                optimizer.step()
        context.loss(model(**next(batches))).backward()  # the step goes on
        context.reduce_gradients()
        with context.detached():
            optimizer.step()  # its gradients are whole
        optimizer.zero_grad(set_to_none=to_none)
        assert not torch.equal(start, model.lm_head.weight)
        context.loss(model(**next(batches))).backward()  # and the loop ends too early
    del context, batches
    gc.collect()
    with pytest.raises(REFUSED, match=text.format(2)):
        optimizer.step()
    context = evenspan.attach(model)  # which does not make them right
    with pytest.raises(REFUSED, match=text.format(2)):
        optimizer.step()
    optimizer.zero_grad(set_to_none=to_none)
    optimizer.step()  # nothing is left of them
    for _ in train(context, model, accumulate=2):
        optimizer.step()
    optimizer.zero_grad(set_to_none=to_none)
    context.detach()
    model(input_ids=prompt, labels=prompt).loss.backward()  # of the model's owner
    optimizer.step()


def test_gradients_of_a_detached_model_are_its_owners() -> None:
    model, prompt = llama(), torch.tensor([[1, 2, 3]])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with evenspan.attach(model) as context:
        context.loss(model(**next(context.shard(BATCHES, accumulate=2)))).backward()
        with context.detached():  # the step is dropped
            optimizer.zero_grad()
            model(input_ids=prompt, labels=prompt).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        for _ in train(context, model, accumulate=2):
            optimizer.step()
        context.loss(model(**next(context.shard(BATCHES, accumulate=2)))).backward()
    optimizer.zero_grad()
    for _ in range(2):
        model(input_ids=prompt, labels=prompt).loss.backward()
        optimizer.step()


def test_nothing_watches_optimizers_of_detached_models() -> None:
    from torch.optim.optimizer import _global_optimizer_pre_hooks as hooks

    gc.collect()
    before = len(hooks)
    model = llama()
    context = evenspan.attach(model)
    with context.detached():
        assert len(hooks) == before
    assert len(hooks) == before + 1
    assert len(list(train(context, model, accumulate=2))) == 2
    context.detach()
    assert len(hooks) == before
    context = evenspan.attach(model)
    context.loss(model(**next(context.shard(BATCHES)))).backward()
    context.detach()
    assert len(hooks) == before + 1
    del model, context
    gc.collect()
    assert len(hooks) == before


def test_a_loss_is_taken_once() -> None:
    model = llama()
    context = evenspan.attach(model)
    batches = context.shard(BATCHES, accumulate=2)
    with pytest.raises(REFUSED, match="losses of all batches of a step must have been taken, none was"):
        context.mean_loss()
    outputs = model(**next(batches))
    context.loss(outputs)
    with pytest.raises(REFUSED, match="the loss of a batch must be taken once, that of batch 1 of step 1"):
        context.loss(outputs)
    with pytest.raises(REFUSED, match="1 of 2 were"):
        context.mean_loss()
    for wrong, text in ((torch.zeros(1, 3, 11), "must be what the attached model returned"), (3, "they are a int")):
        with pytest.raises(REFUSED, match=text):
            context.loss(wrong)
    with pytest.raises(REFUSED, match="logits must be"):
        context.loss(outputs.logits[:, :-1])


@pytest.mark.parametrize("divisor", [1, 2, 3])
def test_a_loss_that_is_divided_once_more(divisor: int, recwarn: pytest.WarningsRecorder) -> None:
    """As accelerate's backward does with its own count of accumulated batches."""
    model = llama()
    context = evenspan.attach(model)
    for batch in context.shard(BATCHES, accumulate=2):
        (context.loss(model(**batch)) / divisor).backward()
        if context.step_ends:
            context.reduce_gradients()
            model.zero_grad()
    told = [str(warning.message) for warning in recwarn if "multiplied by 1/2 as well" in str(warning.message)]
    assert len(told) == (divisor == 2)


@pytest.mark.parametrize("accumulate", [0, -1, 1.5, True])
def test_accumulate_is_a_number_of_batches(accumulate: Any) -> None:
    with pytest.raises(REFUSED, match="accumulate must be a whole number"):
        next(evenspan.attach(llama()).shard(BATCHES, accumulate=accumulate))


def test_what_a_loader_must_be() -> None:
    context = evenspan.attach(llama())
    for wrong in ({"input_ids": [[1, 2]]}, 3):
        with pytest.raises(REFUSED, match=r"one batch is shard\(\[batch\]\)"):
            next(context.shard(wrong))


def test_num_items_in_batch_is_that_of_the_step() -> None:
    context = evenspan.attach(llama())
    right = [{"input_ids": [[1, 2, 3]], "num_items_in_batch": torch.tensor(3)}, {"input_ids": [[1, 2]]}]
    assert len(list(context.shard(right, accumulate=2))) == 2
    with pytest.raises(REFUSED, match="num_items_in_batch must be the 2 labels of the step's 1 batches, it is 3"):
        list(context.shard(right))


def test_a_step_is_taken_from_the_loader_while_the_one_before_runs() -> None:
    taken = 0

    def loader() -> Iterator[list[list[int]]]:
        nonlocal taken
        for taken in range(1, 8):
            yield [[taken, 2, 3]]

    context = evenspan.attach(llama())
    assert [taken for _ in context.shard(loader(), accumulate=3)] == [4, 5, 6, 7, 7, 7, 7]


def test_a_model_is_let_go() -> None:
    model = llama()
    prompt = torch.tensor([[1, 2, 3]])
    expected = model.generate(prompt, max_new_tokens=4, do_sample=False)
    with evenspan.attach(model) as context:
        (batch,) = context.shard([[[1, 2, 3]]])
        for call in (lambda: model(input_ids=prompt), lambda: model.generate(prompt, max_new_tokens=4)):
            with pytest.raises(REFUSED, match=r"with context\.detached\(\)"):
                call()
        with context.detached():
            assert torch.equal(model.generate(prompt, max_new_tokens=4, do_sample=False), expected)
            with pytest.raises(REFUSED, match=r"\[loss\] the model must be attached, it was detached"):
                context.loss(model(**batch))
        context.loss(model(**batch))
    assert torch.equal(model.generate(prompt, max_new_tokens=4, do_sample=False), expected)
    assert not model._forward_hooks and not model._forward_pre_hooks
    assert model.config._attn_implementation == "sdpa"
    for call in (context.detach, context.reduce_gradients, lambda: list(context.shard(BATCHES))):
        with pytest.raises(REFUSED, match="the model must be attached, it was detached"):
            call()


def test_the_last_attach_holds() -> None:
    """As a notebook's cell that is run again."""
    model = llama()
    first = evenspan.attach(model)
    (old,) = first.shard([[[1, 2, 3]]])
    second = evenspan.attach(model)
    with pytest.raises(REFUSED, match="attached by another context since"):
        first.evaluate(BATCHES)
    with pytest.raises(REFUSED, match="this one comes from another"):
        model(**old)
    assert second.evaluate(BATCHES) > 0
    second.detach()
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"position_ids": None}, "its position_ids are missing"),
        ({"attention_mask": torch.ones(1, 3, dtype=torch.int64)}, "it has attention_mask besides"),
        ({"labels": torch.tensor([[1, 2, 3]])}, "it has labels besides; .* use Context.loss"),
    ],
)
def test_a_batch_is_given_whole_and_as_it_is(changes: dict[str, Any], text: str) -> None:
    model = llama()
    context = evenspan.attach(model)
    (batch,) = context.shard([[[1, 2], [3]]])
    with pytest.raises(REFUSED, match=text):
        model(**{**batch, **changes})
    context.loss(model(**batch)).backward()  # the right call goes on


def test_copies_and_forgotten_contexts() -> None:
    model = llama()
    context = evenspan.attach(model)
    (batch,) = context.shard([[[1, 2, 3]]])
    twin = copy.deepcopy(model)
    with pytest.raises(REFUSED, match="a copy of an attached model"):
        twin(**batch)
    with evenspan.attach(twin) as other:  # its hooks are its own, once each
        assert next(train(other, twin, accumulate=2)) > 0
    assert twin(input_ids=torch.tensor([[1, 2]])).logits.shape == (1, 2, 11)
    assert vars(twin).keys() == vars(llama()).keys()
    assert next(train(context, model, accumulate=2)) > 0
    del context
    gc.collect()
    with pytest.raises(REFUSED, match="one whose Context is gone"):
        model(**batch)
    model.set_attn_implementation("sdpa")  # whoever sets it back has the model
    assert model(input_ids=torch.tensor([[1, 2]])).logits.shape == (1, 2, 11)
    assert evenspan.attach(model).evaluate(BATCHES) > 0


def test_evaluation_stands_inside_training() -> None:
    model = llama()
    total, count = alone(model, [d for batch in BATCHES for d in batch])
    with evenspan.attach(model) as context:
        for batch in context.shard(BATCHES, accumulate=2):
            context.loss(model(**batch)).backward()
            ended = context.step_ends
            step_loss = context.mean_loss() if ended else None
            assert context.evaluate(BATCHES) == pytest.approx(float(total.detach()) / count, rel=1e-6)
            assert context.step_ends == ended and model.training
            if ended:
                assert context.mean_loss() == step_loss
                context.reduce_gradients()
                model.zero_grad()
        with pytest.raises(REFUSED, match="must have labels that count, 1 batches have none"):
            context.evaluate([[[1]]])


def test_models_that_are_none() -> None:
    with pytest.raises(REFUSED, match="one of transformers, it is a Linear"):
        evenspan.attach(torch.nn.Linear(2, 2))
    with pytest.raises(evenspan.UnsupportedError, match="DataParallel"):
        evenspan.attach(torch.nn.DataParallel(llama()))
    with pytest.raises(REFUSED, match="average must be True or False"):
        evenspan.attach(llama(), average="ddp")
