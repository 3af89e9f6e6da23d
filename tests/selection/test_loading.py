"""Apps by their names, as `pa-middleware replay` is given them, from modules of the folder it runs in."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import run as run_command
from commands import words_of
from typer.testing import Result

from pa_middleware.cli import app as command

WRONG_USE = 2
Write = Callable[..., str]

_MADE = """
    from contextlib import asynccontextmanager, contextmanager
    import aiosqlite
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
    from pa_middleware import Rules
    from pa_middleware.selection.app import Replayable
    from selection.worlds import GO, agent, thread

    told = []
    def follows(path):
        return [None] if len(path) > 1 else [1.0, -1.0]
    def made(ran="run", **settings):
        graph, worlds, _ = agent(follows, Rules(mode="shadow"))
        graph.invoke(GO, thread(ran), durability="sync")
        return Replayable(graph=graph, fork_environment=worlds.fork, close=lambda: told.append("closed"), **settings)
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a module into the folder commands run in; it is forgotten in the end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def write(body: str, *, name: str = "my_agents", made: str = _MADE) -> str:
        file = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
        file.parent.mkdir(exist_ok=True)
        file.write_text(textwrap.dedent(made) + textwrap.dedent(body), encoding="utf-8")
        return name

    yield write
    for name in {each for each in sys.modules if each.partition(".")[0] in ("my_agents", "my_package")} - before:
        del sys.modules[name]


def _run(app: str, run: str = "run", *options: str) -> Result:
    given = ["replay", run, "--app", app, "--draws", "2", *options]
    return run_command(command, *given)


def _told(name: str = "my_agents") -> list[str]:
    told: list[str] = sys.modules[name].__dict__["told"]
    return told


@pytest.mark.parametrize("name", ["my_agents", "my_package.agents"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("app", "app = made()"),
        ("app", "def app():\n    return made()"),
        ("app", "def app(run):\n    return made(run)"),
        ("app", "@contextmanager\ndef app():\n    yield made()"),
        ("app", "@contextmanager\ndef app(run):\n    yield made(run)"),
        ("Apps.best.app", "class Apps:\n    class best:\n        app = made()"),
        ("apps.app", "class Apps:\n    def app(self, run):\n        return made(run)\napps = Apps()"),
    ],
)
def test_every_kind_of_app_is_found_in_the_folder_replayed_and_closed(
    write: Write, name: str, path: str, body: str
) -> None:
    result = _run(f"{write(body, name=name)}:{path}")
    assert result.exit_code == 0, result.output
    assert "Drawn again at step" in words_of(result)
    assert _told(name) == ["closed"]


@pytest.mark.parametrize("argument", ["", "run"])
def test_an_async_context_manager_is_replayed_in_its_event_loop_and_left(write: Write, argument: str) -> None:
    write(
        f"""
        @asynccontextmanager
        async def app({argument}):
            async with AsyncSqliteSaver.from_conn_string("runs.sqlite") as saver:
                graph, worlds, _ = agent(follows, Rules(mode="shadow"), how="async", checkpointer=saver)
                await graph.ainvoke(GO, thread("run"), durability="sync")
                yield Replayable(graph=graph, fork_environment=worlds.afork, close=lambda: told.append("closed"))
            told.append("left")
        """
    )
    result = _run("my_agents:app")
    assert result.exit_code == 0, result.output
    assert _told() == ["closed", "left"]


@pytest.mark.parametrize(
    ("broken", "run"),
    [("", "nobody"), ("succeeded=lambda run: 1 / 0", "run")],
)
@pytest.mark.parametrize("manager", ["contextmanager", "asynccontextmanager"])
def test_an_app_is_closed_and_left_after_an_error_too(write: Write, manager: str, broken: str, run: str) -> None:
    write(
        f"""
        @{manager}
        {"async " if manager.startswith("async") else ""}def app():
            try:
                yield made({broken})
            finally:
                told.append("left")
        """
    )
    assert _run("my_agents:app", run).exit_code != 0
    assert _told() == ["closed", "left"]


@pytest.mark.parametrize(
    ("app", "words"),
    [
        ("my_agents", "needed: module:attribute"),
        (":app", "needed: module:attribute"),
        (".my_agents:app", "needed: module:attribute"),
        ("my agents:app", "needed: module:attribute"),
        ("my_agents..more:app", "needed: module:attribute"),
        ("nowhere:app", "there is no module 'nowhere', neither installed nor in this folder"),
        ("my_agents.more:app", "there is no module 'my_agents.more'"),
        ("my_agents:nothing", "'my_agents' has no attribute 'nothing'"),
        ("my_agents:told.nothing", "'my_agents' has no attribute 'told.nothing'"),
        ("my_agents:told", "gives []; needed: a pa_middleware.selection.app.Replayable"),
        ("my_agents:graph", "needed: a pa_middleware.selection.app.Replayable"),
        ("my_agents:later", "gives <coroutine object later"),
        ("my_agents:two", "takes (one, two); needed: a function without arguments, or of a run's thread id"),
        ("my_agents:keyword", "takes (*, run); needed"),
        ("my_agents:wrong", "gives 3; needed"),
        ("builtins:max", "needed: a pa_middleware.selection.app.Replayable"),
    ],
)
def test_a_name_that_is_no_apps_is_refused_with_what_is_needed(write: Write, app: str, words: str) -> None:
    write(
        """
        graph = made().graph
        async def later(): return made()
        def two(one, two): return made()
        def keyword(*, run): return made()
        @contextmanager
        def wrong(): yield 3
        """
    )
    result = _run(app)
    assert result.exit_code == WRONG_USE
    assert "Invalid value for --app" in words_of(result)
    assert words in words_of(result)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("import a_library_that_is_missing", ModuleNotFoundError),
        ("from json import nothing", ImportError),
        ("1 / 0", ZeroDivisionError),
        ("def app(): raise AttributeError('mine')", AttributeError),
        ("def app(): raise TypeError('mine')", TypeError),
        ("def app():\n    import my_agents.missing", ModuleNotFoundError),
    ],
)
def test_what_an_app_raises_by_itself_is_shown_as_it_is(write: Write, body: str, error: type[Exception]) -> None:
    write(body, made="")
    result = _run("my_agents:app")
    assert type(result.exception) is error
    assert "Invalid value" not in result.output


def test_options_without_effect_are_refused_before_the_app_is_loaded(write: Write) -> None:
    write("raise SystemExit(7)", made="")
    assert _run("my_agents:app", "run", "--from", "1", "--tries", "2").exit_code == WRONG_USE
    assert _run("my_agents:app", "run", "--threshold", "1").exit_code == WRONG_USE
    assert _run("my_agents:app").exit_code == 7
