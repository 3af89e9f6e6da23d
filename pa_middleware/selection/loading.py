"""An agent by its name, `module:attribute`, as the command line is told it."""

from __future__ import annotations

import inspect
import sys
from contextlib import AsyncExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

from pa_middleware.selection.app import Replayable

_NEEDED = (
    "needed: a pa_middleware.selection.app.Replayable, a context manager of one, or a function that returns either"
)


class AppError(ValueError):
    """The name stands for nothing that can be replayed with. What the app itself raises is not made one of these."""


def load(name: str, run: str) -> Any:
    """What a name stands for, called if it is a function: with the run's thread id, if it needs an argument.

    Modules are looked for in the current folder, too.

    Raises:
        AppError: no such module or attribute, or a function that takes more.
    """
    module, colon, path = name.partition(":")
    if not (colon and path and all(part.isidentifier() for part in module.split("."))):
        raise AppError(f"{name!r}; needed: module:attribute, such as pa_demos.taxi.replayed:app")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there, and imports one that is not
        raise AppError(f"there is no module {error.name!r}, neither installed nor in this folder") from error
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise AppError(f"{module!r} has no attribute {path!r}") from error
    return found if isinstance(found, Replayable) or not callable(found) else _called(name, found, run)


async def entered(made: Any, name: str, stack: AsyncExitStack) -> Replayable:
    """The agent that was loaded. It is closed with the stack; nothing here suspends, unless it must be awaited.

    Raises:
        AppError: it is none.
    """
    if needs_loop(made):
        app = await stack.enter_async_context(made)
    else:
        app = stack.enter_context(made) if hasattr(made, "__enter__") else made
    if not isinstance(app, Replayable):
        if inspect.iscoroutine(app):
            app.close()  # of a coroutine function: nobody will await it
        raise AppError(f"{name!r} gives {app!r:.100}; {_NEEDED}")
    if app.close is not None:
        stack.callback(app.close)
    return app


def needs_loop(made: Any) -> bool:
    """Whether what was loaded opens in an event loop, and is then to be replayed there."""
    return hasattr(made, "__aenter__") and not hasattr(made, "__enter__")


def _called(name: str, function: Any, run: str) -> Any:
    try:
        signature = inspect.signature(function)
    except ValueError as error:  # a builtin that does not tell
        raise AppError(f"{name!r} is {function!r:.100}; {_NEEDED}") from error
    for arguments in ((), (run,)):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return function(*arguments)
    raise AppError(f"{name!r} takes {signature}; needed: a function without arguments, or of a run's thread id")
