from __future__ import annotations

import json
import re
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path as File
from types import ModuleType
from typing import Any

import aiosqlite
import pytest
import typer
from commands import run as run_command
from commands import words_of
from langchain_core.messages import AIMessage
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from selection.worlds import GO, Path, agent, taken, thread
from typer.testing import Result

from pa_middleware import Rules
from pa_middleware.replay_command import WRONG_USE, replay
from pa_middleware.selection.app import Replayable

_app = typer.Typer()
_app.command()(replay)


def _follows(path: Path) -> Sequence[float | None]:
    """By itself the agent does 1, -5 and 2; at the second step it could also do 4, and then 3 or 3.5."""
    if len(path) >= 3:
        return [None]
    if len(path) == 1:
        return [-5.0, 4.0, -5.0]
    return [3.0, 3.5] if 4.0 in path else [(1.0, -5.0, 2.0)[len(path)]]


def _replayable(**given: Any) -> Replayable:
    graph, worlds, _ = agent(_follows, Rules(mode="shadow"))
    graph.invoke(GO, thread("run"), durability="sync")
    settings = {"fork_environment": worlds.fork, "succeeded": lambda run: 4.0 in taken(run.messages), **given}
    return Replayable(graph=graph, **settings)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module `made_app`, to put agents into."""
    made = ModuleType("made_app")
    monkeypatch.setitem(sys.modules, "made_app", made)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return made


def _run(*arguments: object, app: str | None = "made_app:app") -> Result:
    given = [str(each) for each in arguments] + ([] if app is None else ["--app", app])
    return run_command(_app, *given)


def _refused(result: Result, words: str) -> None:
    assert result.exit_code == WRONG_USE, result.output
    assert words in words_of(result)
    assert "Traceback" not in result.output


def test_both_outcomes_are_shown_side_by_side_within_80_columns(module: Any) -> None:
    module.app = _replayable()
    result = _run("run", "--draws", 3)
    assert result.exit_code == 0, result.output
    assert max(map(len, result.output.splitlines())) <= 80
    words = words_of(result)
    for part in (
        "Run run: failed after 4 steps, 4 draws.",
        '1 act {"x": -5.0} -5 -1 1',  # suspect, with what it is ranked by and its margin
        "Drawn again at step 1",
        '0 act {"x": 4.0} +4 taken',
        "2 act -5 same as 1",
        '1 act {"x": -5.0} -5 act {"x": 4.0} +4 2 act {"x": 2.0} +2 act {"x": 3.0} +3',
        "failed succeeded",
        "Step 1 taken otherwise: succeeded after 4 steps, thread run/replay-1.",
        "The replay took 5 draws.",
        "With step 1 taken otherwise, the failed run succeeds.",
        "this may be luck",
    ):
        assert part in words, part


def test_a_flip_is_confirmed_by_so_many_runs_more(module: Any, tmp_path: File) -> None:
    module.app = _replayable()
    file = tmp_path / "r.json"
    result = _run("run", "--draws", 3, "--confirm", 3, "--json", file)
    assert result.exit_code == 0, result.output
    assert "New action: 3 of 3 more runs succeed; old one: 0 of 3 (p = 0.05)." in words_of(result)
    assert "Evidence that step 1 was decisive" in words_of(result)
    whole = json.loads(file.read_text(encoding="utf-8"))
    [told] = [attempt["confirmation"] for attempt in whole["attempts"]]
    assert (whole["confirmed_at"], told["gain"], told["p_value"], told["alike"]) == (1, 1.0, 0.05, False)
    assert [each["thread"] for each in told["as_it_was"]][:2] == ["run/replay-1/as-it-was", "run/replay-1/as-it-was.1"]
    module.app = _replayable(succeeded=None)
    _refused(_run("run", "--confirm", 3), "confirm=3 has no effect")


def test_the_file_holds_what_was_shown(module: Any, tmp_path: File) -> None:
    module.app = _replayable()
    assert _run("run", "--draws", 3, "--json", tmp_path / "new" / "r.json").exit_code == 0
    told = json.loads((tmp_path / "new" / "r.json").read_text(encoding="utf-8"))
    assert (told["flipped"], told["flipped_at"]) == (True, 1)
    assert told["suspects"][0] == {"step": 1, "value": -1.0, "margin": 1.0}
    assert told["original"]["steps"][1] == {"action": 'act {"x": -5.0}', "score": -5.0}
    [attempt] = told["attempts"]
    assert (attempt["step"], attempt["succeeded"], attempt["spent"]["draws"]) == (1, True, 5)
    assert [each["score"] for each in attempt["candidates"]] == [4.0, -5.0, -5.0]


def test_the_step_can_be_given_and_outcomes_be_unknown(module: Any) -> None:
    module.app = _replayable(succeeded=None)
    result = _run("run", "--from", 2, "--draws", 1)
    assert result.exit_code == 0, result.output
    words = words_of(result)
    assert "Suspects" not in words
    assert "Step 2 drawn again, the same action: ended after 4 steps" in words
    assert "nothing was changed" in words
    assert "nobody can say" in words_of(_run("run", "--from", 1, "--draws", 1))


def test_the_first_step_below_its_threshold_is_replayed_by_that_rule(module: Any, tmp_path: File) -> None:
    module.app = _replayable()
    file = tmp_path / "r.json"
    options = ["--rule", "first_below", "--threshold", "1.5", "--tries", "3", "--draws", "3"]
    assert _run("run", *options, "--json", file).exit_code == 0
    told = json.loads(file.read_text(encoding="utf-8"))
    assert [suspect["step"] for suspect in told["suspects"]] == [0, 1, 3]
    assert [(each["step"], each["succeeded"]) for each in told["attempts"]][-1] == (told["flipped_at"], True)
    assert len(told["attempts"]) <= 3


def test_suspects_are_tried_until_one_succeeds_or_so_many_were(module: Any) -> None:
    module.app = _replayable(succeeded=lambda run: False)
    result = _run("run", "--tries", 2, "--rule", "lowest")
    assert result.exit_code == 0, result.output
    assert re.findall(r"Step (\d) (?:taken otherwise|drawn again)", words_of(result)) == ["1", "3"]
    assert "The failed run failed again" in words_of(result)


def test_a_file_that_cannot_be_written_is_refused_after_the_outcome_was_shown(module: Any, tmp_path: File) -> None:
    module.app = _replayable()
    result = _run("run", "--json", tmp_path)
    _refused(result, "Invalid value for --json")
    assert "Drawn again at step 1" in words_of(result)


def test_a_failed_replay_is_no_evidence_and_a_success_has_nothing_to_flip(module: Any) -> None:
    module.app = _replayable(succeeded=lambda run: False)
    assert "The failed run failed again" in words_of(_run("run"))
    module.app = _replayable(succeeded=lambda run: True)
    assert "nothing to flip" in words_of(_run("run"))


def test_an_app_can_be_made_for_the_run_and_is_closed_afterwards(module: Any) -> None:
    told: list[str] = []

    def app() -> Replayable:
        return _replayable(close=lambda: told.append("app closed"))

    def app_of(run: str) -> Replayable:
        told.append(f"made for {run}")
        return app()

    @contextmanager
    def opened() -> Iterator[Replayable]:
        yield app()
        told.append("manager left")

    @contextmanager
    def opened_for(run: str) -> Iterator[Replayable]:
        yield app_of(run)
        told.append("manager left")

    for made, expected in (
        (app, ["app closed"]),
        (app_of, ["made for run", "app closed"]),
        (opened, ["app closed", "manager left"]),
        (opened_for, ["made for run", "app closed", "manager left"]),
    ):
        module.app = made
        assert _run("run", "--draws", 3).exit_code == 0
        assert told == expected
        told.clear()


def test_an_app_that_opens_in_an_event_loop_is_replayed_there(module: Any, tmp_path: File) -> None:
    @asynccontextmanager
    async def app() -> AsyncIterator[Replayable]:
        async with aiosqlite.connect(str(tmp_path / "runs.sqlite")) as connection:
            graph, worlds, _ = agent(
                _follows, Rules(mode="shadow"), how="async", checkpointer=AsyncSqliteSaver(connection)
            )
            await graph.ainvoke(GO, thread("run"), durability="sync")
            yield Replayable(graph=graph, fork_environment=worlds.afork)

    module.app = app
    result = _run("run", "--draws", 3)
    assert result.exit_code == 0, result.output
    assert '0 act {"x": 4.0} +4 taken' in words_of(result)
    _refused(_run("nobody"), "holds no run 'nobody'")


@pytest.mark.parametrize(
    ("app", "words"),
    [
        ("made_app", "needed: module:attribute"),
        ("made_app:", "needed: module:attribute"),
        ("no_such_module:app", "no module 'no_such_module'"),
        ("made_app.deeper:app", "no module 'made_app.deeper'"),
        ("made_app:other", "'made_app' has no attribute 'other'"),
        ("made_app:number", "gives 3; needed: a pa_middleware.selection.app.Replayable"),
        ("made_app:returns", "gives None; needed"),
        ("made_app:takes_two", "a function without arguments, or of a run's thread id"),
    ],
)
def test_a_name_that_stands_for_no_app_is_refused(module: Any, app: str, words: str) -> None:
    module.number, module.returns, module.takes_two = 3, lambda: None, lambda run, other: None
    _refused(_run("run", app=app), words)


def test_an_environment_variable_names_the_app_where_no_option_does(
    module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module.app = _replayable()
    monkeypatch.delenv("PA_MIDDLEWARE_APP", raising=False)
    _refused(_run("run", app=None), "--app: missing; give module:name of the agent that made the run")
    _refused(_run("run", app=None), "or set PA_MIDDLEWARE_APP to it")
    monkeypatch.setenv("PA_MIDDLEWARE_APP", "made_app:app")
    assert _run("run", "--from", "decisive", "--draws", "8", app=None).exit_code == 0
    _refused(_run("run", app="made_app:other"), "has no attribute 'other'")  # the option goes before it


def test_what_an_app_raises_is_its_own(module: Any) -> None:
    def app() -> Replayable:
        raise KeyError("mine")

    module.app = app
    assert isinstance(_run("run").exception, KeyError)


def test_an_unknown_run_is_refused_with_the_known_ones(module: Any) -> None:
    module.app = _replayable()
    _refused(_run("nobody"), "Not replayed: the checkpointer holds no run 'nobody'")
    _refused(_run("nobody"), "the latest it holds: 'run'")


def test_a_run_that_is_not_finished_is_refused(module: Any) -> None:
    graph, worlds, _ = agent(_follows, Rules(mode="shadow"))
    list(zip(range(2), graph.stream(GO, thread("run"), durability="sync"), strict=False))
    module.app = Replayable(graph=graph, fork_environment=worlds.fork)
    _refused(_run("run"), "is not finished")


def test_a_run_without_records_is_refused(module: Any) -> None:
    made = _replayable()
    made.graph.update_state(thread("bare"), GO, as_node="__start__")
    module.app = made
    _refused(_run("bare"), "holds no scores")


def test_an_app_without_a_world_is_refused(module: Any) -> None:
    module.app = _replayable(fork_environment=None)
    _refused(_run("run"), "Give fork_environment=...")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--from", "-1"], "allowed: decisive, or a step from 0 on"),
        (["--from", "last"], "allowed: decisive, or a step from 0 on"),
        (["--from", "9"], "allowed: 'decisive', or 0 to 3"),
        (["--from", "1", "--rule", "lowest"], "has no effect with --from 1"),
        (["--from", "1", "--tries", "2"], "has no effect with --from 1"),
        (["--from", "1", "--threshold", "0"], "has no effect with --from 1"),
        (["--threshold", "0"], "goes with --rule first_below"),
        (["--rule", "first_below"], "goes with --rule first_below"),
        (["--rule", "first_below", "--threshold", "-99"], "finds no step of 'run' suspect"),
        (["--draws", "0"], "--draws"),
        (["--confirm", "2"], "--confirm: 2; allowed: 0, or a number from 3 on"),
    ],
)
def test_options_that_cannot_be_used_are_refused(module: Any, options: list[str], words: str) -> None:
    module.app = _replayable()
    _refused(_run("run", *options), words)


def test_what_a_run_wrote_reaches_the_terminal_as_plain_text(module: Any) -> None:
    made = _replayable()
    ended = made.graph.get_state(thread("run")).values["messages"]
    [last] = [message for message in ended[-1:] if isinstance(message, AIMessage)]
    hostile = AIMessage("[red]x[/red]\x1b]0;owned\x07\u202e", id=last.id)
    made.graph.update_state(thread("run"), {"messages": [hostile]}, as_node="agent")
    module.app = made
    result = _run("run")
    assert result.exit_code == 0, result.output
    assert "[red]x[/red]\\x1b]0;owned" in result.output
    assert not {"\x1b]", "\x07", "\u202e"} & set(re.findall(r"\x1b\]|[\x07\u202e]", result.output))


def test_the_demos_episodes_can_be_replayed() -> None:
    result = _run("weak-110000", "--draws", 2, app="pa_demos.taxi.replayed:app")
    assert result.exit_code == 0, result.output
    assert "Run weak-110000: failed after 30 steps" in words_of(result)
    _refused(_run("strong-1", app="pa_demos.taxi.replayed:app"), "this driver's are weak- and a seed")
