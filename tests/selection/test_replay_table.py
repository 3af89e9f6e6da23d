"""A replay for the terminal and as plain values, from runs made by hand."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from rich.cells import cell_len
from rich.console import Console

from pa_middleware.debugging.attribution import attribute
from pa_middleware.selection import Attempt, Confirmation, Ending, Replay, Trajectory
from pa_middleware.selection.replay_table import as_dict, render

HOSTILE = (
    "[red]mine[/red][link=http://x]\x1b[31m\x1b]0;owned\x07\x9b2J\u202ebackwards\u2066\u200b\n\r\t\x00"
    "[/] \ud800 " + "z" * 10_000
)


def _candidate(score: float | None, tokens: int | None, same_as: int | None = None) -> dict[str, Any]:
    return {"score": score, "tools": ["act"], "same_as": same_as, "output_tokens": tokens}


def _run(
    name: str,
    scores: Sequence[float | None],
    args: Sequence[dict[str, Any]] = (),
    *,
    tokens: int | None = 3,
    keeps: bool = True,
    tool: str = "act",
) -> Trajectory:
    """A run of one draw a step, which calls a tool each time."""
    given = [*args, *({"x": step} for step in range(len(args), len(scores)))]
    written = [
        AIMessage("", id=f"m{step}", tool_calls=[{"name": tool, "args": each, "id": f"c{step}"}])
        for step, each in enumerate(given)
    ]
    records = tuple(
        {
            "id": message.id,
            "score": score,
            "selected": 0,
            "calls": [{"name": tool, "id": message.tool_calls[0]["id"]}],
            "candidates": [_candidate(score, tokens)],
        }
        for message, score in zip(written, scores, strict=True)
    )
    return Trajectory(name, records, {"messages": written if keeps else []}, True)


def _replay(original: Trajectory, *runs: tuple[int, Trajectory, bool | None], succeeded: bool | None = False) -> Replay:
    attempts = tuple(Attempt(step, run.records[step], run, ended) for step, run, ended in runs)
    return Replay(original, succeeded, attribute(original.scores), attempts)


def _shown(replay: Replay, width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=True, color_system=None).print(render(replay))
    return out.getvalue()


def _words(replay: Replay) -> str:
    return " ".join(_shown(replay, 160).split())


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("where", ["arguments", "tool", "text", "thread", "gone"])
def test_untrusted_text_is_inert_cut_and_within_the_width_wherever_it_stands(width: int, where: str) -> None:
    name = HOSTILE if where == "thread" else "run"
    args: list[dict[str, Any]] = [{"x": 1}, {"q": HOSTILE, HOSTILE: 1}] if where == "arguments" else []
    tool = HOSTILE if where in ("tool", "gone") else "act"
    runs = [_run(name, [1.0, -5.0, 2.0], args, tool=tool, keeps=where != "gone") for _ in range(2)]
    for run in runs:
        run.records[1]["candidates"].append(_candidate(None, None) | {"tools": [tool]})
        if where == "text":
            run.values["messages"][1] = AIMessage(HOSTILE, id="m1")
    shown = _shown(_replay(runs[0], (1, runs[1], True)), width)
    assert [char for char in shown if not char.isprintable() and char != "\n"] == []
    assert max(map(cell_len, shown.splitlines())) <= width
    assert len(shown) < 10_000
    if width == 200 or where == "thread":
        assert "[red]mine[/red][link=http://x]" in shown
    for number in ("-5", "+2"):
        assert number in shown


@pytest.mark.parametrize("text", ["漢字かな交じり", "Straße — naïve", "مرحبا"])
def test_texts_of_other_scripts_stay_readable_and_within_the_width(text: str) -> None:
    run = _run("run", [1.0, -5.0], [{"x": 1}, {"q": text}])
    shown = _shown(_replay(run, (1, run, False)), 120)
    assert shown.count(text) == 4
    long = _run("run", [1.0], [{"q": text * 30}])
    assert max(map(cell_len, _shown(_replay(long, (0, long, False))).splitlines())) <= 80


def test_all_attempts_are_shown_in_turn_each_with_its_cost_from_the_fork_on() -> None:
    original = _run("run", [1.0, -5.0, -6.0, 2.0])
    first, second = _run("run/replay-2", [1.0, -5.0, 0.5]), _run("run/replay-1", [1.0, 4.0, 3.0, 2.0, 1.0])
    words = _words(_replay(original, (2, first, False), (1, second, True)))
    assert words.index("Drawn again at step 2") < words.index("Drawn again at step 1")
    for part in (
        "Run run: failed after 4 steps, 4 draws, 12 tokens.",
        "Step 2 taken otherwise: failed after 3 steps, thread run/replay-2. The replay took 1 draw, 3 tokens.",
        "Step 1 taken otherwise: succeeded after 5 steps, thread run/replay-1. The replay took 4 draws, 12 tokens.",
        "With step 1 taken otherwise, the failed run succeeds.",
        '4 act {"x": 4} +1 failed succeeded',  # a step that the original has not
    ):
        assert part in words


@pytest.mark.parametrize(("finished", "told"), [(True, "succeeded after 2 steps"), (False, "not run on")])
def test_a_step_drawn_again_the_same_changed_nothing(finished: bool, told: str) -> None:
    original = _run("run", [1.0, -5.0])
    again = replace(_run("again", [1.0, -5.0]), finished=finished)
    same = Attempt(1, original.records[1], again, True if finished else None, changed=False)
    replay = Replay(original, False, attribute(original.scores), (same,))
    words = _words(replay)
    assert f"Step 1 drawn again, the same action: {told}" in words
    assert "nothing was changed" in words
    assert "Evidence" not in words
    assert as_dict(replay)["attempts"][0]["changed"] is False


@pytest.mark.parametrize(
    ("new", "old", "told"),
    [
        (
            (True,) * 4,
            (False,) * 4,
            "New action: 4 of 4 more runs succeed; old one: 0 of 4 (p = 0.014). Evidence that step 1 was decisive",
        ),
        (
            (True,) * 3,
            (False,) * 3,
            "old one: 0 of 3 (p = 0.05). All runs of an action went alike, as if not drawn anew: they may be one "
            "run. The failed run succeeds, and that may be luck: no evidence",
        ),
        ((True, True), (True, False), "old one: 1 of 2 (p = 0.5)."),
        ((True, True), (True, False), "may be luck: no evidence that what was changed was decisive"),
        (
            (True, None),
            (False,) * 2,
            "New action: 1 of 2 (1 unknown) more runs succeed; old one: 0 of 2. 1 run raised, the first "
            "ValueError: broke",
        ),
    ],
)
def test_what_confirms_a_flip_is_told_with_its_chance(
    new: Sequence[bool | None], old: Sequence[bool | None], told: str
) -> None:
    original, again = _run("run", [1.0, -5.0]), _run("run/replay-1", [1.0, 4.0])
    runs = (again,) * 3 if len(new) == 3 else (*[again] * (len(new) - 1), _run("other", [1.0, 4.0, 1.0]))
    ways = (
        tuple(
            Ending(run, each, None if each is not None else "ValueError: broke")
            for run, each in zip(runs, new, strict=True)
        ),
        tuple(Ending(original, each) for each in old),
    )
    attempt = Attempt(1, again.records[1], again, True, confirmation=Confirmation(*ways))
    replay = Replay(original, False, attribute(original.scores), (attempt,))
    shown = _shown(replay)
    assert told in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80
    confirmation = as_dict(replay)["attempts"][0]["confirmation"]
    assert (confirmation["p_value"] is None) == (None in new)
    assert [each["succeeded"] for each in confirmation["otherwise"]] == list(new)
    assert [each["thread"] for each in confirmation["as_it_was"]] == ["run"] * len(old)


def test_a_replayed_run_that_waits_is_why_nobody_can_say() -> None:
    original, again = _run("run", [1.0, -5.0]), replace(_run("again", [1.0, 2.0]), finished=False)
    assert "a replayed run waits" in _words(_replay(original, (1, again, None)))


def test_tokens_that_a_model_did_not_tell_are_not_summed() -> None:
    original, again = _run("run", [1.0, -5.0]), _run("again", [1.0, 2.0], tokens=None)
    replay = _replay(original, (1, again, None), succeeded=None)
    words = _words(replay)
    assert "The replay took 1 draw." in words
    assert as_dict(replay)["attempts"][0]["spent"] == {"draws": 1, "output_tokens": None}
    assert "nobody can say" in words


def test_five_suspects_are_shown_and_the_others_counted() -> None:
    original = _run("run", [float(step) for step in range(8)])
    replay = _replay(original, (0, original, False))
    assert "and 3 more" in _words(replay)
    assert len(as_dict(replay)["suspects"]) == 8


def test_steps_whose_messages_are_gone_are_told_by_their_tools() -> None:
    run = _run("run", [1.0, -5.0], keeps=False)
    assert [step["action"] for step in as_dict(_replay(run, (1, run, False)))["original"]["steps"]] == ["act", "act"]


def test_the_plain_values_are_strict_json_whatever_the_arguments() -> None:
    args: list[dict[str, Any]] = [{"x": math.nan}, {"x": -math.inf, "of": object()}, {"q": HOSTILE}]
    run = _run("run", [1.0, None, -5.0], args)
    told = as_dict(_replay(run, (2, run, None), succeeded=None))
    text = json.dumps(told, allow_nan=False)
    text.encode("utf-8")
    assert json.loads(text) == told
    assert (told["flipped"], told["flipped_at"]) == (None, None)
    assert told["original"]["steps"][1]["score"] is None
    assert HOSTILE[-100:] in told["original"]["steps"][2]["action"]
