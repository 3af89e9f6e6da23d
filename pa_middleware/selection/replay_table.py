"""A replay for the terminal: the suspects, the candidates at the fork, and both runs from there on, side by side.

Readable without colour and at 80 columns. What a model or a tool wrote is untrusted: it is never read as markup, and
control characters, escape sequences among them, are shown instead of sent to the terminal.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import zip_longest
from typing import Any

from langchain_core.messages import AIMessage
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pa_middleware.guard.record import Record
from pa_middleware.selection.replay_result import Attempt, Confirmation, Ending, Replay
from pa_middleware.selection.trajectory import Trajectory
from pa_middleware.tracing.visible import visible

_LONGEST = 160
"""Characters of an untrusted text that are shown at most; a row of a table cuts it further, to its width."""
_SUSPECTS = 5
"""Suspects that are shown at most."""


def render(replay: Replay) -> RenderableType:
    """Something `rich.print` can show."""
    head = Text(f"Run {_cut(replay.original.thread)}: {_told(replay.original, replay.succeeded)}.")
    parts: list[RenderableType] = [head, Text()]
    if replay.suspects:
        parts += [_suspects(replay), Text()]
    for attempt in replay.attempts:
        parts += [_candidates(attempt), Text(), _side_by_side(replay, attempt), Text()]
    return Group(*parts, _verdict(replay))


def as_dict(replay: Replay) -> dict[str, Any]:
    """All of it as plain values; texts as they were written, untrusted ones too."""
    return {
        "original": _run(replay.original, replay.succeeded),
        "suspects": [asdict(suspect) for suspect in replay.suspects],
        "attempts": [
            {
                "step": attempt.step,
                "changed": attempt.changed,
                "selected": attempt.choice["selected"],
                "candidates": attempt.choice["candidates"],
                "spent": _spent(attempt.run, attempt.step),
                **_run(attempt.run, attempt.succeeded),
                "confirmation": None if attempt.confirmation is None else _endings(attempt.confirmation),
            }
            for attempt in replay.attempts
        ],
        "flipped": replay.flipped,
        "flipped_at": replay.flipped_at,
        "confirmed_at": replay.confirmed_at,
    }


def _endings(confirmation: Confirmation) -> dict[str, Any]:
    ways = {"otherwise": confirmation.otherwise, "as_it_was": confirmation.as_it_was}
    told = {
        way: [{"error": each.error, **_run(each.run, each.succeeded)} for each in endings]
        for way, endings in ways.items()
    }
    return {**told, "gain": confirmation.gain, "p_value": confirmation.p_value, "alike": confirmation.alike}


def _run(run: Trajectory, succeeded: bool | None) -> dict[str, Any]:
    steps = [{"action": told, "score": score} for told, score in zip(actions(run), run.scores, strict=True)]
    return {"thread": run.thread, "succeeded": succeeded, "finished": run.finished, **_spent(run), "steps": steps}


def _spent(run: Trajectory, since: int = 0) -> dict[str, int | None]:
    rest = replace(run, records=run.records[since:])
    return {"draws": rest.draws, "output_tokens": rest.output_tokens}


def actions(run: Trajectory) -> list[str]:
    """Each action of a run in a few words, as untrusted as what the model wrote."""
    return [_action(record, run.action(step)) for step, record in enumerate(run.records)]


def _action(record: Record, message: AIMessage | None) -> str:
    if message is None:  # the graph keeps no such message: trimmed away, or under another key
        return _names([call["name"] for call in record["calls"]])
    calls = [f"{call['name']} {_json(call['args'])}" for call in message.tool_calls]
    return ", ".join(call.removesuffix(" {}") for call in calls) or message.text or "(no text)"


def _json(args: Any) -> str:
    return json.dumps(args, default=repr, ensure_ascii=False)  # escaped, most scripts could not be read


def _names(tools: Sequence[str]) -> str:
    return ", ".join(tools) or "(text)"


def _suspects(replay: Replay) -> Table:
    table = _table("Suspects, most suspect first")
    for name in ("step", "action", "score", "ranked by", "margin"):
        _column(table, name, right=name != "action")
    told = actions(replay.original)
    for suspect in replay.suspects[:_SUSPECTS]:
        step = suspect.step
        table.add_row(
            str(step),
            _cell(told[step]),
            _number(replay.original.scores[step]),
            f"{suspect.value:.3g}",
            f"{suspect.margin:.3g}",
        )
    if len(replay.suspects) > _SUSPECTS:
        table.caption = Text(f"and {len(replay.suspects) - _SUSPECTS} more")
    return table


def _candidates(attempt: Attempt) -> Table:
    record = attempt.choice
    table = _table(f"Drawn again at step {attempt.step}")
    for name in ("draw", "action", "score", "tokens", ""):
        _column(table, name, right=name in ("draw", "score", "tokens"))
    taken = actions(attempt.run)[attempt.step] if attempt.step < attempt.run.length else ""
    for number, candidate in enumerate(record["candidates"]):
        selected, same = number == record["selected"], candidate["same_as"]
        told = taken if selected or same == record["selected"] else _names(candidate["tools"])
        tokens = candidate["output_tokens"]
        notes = ["taken"] if selected else []
        notes += [f"same as {same}"] if same is not None else []
        notes += ["not scored"] if candidate["score"] is None else []
        length = "" if tokens is None else str(tokens)
        table.add_row(str(number), _cell(told), _number(candidate["score"]), length, ", ".join(notes))
    return table


def _side_by_side(replay: Replay, attempt: Attempt) -> Table:
    table = _table(f"From step {attempt.step} on")
    for name in ("step", "original", "score", "replayed", "score"):
        _column(table, name, right=name in ("step", "score"))
    columns = [
        list(zip(actions(run), run.scores, strict=True))[attempt.step :] for run in (replay.original, attempt.run)
    ]
    for number, pair in enumerate(zip_longest(*columns), start=attempt.step):
        cells: list[RenderableType] = []
        for found in pair:
            cells += [Text(), ""] if found is None else [_cell(found[0]), _number(found[1])]
        table.add_row(str(number), *cells)
    ends = (_outcome(replay.succeeded), _outcome(attempt.succeeded))
    table.add_row("", ends[0], "", ends[1], "", style="bold")
    return table


def _verdict(replay: Replay) -> Text:
    lines = [line for attempt in replay.attempts for line in _ended(attempt)]
    changed = [attempt for attempt in replay.attempts if attempt.changed]
    if replay.confirmed_at is not None:
        lines.append(
            f"Evidence that step {replay.confirmed_at} was decisive: taken otherwise, the failed run succeeds."
        )
    elif replay.flipped and any(attempt.confirmation for attempt in changed):
        lines.append("The failed run succeeds, and that may be luck: no evidence that what was changed was decisive.")
    elif replay.flipped:
        lines += [
            f"With step {replay.flipped_at} taken otherwise, the failed run succeeds.",
            "All later steps were drawn anew as well, so that this may be luck: `confirm` runs",
            "on more often, with the new action and with the old one.",
        ]
    elif replay.succeeded:
        lines.append("The original did not fail, so that there was nothing to flip.")
    elif not changed:
        lines.append(
            "The best draw was what the original did, so that nothing was changed; more draws may find better."
        )
    elif replay.flipped is False:
        lines.append("The failed run failed again: no evidence that what was changed was decisive.")
    elif replay.succeeded is False and not all(attempt.run.finished for attempt in changed):
        lines.append("Whether that is better nobody can say: a replayed run waits for a human.")
    else:
        lines.append("Whether that is better nobody can say: no `succeeded` tells of both runs.")
    return Text("\n".join(lines))


def _ended(attempt: Attempt) -> list[str]:
    """How an attempt ended, and the runs that were to confirm it."""
    where = f"thread {_cut(attempt.run.thread)}"
    cost = f"The replay took {_cost(attempt.run, attempt.step)}."
    if not attempt.changed and not attempt.run.finished:
        return [f"Step {attempt.step} drawn again, the same action: not run on, {where}.", cost]
    how = "taken otherwise" if attempt.changed else "drawn again, the same action"
    steps = _count(attempt.run.length, "step")
    first = f"Step {attempt.step} {how}: {_outcome(attempt.succeeded)} after {steps}, {where}."
    return [first, cost] if attempt.confirmation is None else [first, cost, *_confirmed(attempt.confirmation)]


def _confirmed(confirmation: Confirmation) -> list[str]:
    chance = confirmation.p_value
    new, old = (_share(way) for way in (confirmation.otherwise, confirmation.as_it_was))
    by_chance = "" if chance is None else f" (p = {chance:.2g})"
    lines = [f"New action: {new} more runs succeed; old one: {old}{by_chance}."]
    if chance is not None and confirmation.alike:
        lines.append("All runs of an action went alike, as if not drawn anew: they may be one run.")
    errors = [each.error for each in (*confirmation.otherwise, *confirmation.as_it_was) if each.error is not None]
    return lines + [f"{_count(len(errors), 'run')} raised, the first {_cut(error)}" for error in errors[:1]]


def _share(endings: Sequence[Ending]) -> str:
    unknown = sum(each.succeeded is None for each in endings)
    told = f"{sum(bool(each.succeeded) for each in endings)} of {len(endings)}"
    return f"{told} ({unknown} unknown)" if unknown else told


def _told(run: Trajectory, succeeded: bool | None) -> str:
    return f"{_outcome(succeeded)} after {_count(run.length, 'step')}, {_cost(run)}"


def _cost(run: Trajectory, since: int = 0) -> str:
    spent = _spent(run, since)
    tokens = spent["output_tokens"]
    return f"{_count(spent['draws'] or 0, 'draw')}{'' if tokens is None else f', {tokens} tokens'}"


def _outcome(succeeded: bool | None) -> str:
    return "ended" if succeeded is None else "succeeded" if succeeded else "failed"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:+.3g}"


def _cut(untrusted: str) -> str:
    return visible(untrusted[:_LONGEST])


def _cell(untrusted: str) -> Text:
    return Text(_cut(untrusted), no_wrap=True, overflow="ellipsis")


def _table(title: str) -> Table:
    return Table(
        box=box.SIMPLE_HEAD,
        title=Text(title, style="bold"),
        title_justify="left",
        title_style="",
        caption_justify="left",
    )


def _column(table: Table, name: str, *, right: bool) -> None:
    table.add_column(name, justify="right" if right else "left", no_wrap=right)
