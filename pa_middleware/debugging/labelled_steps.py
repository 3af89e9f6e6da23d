"""Turns of several agents as steps that a scorer can score, and what it said of them.

To the agent that acts, its own earlier messages are its turns, and everybody else's are a user's, the name in front.
Many chat templates want user and assistant to take turns and a user to be last, so that messages that follow each other
are one turn, and an agent that acts again at once is shown its last message as a user's. A run that no human opened
begins with its question. System prompts, which the agents may have had, are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from pa_middleware.debugging.who_and_when import LabelledRun
from pa_middleware.scoring.errors import ContextLengthError, RenderingError, UnscorableActionError
from pa_middleware.scoring.scorer import Scorer, Step

_WHY: tuple[tuple[type[Exception], str], ...] = (
    (ContextLengthError, "longer than the pair can read"),
    (RenderingError, "refused by the chat template"),
    (UnscorableActionError, "not scorable"),
)
UNSCORED = tuple(kind for kind, _ in _WHY)
"""What may be raised for a single action. Anything else that a scorer raises is an error of the whole."""


@dataclass(frozen=True, slots=True)
class ScoredAction:
    """One action of a labelled run."""

    index: int
    """Into the run's history."""
    agent: str
    score: float | None
    """None if there is none."""
    tokens: int = 0
    """Scored."""
    truncated: bool = False
    """The oldest part of what the agent saw was left out."""
    unscored: str = ""
    """Why there is no score."""


def steps(run: LabelledRun, conversation: str | None = None) -> Iterator[tuple[int, Step]]:
    """Each action's index into the history, and the step that it is the one candidate of."""
    for index in run.actions:
        message = run.history[index]
        yield index, Step(shown(run, index), [AIMessage(message.content)], conversation=conversation)


def shown(run: LabelledRun, index: int) -> list[BaseMessage]:
    """What the agent that wrote a message is taken to have seen before it."""
    agent = run.history[index].author
    before = [message for message in run.history[:index] if message.content.strip()]
    turns: list[tuple[bool, str]] = [] if before and before[0].by_human else [(False, run.question)]
    last_of_others = max((place for place, each in enumerate(before) if each.author != agent), default=-1)
    for place, message in enumerate(before):
        own = message.author == agent and place < last_of_others
        text = message.content if own or message.by_human else f"{message.author}: {message.content}"
        if turns and turns[-1][0] == own:
            turns[-1] = own, f"{turns[-1][1]}\n\n{text}"
        else:
            turns.append((own, text))
    return [AIMessage(text) if own else HumanMessage(text) for own, text in turns]


def score_run(scorer: Scorer, run: LabelledRun) -> list[ScoredAction]:
    """The score of every action of a run, in its order; the run is one conversation to the scorer."""
    return [_scored(scorer, run.history[index].author, index, step) for index, step in steps(run, run.name)]


def why_not(error: Exception) -> str:
    """Why an action has no score, from what was raised for it."""
    return next(why for kind, why in _WHY if isinstance(error, kind))


def why_unscored(actions: Sequence[ScoredAction]) -> dict[str, int]:
    """How many actions have no score, by reason."""
    return dict(Counter(action.unscored for action in actions if action.score is None))


def _scored(scorer: Scorer, agent: str, index: int, step: Step) -> ScoredAction:
    try:
        (found,) = scorer.score([step])[0].candidates
    except UNSCORED as error:
        return ScoredAction(index, agent, None, unscored=why_not(error))
    return ScoredAction(index, agent, found.score, found.token_count, found.truncated)
