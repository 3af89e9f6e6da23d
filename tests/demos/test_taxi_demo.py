from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pa_demos.taxi.agent import build_agent, first_messages, shown
from pa_demos.taxi.environment import (
    ACTION_COUNT,
    ACTIONS,
    HORIZON,
    MALFORMED,
    STATE_COUNT,
    Taxi,
    active_states,
    goal,
    observation,
)
from pa_demos.taxi.episode import RULES, THRESHOLD, Episode, StepNote, run_episode
from pa_demos.taxi.exact import soft_optimum
from pa_demos.taxi.oracle import ExactScorer
from pa_demos.taxi.prompt import ACTION_MESSAGES, window
from pa_demos.taxi.show import comparison, next_steps, results
from pa_demos.taxi.summary import overhead_ratio, summarise
from rich.console import Console, RenderableType

from pa_middleware import Guard, Step, record
from pa_middleware.tracing import read
from pa_middleware.tracing.runs import Run

SEEDS = range(40, 46)


@pytest.fixture(scope="module")
def unguarded() -> list[Episode]:
    return [run_episode("unguarded", seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Episode], list[Run]]:
    """Guarded episodes and what a trace says of them."""
    with record(tmp_path_factory.mktemp("traces")) as recording:
        episodes = [run_episode("guarded", seed, recording.tracer_provider) for seed in SEEDS]
    return episodes, read(recording.path)


def _random_reference() -> np.ndarray:
    random = np.random.default_rng(0)
    logits = random.normal(size=(STATE_COUNT, ACTION_COUNT))
    return np.asarray(logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True))


class _Repeats(BaseChatModel):
    """Answers the same whatever it is asked."""

    reply: AIMessage

    @property
    def _llm_type(self) -> str:
        return "repeats"

    def bind_tools(self, *args: Any, **kwargs: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self.reply.model_copy(update={"id": None}))])


def _call(name: str, identifier: str = "c1", **args: Any) -> dict[str, Any]:
    return {"name": name, "args": args, "id": identifier}


NO_LEGAL_CALLS = {
    "text": AIMessage("I drive north."),
    "invalid": AIMessage("", invalid_tool_calls=[{"name": None, "args": "{", "id": "c1", "error": "no JSON"}]),
    "no such tool": AIMessage("", tool_calls=[_call("fly")]),
    "no such direction": AIMessage("", tool_calls=[_call("move", direction="up")]),
    "an argument too many": AIMessage("", tool_calls=[_call("pickup", direction="north")]),
    "two calls": AIMessage("", tool_calls=[_call("pickup"), _call("dropoff", "c2")]),
}


@pytest.mark.parametrize("guarded", [False, True], ids=["unguarded", "guarded"])
@pytest.mark.parametrize("reply", NO_LEGAL_CALLS.values(), ids=NO_LEGAL_CALLS)
def test_an_action_that_is_no_legal_call_takes_a_step_in_which_nothing_happens(reply: AIMessage, guarded: bool) -> None:
    taxi = Taxi(3)
    start = taxi.state
    builder = build_agent(_Repeats(reply=reply), taxi)
    if guarded:
        Guard(ExactScorer(_random_reference()), RULES["guarded"], tools=taxi.tools(), history=shown).install(builder)
    state = builder.compile().invoke({"messages": first_messages(taxi)})
    assert (taxi.steps, taxi.state, taxi.success, taxi.done) == (HORIZON, start, False, True)
    actions = [message for message in state["messages"] if isinstance(message, AIMessage)]
    assert len(actions) == HORIZON
    answered = [message.tool_call_id for message in state["messages"] if message.type == "tool"]
    assert answered == [call["id"] for action in actions for call in action.tool_calls]


def test_shadow_changes_nothing_and_scores_every_step(unguarded: list[Episode]) -> None:
    for plain in unguarded[:2]:
        scored = run_episode("shadow", plain.seed)
        assert [(note.observation, note.action) for note in scored.notes] == [
            (note.observation, note.action) for note in plain.notes
        ]
        assert (scored.success, scored.steps, scored.draws) == (plain.success, plain.steps, plain.draws)
        assert all(note.score is not None and not note.rejected for note in scored.notes)


def test_an_unguarded_episode_is_not_scored(unguarded: list[Episode]) -> None:
    assert all(note.score is None and not note.decision for episode in unguarded for note in episode.notes)
    assert all(episode.scoring == 0 and episode.draws == episode.steps for episode in unguarded)


def test_a_low_draw_runs_only_if_no_draw_passed_and_it_is_the_best(
    traced: tuple[list[Episode], list[Run]],
) -> None:
    flagged = 0
    for note in (note for episode in traced[0] for note in episode.notes):
        assert note.score is not None
        rejected = [score for _, score in note.rejected]
        assert all(score is not None and score < THRESHOLD for score in rejected)
        assert note.decision == ("pass" if note.score >= THRESHOLD else "flag")
        if note.decision == "flag":
            flagged += 1
            assert len(rejected) == 3
            assert note.score == max([note.score, *(score for score in rejected if score is not None)])
    assert flagged


def test_rejected_draws_are_named_with_their_direction(traced: tuple[list[Episode], list[Run]]) -> None:
    names = {name for episode in traced[0] for note in episode.notes for name, _ in note.rejected}
    assert names <= {*(f"move {direction}" for direction in ACTIONS[:4]), *ACTIONS[4:], "(no readable call)"}
    assert len(names) >= 4


def test_guarded_delivers_more_often(unguarded: list[Episode], traced: tuple[list[Episode], list[Run]]) -> None:
    delivered = [sum(episode.success for episode in row) for row in (unguarded, traced[0])]
    assert delivered[1] >= delivered[0] + 3


def test_a_trace_holds_one_run_an_episode_and_a_score_for_each_step(traced: tuple[list[Episode], list[Run]]) -> None:
    episodes, runs = traced
    assert [run.conversation_id for run in runs] == [f"guarded-{seed}" for seed in SEEDS]
    for episode, run in zip(episodes, runs, strict=True):
        assert [step.score for step in run.steps] == [note.score for note in episode.notes]
        assert [step.decision for step in run.steps] == [note.decision for note in episode.notes]
        assert sum(len(step.candidates) for step in run.steps) == episode.draws


def test_the_exact_scorer_answers_the_soft_optimums_advantage() -> None:
    log_reference = _random_reference()
    scorer, advantage = ExactScorer(log_reference), soft_optimum(np.exp(log_reference)).advantage
    candidates = (*ACTION_MESSAGES, *NO_LEGAL_CALLS.values())
    for state in active_states()[::13].tolist():
        (scored,) = scorer.score([Step(window(goal(state), observation(state)), candidates)])
        expected = [*advantage[state, :MALFORMED], *[advantage[state, MALFORMED]] * len(NO_LEGAL_CALLS)]
        assert [candidate.score for candidate in scored.candidates] == pytest.approx(expected, abs=1e-12)


def _episode(row: Any = "guarded", **values: Any) -> Episode:
    notes = (
        StepNote("Taxi.", "move north", -10.25, "flag", (("move south", -11.5), ("pickup", -10.31), ("dropoff", None))),
        StepNote("Taxi.", "pickup", 0.5, "pass", ()),
    )
    plain: dict[str, Any] = {
        "row": row, "seed": 110_099, "success": True, "steps": 2, "draws": 5, "tokens": 40, "seconds": 12.5,
        "generating": 2.0, "scoring": 1.0, "goal": "Bring the passenger to Yellow.", "notes": notes,
    }  # fmt: skip
    return Episode(**plain | values)


def test_figures_of_a_row_are_means_of_its_episodes() -> None:
    summary = summarise([_episode(), _episode(success=False, steps=30, draws=35, tokens=100, seconds=0.5)])
    assert summary.as_dict() == {
        "episodes": 2, "success": 0.5, "interval": [0.0945, 0.9055], "steps": 16.0, "draws_per_step": 1.25,
        "tokens": 70.0, "seconds": 6.5,
    }  # fmt: skip


def test_overhead_is_scoring_against_drawing() -> None:
    assert overhead_ratio([_episode(), _episode(scoring=0.0, generating=1.0)]) == 0.3333


def _rendered(shown: RenderableType) -> str:
    out = io.StringIO()
    Console(file=out, width=80).print(shown)
    text = out.getvalue()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    return text


def test_the_results_fit_80_columns() -> None:
    rows: tuple[Any, ...] = ("unguarded", "guarded", "best_of_4", "oracle")
    done = {row: [_episode(row, tokens=1234, scoring=20.0)] * 12 for row in rows}
    text = _rendered(results(done, 12))
    cells = [line.split() for line in text.splitlines()]
    assert ["driver", "success", "95", "%", "steps", "draws", "tokens", "seconds", "overhead"] in cells
    assert ["unguarded", "1.00", "0.76-1.00", "2.0", "2.50", "1234", "12.50"] in cells
    assert ["guarded", "1.00", "0.76-1.00", "2.0", "2.50", "1234", "12.50", "+1000%"] in cells
    assert ["exact", "best", "of", "4", "1.00", "0.76-1.00", "2.0", "2.50", "1234", "12.50"] in cells
    assert "guarded: score >= -0.5, up to 4 draws, else the best of them, flagged\n" in text


def test_the_results_show_how_far_they_have_come() -> None:
    text = _rendered(results({"unguarded": [_episode("unguarded")], "guarded": []}, 3))
    assert "1/6" in text


def test_the_comparison_fits_80_columns() -> None:
    long = _episode("shadow", success=False, notes=_episode().notes * 15)
    lines = _rendered(comparison(long, _episode())).splitlines()
    first = next(at for at, line in enumerate(lines) if line.split()[:1] == ["1"])
    assert lines[first].split() == [
        "1",
        "move",
        "north",
        "-10.25",
        "move",
        "north",
        "-10.25",
        "move",
        "south",
        "-11.50",
    ]
    assert [line.strip() for line in lines[first + 1 : first + 2]] == ["pickup -10.31, dropoff"]
    assert lines[first + 2].split() == ["2", "pickup", "+0.50", "pickup", "+0.50"]


@pytest.mark.parametrize(("exact", "said"), [(0.9, "reaches 50%"), (0.1, None)])
def test_the_share_of_the_exact_gain_is_told_if_there_is_a_gain(exact: float, said: str | None) -> None:
    report = {"unguarded": {"success": 0.1}, "best_of_4": {"success": 0.5}, "oracle": {"success": exact}}
    text = _rendered(next_steps(report, seconds=3.2, json_path=Path("f.json")))
    assert (said in text) if said else ("reaches" not in text)
    assert "Figures: f.json\n3 seconds in all." in text
