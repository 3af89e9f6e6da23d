from __future__ import annotations

from collections.abc import Callable

import pytest
import templates
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from plain import embedded
from transformers import PreTrainedModel

from pa_middleware.scoring.batches import portions
from pa_middleware.scoring.pair import ModelPair
from pa_middleware.scoring.scorer import Step

Build = Callable[..., PreTrainedModel]
Ids = tuple[int, ...]
Sequences = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9).map(tuple), max_size=12)


def _new(before: Ids, ids: Ids) -> int:
    shared = 0
    while shared < min(len(before), len(ids)) and before[shared] == ids[shared]:
        shared += 1
    return len(ids) - shared


@given(Sequences, st.integers(0, 20))
def test_every_sequence_is_in_exactly_one_portion(sequences: list[Ids], tokens: int) -> None:
    together = portions(sequences, [0] * len(sequences), tokens=tokens)
    assert sorted(number for portion in together for number in portion) == list(range(len(sequences)))
    assert all(together)


@given(Sequences, st.integers(0, 20))
def test_a_portion_has_no_more_new_tokens_than_allowed_unless_it_is_one_sequence(
    sequences: list[Ids], tokens: int
) -> None:
    before: Ids = ()
    for portion in portions(sequences, [0] * len(sequences), tokens=tokens):
        new = 0
        for number in portion:
            new += _new(before, sequences[number])
            before = sequences[number]
        assert new <= tokens or len(portion) == 1


@given(Sequences)
def test_all_that_sequences_share_is_new_once(sequences: list[Ids]) -> None:
    order = [sequences[number] for portion in portions(sequences, [0] * len(sequences), tokens=5) for number in portion]
    new = sum(_new(before, ids) for before, ids in zip([(), *order], order, strict=False))
    assert new == len({ids[:length] for ids in sequences for length in range(1, len(ids) + 1)})


def test_a_bound_of_nothing_keeps_every_sequence_alone() -> None:
    assert portions([(1, 2), (1, 2), (1,), (3,)], [0] * 4, tokens=0) == [[2], [0], [1], [3]]


def test_candidates_take_room_in_a_portion_too() -> None:
    assert portions([(1, 2)] * 4, [4, 4, 4, 4], tokens=10) == [[0, 1], [2, 3]]


def test_the_steps_of_a_run_come_one_after_the_other() -> None:
    runs = [tuple(range(100 * run, 100 * run + 30)) for run in range(3)]
    mixed = [run[:length] for length in (10, 20, 30) for run in runs]
    order = [mixed[number] for portion in portions(mixed, [0] * len(mixed), tokens=25) for number in portion]
    assert order == [run[:length] for run in runs for length in (10, 20, 30)]


def _run(topic: str, turns: int) -> list[Step]:
    """The steps of one run, each with two candidates of which the first was executed."""
    history: list[BaseMessage] = [HumanMessage(f"Find a {topic}")]
    steps = []
    for turn in range(turns):
        action = AIMessage(f"I look {turn}.", tool_calls=[{"name": "search", "args": {"q": topic}, "id": f"c{turn}"}])
        steps.append(Step(list(history), [action, AIMessage("There are three.")]))
        history += [action, ToolMessage(f"three hotels {turn}", tool_call_id=f"c{turn}")]
    return steps


@pytest.mark.parametrize("repeatable", [False, True])
@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen3_5"])
def test_steps_scored_together_equal_each_alone(tiny: Build, architecture: str, repeatable: bool) -> None:
    tokenizer = templates.tokenizer("chatml")
    models = [tiny(architecture, len(tokenizer), seed=seed) for seed in (1, 2)]
    pair = ModelPair(models[0], models[1], tokenizer, repeatable=repeatable)
    steps = [step for both in zip(_run("hotel", 4), _run("map", 4), strict=True) for step in both]
    together = pair.score(steps)
    for step, score in zip(steps, together, strict=True):
        (alone,) = ModelPair(models[0], models[1], tokenizer, repeatable=repeatable).score([step])
        for one, other in zip(score.candidates, alone.candidates, strict=True):
            atol = 0 if repeatable and architecture != "qwen3_5" else 2e-4
            assert one.token_log_ratios == pytest.approx(other.token_log_ratios, abs=atol, rel=0)


def test_what_steps_share_is_forwarded_once(tiny: Build) -> None:
    tokenizer = templates.tokenizer("chatml")
    models = [tiny("llama", len(tokenizer), seed=seed) for seed in (1, 2)]
    seen = embedded(models[0])
    pair = ModelPair(models[0], models[1], tokenizer)
    steps = _run("hotel", 5) + _run("map", 3)
    rendered = [pair.renderer.render(step) for step in steps]
    sequences = [step.prompt + action.ids for step in rendered for action in step.actions]
    seen.clear()
    pair.score(steps)
    distinct = {ids[:length] for ids in sequences for length in range(1, len(ids) + 1)}
    assert sum(len(tokens) for tokens in seen) == len(distinct)
