from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import templates
from evaluation.made import HOTELS, same, several, trajectory
from plain import embedded
from transformers import PreTrainedModel

from pa_middleware.evaluation.live_pass import LivePass
from pa_middleware.evaluation.steps import steps_of
from pa_middleware.scoring.errors import ScoringError
from pa_middleware.scoring.pair import ModelPair

Build = Callable[..., PreTrainedModel]
BROKEN: tuple[dict[str, Any], ...] = (
    *HOTELS[:4],
    {"role": "assistant", "content": ""},
    {"role": "user", "content": "Well?"},
    {"role": "assistant", "content": "", "tool_calls": [{"name": "search", "arguments": "{hotel", "id": "b"}]},
    {"role": "user", "content": "Well?"},
    {"role": "assistant", "content": "again " * 300},
)


@pytest.fixture
def pair(tiny: Build) -> Callable[..., ModelPair]:
    tokenizer = templates.tokenizer("chatml")

    def build(architecture: str = "llama", **more: Any) -> ModelPair:
        policy, reference = (tiny(architecture, len(tokenizer), seed=seed) for seed in (1, 2))
        settings: dict[str, Any] = {"confidence": True, "overflow": "truncate", **more}
        return ModelPair(policy, reference, tokenizer, **settings)

    return build


@pytest.mark.parametrize("architecture", ["llama", "mistral"])
def test_every_action_is_stored_as_the_guard_would_have_scored_it(
    pair: Callable[..., ModelPair], architecture: str
) -> None:
    runs = [trajectory("0"), several(), trajectory("1", HOTELS[:5])]
    found = LivePass(pair(architecture))(runs)
    for run, stored in zip(runs, found, strict=True):
        assert (stored.id, stored.reward, stored.mistake_step) == (run.id, run.reward, run.mistake_step)
        assert stored.characters == tuple(len(message["content"]) for message in run.messages)
        assert [(step.index, step.agent) for step in stored.steps] == [(at, run.agent(at)) for at in run.actions]
        guard = pair(architecture)
        for step, given in zip(stored.steps, steps_of(run, "one conversation"), strict=True):
            (score,) = guard.score([given])[0].candidates
            assert score.confidence is not None
            for name, expected in (
                ("policy", score.token_log_probs),
                ("reference", score.reference_token_log_probs),
                ("top_mean", score.confidence.top_mean),
                ("entropy", score.confidence.entropy),
                ("self_certainty", score.confidence.self_certainty),
            ):
                values = getattr(step, name)
                assert values.dtype == np.float32
                np.testing.assert_allclose(values, expected, atol=2e-4, rtol=0)


def test_a_batch_gives_the_same_bits_whatever_was_scored_before(pair: Callable[..., ModelPair]) -> None:
    batch, other = [trajectory("0"), several()], [trajectory("2", HOTELS[:5])]
    first = LivePass(pair())
    one = first(batch)
    first(other)
    again = first(batch)
    assert all(map(same, one, again))


def test_what_the_runs_of_a_batch_share_is_forwarded_once(tiny: Build) -> None:
    tokenizer = templates.tokenizer("chatml")
    policy, reference = (tiny("llama", len(tokenizer), seed=seed) for seed in (1, 2))
    seen = embedded(policy)
    pair = ModelPair(policy, reference, tokenizer, confidence=True)
    runs = [trajectory("0"), trajectory("1", (*HOTELS[:4], {"role": "assistant", "content": "Here is one."}))]
    rendered = [pair.renderer.render(step) for run in runs for step in steps_of(run)]
    rows = [step.prompt + step.actions[0].ids for step in rendered]
    seen.clear()
    LivePass(pair)(runs)
    assert sum(map(len, seen)) == len({row[:length] for row in rows for length in range(1, len(row) + 1)})


def test_an_action_that_nothing_can_score_is_told_with_its_reason_and_its_neighbours_are_scored(
    pair: Callable[..., ModelPair],
) -> None:
    broken, whole = LivePass(pair(max_length=300))([trajectory("broken", BROKEN), trajectory("whole")])
    assert [step.unscored for step in broken.steps] == [
        "",
        "not scorable",
        "not scorable",
        "longer than the pair can read",
    ]
    assert not any(step.policy.size for step in broken.steps[1:])
    assert broken.steps[0].policy.size > 0
    assert [step.unscored for step in whole.steps] == ["", "", ""]


def test_an_action_whose_oldest_prompt_was_left_out_says_so(pair: Callable[..., ModelPair]) -> None:
    messages = ({"role": "user", "content": "Find a hotel. " * 60}, *HOTELS[2:])
    (run,) = LivePass(pair(max_length=300))([trajectory("0", messages)])
    assert all(step.truncated and step.policy.size for step in run.steps)


def test_a_run_without_actions_has_no_steps(pair: Callable[..., ModelPair]) -> None:
    none, some = LivePass(pair())([trajectory("0", HOTELS[:2]), trajectory("1")])
    assert (none.steps, len(some.steps)) == ((), 3)


def test_any_other_error_is_one_of_the_whole(pair: Callable[..., ModelPair], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise ScoringError("the model could not be run: no memory")

    broken = pair()
    monkeypatch.setattr(broken, "score", fail)
    with pytest.raises(ScoringError, match="no memory"):
        LivePass(broken)([trajectory("0")])


def test_a_pair_that_reads_no_confidence_is_refused(pair: Callable[..., ModelPair]) -> None:
    with pytest.raises(ValueError, match="make it with confidence=True"):
        LivePass(pair(confidence=False))([trajectory("0")])
