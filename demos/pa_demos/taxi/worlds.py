"""Taxis that can be forked: one for each thread of a graph, as best-of-N, beam search and replay need them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import BaseTool
from langgraph.config import get_config

from pa_middleware.selection import Fork, SelectionError

from .environment import MALFORMED, Taxi, action_of, taxi_tools

_LUCK = 1_000_000_000
"""Seeds of rain begin here where a fork asks for luck of its own: far from those of episodes."""


class WorldError(SelectionError):
    """A conversation tells of another world than the one it was to go on in; nothing was forked."""


class TaxiWorlds:
    """One taxi for each thread. In `build_agent` it stands where a `Taxi` stands; `fork` is a `fork_environment`.

    A thread that nobody forked begins with a new taxi, at the start of its seed.

    Args:
        seed: of every thread's taxi; or a function that tells it from the thread's id.
        rain: a seed of the rain that a forked taxi goes on in. By default it sees the rain of the one it was forked
            from, so that two runs differ by their actions only, unless the fork asks for luck of its own.

    Example:
        worlds = TaxiWorlds(seed=3)
        graph = guard.install(build_agent(model, worlds)).compile(checkpointer=InMemorySaver())
        graph.invoke({"messages": first_messages(worlds.of("a"))}, {"configurable": {"thread_id": "a"}})
        replay(graph, "a", fork_environment=worlds.fork, succeeded=lambda run: worlds.of(run.thread).success)
    """

    def __init__(self, seed: int | Callable[[str], int], *, rain: Callable[[Fork], int] | None = None) -> None:
        self._seed = seed
        self._rain = rain
        self._taxis: dict[str, Taxi] = {}

    def of(self, thread: str) -> Taxi:
        """The taxi of a thread."""
        taxi = self._taxis.get(thread)
        # Threads that run side by side may ask for the same one at the same time: both must get the same.
        return taxi if taxi is not None else self._taxis.setdefault(thread, self._new(thread))

    def fork(self, fork: Fork) -> None:
        """Give the target's thread a taxi as the source's was, in place of any it had.

        A source that is not known here, for it ran in another process, is driven again by the conversation's calls.
        Those that a guard held back never reached the taxi.

        Raises:
            WorldError: the conversation does not fit the taxi: another seed, or not so many steps.
        """
        told = _told(fork)
        ran = fork.steps if told is None else len(told.actions)
        if fork.source is None:
            taxi = self._new(fork.target)
        elif (source := self._taxis.get(fork.source)) is not None:
            if ran > source.steps:
                raise WorldError(
                    f"{fork.source!r} is to be forked after {ran} actions, and its taxi took {source.steps}"
                )
            taxi = source.after(ran)
        elif ran and told is None:
            raise WorldError(f"{fork.source!r} has no taxi here, and without its conversation none can be made")
        else:
            taxi = self._again(fork.source, () if told is None else told.actions)
        if told is not None and told.observation != taxi.observation:
            raise WorldError(
                f"the conversation that {fork.target!r} begins with saw {told.observation!r:.100} last, and its taxi "
                f"stands otherwise: {taxi.observation!r}; is it of another seed?"
            )
        if self._rain is not None:
            taxi = taxi.after(taxi.steps, rain=self._rain(fork))
        elif fork.luck is not None:
            taxi = taxi.after(taxi.steps, rain=_LUCK + fork.luck)
        self._taxis[fork.target] = taxi

    @property
    def steps(self) -> int:
        """Steps taken so far by the taxi of the thread that runs here."""
        return self._here().steps

    @property
    def done(self) -> bool:
        """Whether the episode of the thread that runs here is over."""
        return self._here().done

    def act(self, action: int) -> str:
        """Take one step in the thread that runs here and answer the new observation."""
        return self._here().act(action)

    def malformed(self) -> str:
        """Take a step in the thread that runs here in which nothing happens."""
        return self._here().malformed()

    def tools(self) -> list[BaseTool]:
        """The tools of every taxi; each acts in the thread that runs here."""
        return taxi_tools(self.act)

    def _here(self) -> Taxi:
        """The taxi of the thread whose node or tool this is.

        Raises:
            WorldError: nothing of a graph runs here, or what does has no thread.
        """
        try:
            thread = get_config().get("configurable", {}).get("thread_id")
        except RuntimeError:
            thread = None
        if thread is None:
            raise WorldError("a taxi is found by its thread; run the graph with a thread_id in its config")
        return self.of(str(thread))

    def _new(self, thread: str) -> Taxi:
        return Taxi(self._seed if isinstance(self._seed, int) else self._seed(thread))

    def _again(self, thread: str, actions: Sequence[int]) -> Taxi:
        taxi = self._new(thread)
        for action in actions:
            if taxi.done:
                raise WorldError(f"the conversation of {thread!r} goes on after its taxi's episode is over")
            taxi.act(action)
        return taxi


@dataclass(frozen=True, slots=True)
class _Told:
    """What a conversation tells of its taxi."""

    actions: tuple[int, ...]
    """Those that ran, a malformed one where no legal call was made."""
    observation: str
    """The latest."""


def _told(fork: Fork) -> _Told | None:
    """What the conversation at the fork tells; None if there is none.

    Raises:
        WorldError: it has not as many steps as the fork says.
    """
    if not fork.messages:
        return None
    actions, steps = [], 0
    firsts = (message.text for message, after in pairwise(fork.messages) if isinstance(after, AIMessage))
    observation = next(firsts, fork.messages[-1].text)
    for message, answer in pairwise(fork.messages):
        if not isinstance(message, AIMessage):
            continue
        steps += 1
        calls = message.tool_calls
        action = action_of(calls[0]["name"], calls[0]["args"]) if len(calls) == 1 else None
        held_back = action is not None and isinstance(answer, ToolMessage) and answer.status == "error"
        if not held_back:  # by a guard that blocks calls
            actions.append(MALFORMED if action is None else action)
            observation = answer.text
    if steps != fork.steps:
        raise WorldError(f"{fork.target!r} begins after {fork.steps} steps, and its conversation has {steps}")
    return _Told(tuple(actions), observation)
