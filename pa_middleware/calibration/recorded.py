"""Recorded runs as runs to calibrate on: from trace files, and from the records in a graph's state."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from pa_middleware.calibration.errors import CalibrationError
from pa_middleware.calibration.runs import ScoredRun, ScoredStep
from pa_middleware.guard.record import Record, steps_of
from pa_middleware.guard.tiers import TIERS, Kind, Tier, kind_of, tier_of
from pa_middleware.tracing import conventions as names
from pa_middleware.tracing.runs import Run, TracedStep

_UNTOUCHED = ("pass", "flag")
"""Decisions that leave an action as it is, also when they are enforced."""


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """A run, and the names that a label may call it by."""

    run: ScoredRun
    names: tuple[str, ...]
    """Its conversation id, if that is its alone, its own ids, and the ids of traces in which no other run began."""


def runs_from_traces(traces: Sequence[Run], *, tools: Mapping[str, Tier] | None = None) -> list[RecordedRun]:
    """Unlabelled runs.

    The traces of one conversation are one run, as when it was interrupted and resumed. If a step is told twice in them,
    they are runs of their own, known by their own ids.

    Args:
        traces: as `tracing.read` gives them.
        tools: names or globs -> tiers, before what was recorded; `Rules.tools` of the rules to be.
    """
    began = Counter(trace.trace_id for trace in traces)
    conversations: dict[str, list[Run]] = defaultdict(list)
    for trace in traces:
        conversations[trace.conversation_id or f"trace {trace.trace_id}"].append(trace)
    found = []
    for told in conversations.values():
        indexes = Counter(index for trace in told for index in {step.index for step in trace.steps})
        if max(indexes.values()) > 1:
            found += [_recorded([trace], trace.id, _names([trace], began), tools) for trace in told]
        else:
            name = told[0].conversation_id or told[0].trace_id
            found.append(_recorded(told, name, tuple(dict.fromkeys([name, *_names(told, began)])), tools))
    return found


def _names(traces: Sequence[Run], began: Mapping[str, int]) -> tuple[str, ...]:
    """What the traces of a run can be called by; `began` counts the runs that began in each trace."""
    alone = [trace.trace_id for trace in traces if began[trace.trace_id] == 1]
    return tuple(dict.fromkeys([*alone, *(trace.id for trace in traces)]))


def run_from_records(
    records: Sequence[Record],
    *,
    id: str,  # noqa: A002 - as the field is called
    success: bool | None = None,
    task: str | None = None,
    tools: Mapping[str, Tier] | None = None,
) -> ScoredRun:
    """The run that a graph's state tells of, `state["pa"]`.

    Args:
        records: oldest first, at least one.
        id: which run it is.
        success: how it ended, if known.
        task: what it was to do, if known.
        tools: as for `runs_from_traces`.
    """
    taken = steps_of(list(records))
    steps = tuple(_noted_step(record, tools or {}) for record in taken)
    shaped = len(taken) < len(records) or any(
        _shaped(record["mode"], len(record["candidates"]), record["decision"]) for record in taken
    )
    guarded = any(record["mode"] != names.MODE_SHADOW for record in taken)
    return ScoredRun(id=id, steps=steps, success=success, task=task, guarded=guarded, shaped=shaped)


def traced_fingerprint(traces: Sequence[Run]) -> dict[str, str]:
    """The fingerprint of the scorer that all steps were scored with.

    Raises:
        CalibrationError: steps tell of none, or of more than one.
    """
    steps = [step for trace in traces for step in trace.steps if step.decision]
    unknown = sum(not step.fingerprint for step in steps)
    if unknown or not steps:
        raise CalibrationError(
            f"{unknown} of {len(steps)} recorded steps do not say which scorer scored them, so that the rules could be "
            "bound to none; give the scorer a method `fingerprint()` (see pa_middleware.scoring.fingerprint) and "
            "record again"
        )
    seen: list[dict[str, str]] = []
    for step in steps:
        if step.fingerprint not in seen:
            seen.append(dict(step.fingerprint))
    if len(seen) > 1:
        differing = [
            f"{part} ({', '.join(sorted({repr(one.get(part, 'absent')) for one in seen}))})"
            for part in sorted({part for one in seen for part in one})
            if len({one.get(part) for one in seen}) > 1
        ]
        raise CalibrationError(
            f"the runs were scored by {len(seen)} different scorers, which differ in {'; '.join(differing)}; calibrate "
            "the runs of one scorer at a time"
        )
    return seen[0]


def labelled(run: ScoredRun, success: bool, task: str | None) -> ScoredRun:
    """The run with what a label says of it."""
    return replace(run, success=success, task=task)


def _recorded(
    traces: Sequence[Run], name: str, called: tuple[str, ...], tools: Mapping[str, Tier] | None
) -> RecordedRun:
    steps = sorted((step for trace in traces for step in trace.steps), key=lambda step: (step.start_ns, step.index))
    scored = tuple(_traced_step(step, tools or {}) for step in steps)
    decided = [step for step in steps if step.decision]
    shaped = any(_shaped(step.mode, len(step.candidates), step.decision) for step in decided)
    guarded = any(step.mode != names.MODE_SHADOW for step in decided)
    return RecordedRun(ScoredRun(id=name, steps=scored, guarded=guarded, shaped=shaped), called)


def _shaped(mode: str, draws: int, decision: str) -> bool:
    return mode != names.MODE_SHADOW and (draws > 1 or decision not in _UNTOUCHED)


def _traced_step(step: TracedStep, tools: Mapping[str, Tier]) -> ScoredStep:
    recorded = [*step.tiers, *["default"] * (len(step.tool_names) - len(step.tiers))]
    tiers = [_tier(name, tier, tools) for name, tier in zip(step.tool_names, recorded, strict=True)]
    selected = step.selected
    told = selected.attributes.get(names.CALL_SCORES, ()) if selected is not None else ()
    scores = [float(score) for score in told] if isinstance(told, tuple) else []
    log_prob = selected.attributes.get(names.POLICY_LOG_PROB) if selected is not None else None
    return ScoredStep(
        kind=_kind(tiers) if tiers or step.action_kind == "final_answer" else "default",
        score=step.score if step.decision else None,
        calls=_calls(tiers, scores),
        policy_log_prob=float(log_prob) if isinstance(log_prob, int | float) else None,
        tokens=(selected.token_count or 0) if selected is not None else 0,
    )


def _noted_step(record: Record, tools: Mapping[str, Tier]) -> ScoredStep:
    candidate = record["candidates"][record["selected"]]
    tiers = [_tier(call["name"], call["tier"], tools) for call in record["calls"]]
    return ScoredStep(
        kind=_kind(tiers),
        score=record["score"],
        calls=_calls(tiers, [call["score"] for call in record["calls"]]),
        policy_log_prob=candidate["policy_log_prob"],
        tokens=candidate["tokens"],
    )


def _tier(name: str, recorded: str | None, tools: Mapping[str, Tier]) -> Tier | None:
    """None for a call that no tool runs, but that gives the final answer its form."""
    if recorded in (None, "final_answer"):
        return None
    if any(name == key or fnmatchcase(name, key) for key in tools):
        return tier_of(name, tools)
    return next((tier for tier in TIERS if tier == recorded), "default")


def _kind(tiers: Sequence[Tier | None]) -> Kind:
    return kind_of(tier for tier in tiers if tier is not None)


def _calls(tiers: Sequence[Tier | None], scores: Sequence[float | None]) -> tuple[tuple[Tier, float], ...]:
    """Those that are held to a threshold of their own; none where the scorer does not tell calls apart."""
    if len(scores) != len(tiers) or None in scores:
        return ()
    return tuple(
        (tier, score) for tier, score in zip(tiers, scores, strict=True) if tier is not None and score is not None
    )
