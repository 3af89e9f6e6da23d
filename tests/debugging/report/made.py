"""Small runs with everything in them that a report can show."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from pa_middleware.tracing.runs import Run, TracedCall, TracedCandidate, TracedMessage, TracedStep, Value

THRESHOLD = -0.5
TOOLS = json.dumps([{"name": "look", "description": "Looks around."}, {"name": "pay", "description": "Pays."}])


def candidate(index: int, score: float, tool: str, **arguments: object) -> TracedCandidate:
    """A tool call of two tokens, the second of which carries the score."""
    attributes: dict[str, Value] = {"pa_middleware.candidate.index": index, "pa_middleware.token.texts": ("x",)}
    return TracedCandidate(
        index=index,
        span_id=f"c{index}",
        score=score,
        threshold=THRESHOLD,
        label="fail" if score < THRESHOLD else "pass",
        token_count=2,
        log_ratio_min=min(0.0, score),
        log_ratio_argmin=1,
        log_ratio_mean=score / 2,
        log_ratios=(0.0, score),
        text=f"I {tool} now.",
        tool_arguments=(json.dumps(arguments),),
        error=None,
        attributes=attributes,
        output_tokens=2,
        action_kind="tool_call",
        tool_names=(tool,),
        reasoning="Because I think so.",
        token_texts=(f"{tool}(", ")"),
        policy_log_prob=score - 1.0,
        reference_log_prob=-1.0,
    )


def step(index: int, candidates: Sequence[TracedCandidate], history: Sequence[TracedMessage] = ()) -> TracedStep:
    """A step that took its best candidate."""
    best = max(candidates, key=lambda each: each.score or 0.0)
    low = (best.score or 0.0) < THRESHOLD
    attributes: dict[str, Value] = {
        "pa_middleware.step.index": index,
        "pa_middleware.score.normalization": "sum",
        "pa_middleware.policy.model": "made",
    }
    return TracedStep(
        index=index,
        attempt=1,
        span_id=f"s{index}",
        start_ns=1_790_000_000_000_000_000 + index * 10**9,
        decision="flag" if low else "pass" if len(candidates) == 1 else "resample",
        reason="budget_exhausted" if low else "above_threshold",
        score=best.score,
        threshold=THRESHOLD,
        action_kind="tool_call",
        tool_names=best.tool_names,
        tool_call_ids=(f"call-{index}",),
        selected_index=best.index,
        candidates=tuple(candidates),
        error=None,
        attributes=attributes,
        mode="enforce",
        tiers=("default",),
        end_ns=1_790_000_000_000_000_000 + index * 10**9 + 500_000_000,
        history=tuple(history),
        tool_definitions=TOOLS,
    )


def run(trace: str, name: str | None, draws: Sequence[Sequence[TracedCandidate]]) -> Run:
    """A run whose steps see all that came before."""
    history = [TracedMessage("system", "You are a shop assistant."), TracedMessage("user", f"Buy {trace[:2]} apples.")]
    steps = []
    for index, candidates in enumerate(draws):
        made = step(index, candidates, tuple(history))
        steps.append(made)
        chosen = made.selected
        assert chosen is not None
        call = TracedCall(f"call-{index}", chosen.tool_names[0], chosen.tool_arguments[0])
        history.append(TracedMessage("assistant", chosen.text or "", chosen.reasoning, (call,)))
        history.append(TracedMessage("tool", f"Result {index} of {trace[:2]}.", answers=call.id))
    return Run(trace, name, tuple(steps), agent="shopper")


def without_content(given: Run) -> Run:
    """The same run as a trace without content tells it."""
    return replace(
        given,
        steps=tuple(
            replace(
                each,
                history=(),
                tool_definitions="",
                candidates=tuple(
                    replace(one, text=None, tool_arguments=(), reasoning="", token_texts=(), log_ratios=())
                    for one in each.candidates
                ),
            )
            for each in given.steps
        ),
    )


def shop() -> list[Run]:
    """A failed run and a succeeded one of the same task, alike up to step 3; and one without content and name."""
    alike = [[candidate(0, 0.5 + index / 10, "look", at=index)] for index in range(3)]
    bad = [candidate(0, -4.0, "pay", sum=9), candidate(1, -5.0, "look", at="shelf"), candidate(2, -4.5, "pay", sum=7)]
    tail = [[candidate(0, 0.2 + index / 10, "pay", sum=index)] for index in range(4)]
    good = [candidate(0, 1.0, "look", at="shelf")]
    failed = replace(run("aa" * 16, "shop 1", [*alike, bad, *tail]), success=False, task="apples")
    passed = replace(run("bb" * 16, "shop-2", [*alike, good, *tail]), success=True, task="apples")
    bare = replace(without_content(run("cc" * 16, None, [*tail, *alike])), agent=None)
    return [failed, passed, bare]
