"""The page finds the runs and steps that a plain search through the same runs finds."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from debugging.report.made import candidate, run, without_content
from debugging.report.watched import opened

from pa_middleware.debugging import explain
from pa_middleware.debugging.report import write_report
from pa_middleware.tracing.runs import Run, TracedStep

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TOOLS = ("look", "pay", "__proto__", "constructor")
DECISIONS = ("pass", "flag", "resample", "")


def _made(rng: random.Random) -> list[Run]:
    runs = []
    for number in range(40):
        draws = [[candidate(0, rng.gauss(0, 1), rng.choice(TOOLS), at=number)] for _ in range(rng.randrange(8))]
        made = run(f"{number:032x}", rng.choice((None, f"thread {number}")), draws)
        steps = tuple(_odd(each, rng) for each in made.steps)
        made = replace(made, steps=steps, success=rng.choice((True, False, None)))
        runs.append(rng.choice((made, without_content(made))))
    return runs


def _odd(given: TracedStep, rng: random.Random) -> TracedStep:
    decided = replace(given, decision=rng.choice(DECISIONS))
    return replace(decided, score=None, threshold=None) if rng.random() < 0.2 else decided


def _wanted(rng: random.Random) -> dict[str, list[str]]:
    """A filter as an address tells it."""
    choices: dict[str, list[str]] = {
        "text": rng.sample(("pay", "THREAD 3", "result", "succeeded"), 1),
        "least": [str(round(rng.uniform(-1, 0), 2))],
        "most": [str(round(rng.uniform(0, 1), 2))],
        "low": ["1"],
        "stands": ["1"],
        "decisions": rng.sample(DECISIONS, 2),
        "tools": rng.sample(TOOLS, 2),
        "outcomes": rng.sample(("failed", "succeeded", "unknown"), 2),
    }
    return {name: choices[name] for name in rng.sample(sorted(choices), rng.randrange(1, 4))}


def _texts(one: Run, step: TracedStep) -> str:
    candidates = [
        part for each in step.candidates for part in (each.text, each.reasoning, *each.tool_names, *each.tool_arguments)
    ]
    place = one.steps.index(step)
    before = one.steps[place - 1].history if place else ()
    answers = [message for later in one.steps for message in later.history if message.answers in step.tool_call_ids]
    shown = [message.text for message in (*step.history[len(before) :], *answers)]
    calls = [
        part
        for message in step.history[len(before) :]
        for call in message.calls
        for part in (call.name, call.arguments)
    ]
    reasons = [message.reasoning for message in step.history[len(before) :]]
    head = (one.trace_id, one.conversation_id, one.task, one.agent, _outcome(one))
    own = (step.decision, step.reason, *step.tool_names)
    return "\n".join(part for part in (*head, *own, *candidates, *shown, *calls, *reasons) if part).lower()


def _outcome(one: Run) -> str:
    return {True: "succeeded", False: "failed", None: "unknown"}[one.success]


def _matches(one: Run, step: TracedStep, wanted: dict[str, list[str]]) -> bool:
    score = step.score
    checks: dict[str, Callable[[list[str]], bool]] = {
        "text": lambda value: value[0].lower() in _texts(one, step),
        "least": lambda value: score is not None and score >= float(value[0]),
        "most": lambda value: score is not None and score <= float(value[0]),
        "low": lambda _: score is not None and step.threshold is not None and score < step.threshold,
        "stands": lambda _: explain(one).stands_out,
        "decisions": lambda value: step.decision in value,
        "tools": lambda value: bool({*step.tool_names} & {*value}),
        "outcomes": lambda value: _outcome(one) in value,
    }
    return all(checks[name](value) for name, value in wanted.items())


def test_the_filter_finds_what_a_plain_search_finds(browser: Browser, tmp_path: Path) -> None:
    rng = random.Random(0)
    runs = _made(rng)
    write_report(runs, tmp_path / "report.html")
    with opened(browser, tmp_path / "report.html") as page:
        for _ in range(40):
            wanted = _wanted(rng)
            page.evaluate("location.hash = " + repr(urlencode(wanted, doseq=True)))
            found = [sum(_matches(one, step, wanted) for step in one.steps) for one in runs]
            of_runs = {"stands", "outcomes"}
            listed = sum(
                bool(steps) or (wanted.keys() <= of_runs and _alone(one, wanted))
                for one, steps in zip(runs, found, strict=True)
            )
            told = _told(listed, len(runs), sum(found), sum(len(one.steps) for one in runs))
            page.locator("#count:not([data-searching])", has_text=re.compile(f"^{told}$")).wait_for()


def _alone(one: Run, wanted: dict[str, list[str]]) -> bool:
    """A run without steps is listed where only runs are asked for."""
    return ("outcomes" not in wanted or _outcome(one) in wanted["outcomes"]) and (
        "stands" not in wanted or explain(one).stands_out
    )


def _told(runs: int, all_runs: int, steps: int, all_steps: int) -> str:
    def part(found: int, whole: int, word: str) -> str:
        return f"{whole} {word}s" if found == whole else f"{found} of {whole} {word}s"

    return f"{part(runs, all_runs, 'run')}, {part(steps, all_steps, 'step')}"
