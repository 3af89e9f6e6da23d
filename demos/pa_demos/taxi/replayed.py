"""The demo's failed episodes, for `pa-middleware replay weak-110000 --app pa_demos.taxi.replayed:app`.

An episode is the same every time it is run, so none is stored: the one that is asked for is run again first, by the
weak driver and watched by a guard that changes nothing, and then replayed.
"""

from __future__ import annotations

import re

from langgraph.checkpoint.memory import InMemorySaver
from opentelemetry.trace import NoOpTracerProvider
from pa_transformers import LocalChatModel
from transformers.utils import logging

from pa_middleware import Guard, Rules
from pa_middleware.selection import SelectionError
from pa_middleware.selection.app import Replayable

from .agent import build_agent, first_messages, shown
from .episode import shipped_pair
from .worlds import TaxiWorlds

_RUN = re.compile(r"weak-([0-9]{1,9})")


def app(run: str) -> Replayable:
    """The weak driver, after one of its episodes.

    Args:
        run: `weak-` and the seed of the episode's world and draws.

    Raises:
        SelectionError: a run of another name.
    """
    match = _RUN.fullmatch(run)
    if match is None:
        raise SelectionError(f"there is no run {run!r}; this driver's are weak- and a seed, such as weak-110000")
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    seed = int(match[1])
    pair, worlds = shipped_pair(), TaxiWorlds(seed)
    driver = LocalChatModel(
        model=pair.reference.model,
        tokenizer=pair.tokenizer,
        max_new_tokens=24,
        seed=seed,
        seed_per_thread=False,  # as in the demo, whose episode this is
    )
    guard = Guard(pair, Rules(mode="shadow"), history=shown, tracer_provider=NoOpTracerProvider())
    graph = guard.install(build_agent(driver, worlds)).compile(checkpointer=InMemorySaver(), name="taxi weak")
    graph.invoke({"messages": first_messages(worlds.of(run))}, {"configurable": {"thread_id": run}})
    return Replayable(
        graph=graph, fork_environment=worlds.fork, succeeded=lambda ended: worlds.of(ended.thread).success
    )
