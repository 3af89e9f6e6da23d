"""How fast the HTML report is: 1,000 runs of 30 steps, written, opened in Chromium and filtered.

    python -m benchmarks.report_scale [--runs N] [--json FILE]

A third of the steps has four candidates, each with the texts and log-ratios of 20 tokens and all content. Times are
what the page itself measures: from the start of the navigation to the list that can be used; of a key in the filter,
from the event to the list drawn anew. `blocked` is the longest task of the page while text is searched for.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pa_middleware.debugging.report import Written, write_report
from pa_middleware.tracing.runs import Run, TracedCall, TracedCandidate, TracedMessage, TracedStep, Value

STEPS, TOKENS = 30, 20
TOOLS = ("search", "open_page", "click", "type_text", "run_tests", "edit_file")
WORDS = (
    "the",
    "order",
    "page",
    "shows",
    "three",
    "items",
    "a",
    "form",
    "whose",
    "button",
    "says",
    "total",
    "is",
    "wrong",
)
THRESHOLD = -0.5
MAY_OPEN, MAY_FILTER = 3.0, 0.1
"""Seconds."""


def made_runs(count: int, seed: int = 0) -> Iterator[Run]:
    """Runs of a made-up agent, the same for the same seed. Runs of a task begin alike; a failed one parts badly."""
    rng = random.Random(seed)  # noqa: S311
    for number in range(count):
        success = rng.random() < 0.6
        task = number // 4
        parting = rng.randrange(2, STEPS - 2)  # until here runs of a task act alike
        history = [TracedMessage("system", "You are a careful shop assistant. " + words(random.Random(0), 60))]  # noqa: S311
        history.append(TracedMessage("user", f"Task {task}: {words(random.Random(task), 30)}"))  # noqa: S311
        steps = []
        for index in range(STEPS):
            drawn = random.Random(f"{task} {index}") if index < parting else rng  # noqa: S311
            steps.append(_step(drawn, number, index, tuple(history), bad=index == parting and not success))
            chosen = steps[-1].selected
            assert chosen is not None
            call = TracedCall(steps[-1].tool_call_ids[0], chosen.tool_names[0], chosen.tool_arguments[0])
            history.append(TracedMessage("assistant", chosen.text or "", chosen.reasoning, (call,)))
            history.append(TracedMessage("tool", words(rng, 40), answers=call.id))
        yield Run(f"{rng.getrandbits(128):032x}", f"shop-{number:04d}", tuple(steps), "shop", success, f"order {task}")


def words(rng: random.Random, count: int) -> str:
    """A text."""
    return " ".join(rng.choices(WORDS, k=count))


def _step(rng: random.Random, run: int, index: int, history: tuple[TracedMessage, ...], *, bad: bool) -> TracedStep:
    count = 4 if rng.random() < 1 / 3 else 1
    candidates = tuple(_candidate(rng, place, -3.0 if bad else 0.4) for place in range(count))
    scores = [each.score or 0.0 for each in candidates]
    selected = candidates[max(range(count), key=scores.__getitem__)]
    low = (selected.score or 0.0) < THRESHOLD
    start = 1_790_000_000_000_000_000 + (run * STEPS + index) * 1_500_000_000
    attributes: dict[str, Value] = {
        "openinference.span.kind": "GUARDRAIL",
        "pa_middleware.step.index": index,
        "pa_middleware.score": selected.score or 0.0,
        "pa_middleware.score.normalization": "sum",
        "pa_middleware.policy.model": "made/policy",
        "pa_middleware.reference.model": "made/reference",
        "pa_middleware.langgraph.checkpoint_id": f"{rng.getrandbits(128):032x}",
    }
    return TracedStep(
        index=index,
        attempt=1,
        span_id=f"{rng.getrandbits(64):016x}",
        start_ns=start,
        decision="flag" if low else "pass" if count == 1 else "resample",
        reason="budget_exhausted" if low else "above_threshold",
        score=selected.score,
        threshold=THRESHOLD,
        action_kind="tool_call",
        tool_names=selected.tool_names,
        tool_call_ids=(f"call-{index}",),
        selected_index=selected.index,
        candidates=candidates,
        error=None,
        attributes=attributes,
        mode="enforce",
        tiers=("default",),
        end_ns=start + 900_000_000,
        history=history,
        tool_definitions=json.dumps([{"name": name, "description": "Does what it says."} for name in TOOLS]),
    )


def _candidate(rng: random.Random, index: int, centre: float) -> TracedCandidate:
    ratios = tuple(rng.gauss(centre / TOKENS, 0.15) for _ in range(TOKENS))
    score = sum(ratios)
    tool = rng.choice(TOOLS)
    lowest = min(range(TOKENS), key=ratios.__getitem__)
    attributes: dict[str, Value] = {
        "openinference.span.kind": "EVALUATOR",
        "pa_middleware.candidate.index": index,
        "gen_ai.evaluation.score.value": score,
        "pa_middleware.token.count": TOKENS,
    }
    return TracedCandidate(
        index=index,
        span_id=f"{rng.getrandbits(64):016x}",
        score=score,
        threshold=THRESHOLD,
        label="fail" if score < THRESHOLD else "pass",
        token_count=TOKENS,
        log_ratio_min=ratios[lowest],
        log_ratio_argmin=lowest,
        log_ratio_mean=score / TOKENS,
        log_ratios=ratios,
        text=words(rng, 8),
        tool_arguments=(json.dumps({"query": words(rng, 3), "limit": rng.randrange(9)}),),
        error=None,
        attributes=attributes,
        output_tokens=TOKENS,
        action_kind="tool_call",
        tool_names=(tool,),
        token_texts=tuple(f" {word}" for word in rng.choices(WORDS, k=TOKENS)),
        policy_log_prob=-4.0 + score,
        reference_log_prob=-4.0,
    )


def write(count: int, file: Path) -> tuple[Written, dict[str, float]]:
    """Seconds that writing takes, and without the time to make the runs; megabytes in memory at most."""
    started = time.perf_counter()
    for _ in made_runs(count):
        pass
    making = time.perf_counter() - started
    started = time.perf_counter()
    written = write_report(made_runs(count), file)
    seconds = time.perf_counter() - started - making
    tracemalloc.start()
    write_report(made_runs(min(count, 100)), file.with_name("small.html"))
    few = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return written, {"write_s": seconds, "megabytes": written.size / 1e6, "peak_mb_of_100_runs": few / 1e6}


def browse(file: Path) -> dict[str, Any]:
    """Seconds that the page takes to open and to answer."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        opening = []
        for _ in range(5):
            page.goto("about:blank")
            page.goto(file.as_uri())
            page.wait_for_selector("html[data-ready]")
            opening.append(page.evaluate("performance.now()") / 1e3)
        page.evaluate(_WATCH)
        structured = {name: page.evaluate(_TYPE, given) for name, given in _TYPED.items()}
        page.keyboard.press("/")
        started = time.perf_counter()
        keys = [page.evaluate(_TYPE, ["#search", "total is"[: length + 1]]) for length in range(8)]
        page.wait_for_selector("#count:not([data-searching])")
        first = time.perf_counter() - started
        started = time.perf_counter()
        page.evaluate(_TYPE, ["#search", "wrong"])
        page.wait_for_timeout(70)
        page.wait_for_selector("#count:not([data-searching])")
        again = time.perf_counter() - started
        blocked = page.evaluate("Math.max(0, ...window.tasks)")
        browser.close()
    return {
        "open_s": sorted(opening),
        "filter_s": {name: seconds / 1e3 for name, seconds in structured.items()},
        "text_key_s": max(keys) / 1e3,
        "first_text_search_s": first,
        "next_text_search_s": again,
        "blocked_s": blocked / 1e3,
    }


_WATCH = """() => {
  window.tasks = [];
  new PerformanceObserver((list) => list.getEntries().forEach((task) => window.tasks.push(task.duration)))
    .observe({ type: "longtask" });
}"""
_TYPE = """([selector, value]) => {
  const input = document.querySelector(selector);
  const started = performance.now();
  if (value === null) input.click();
  else { input.value = value; input.dispatchEvent(new Event("input", { bubbles: true })); }
  document.body.offsetHeight;  // with its layout
  return performance.now() - started;
}"""
_TYPED: dict[str, list[str | None]] = {
    "from score": ["input[aria-label='from score']", "-2"],
    "to score": ["input[aria-label='to score']", "-1"],
    "decision": ["[aria-label=Decision] button", None],
    "outcome": ["[aria-label=Outcome] button", None],
    "tool": ["#tools-menu input", None],
    "clear": ["#filters .quiet", None],
}


def chromium() -> str:
    """A Chromium of this machine: $PA_CHROMIUM, or one on the path."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = os.environ.get("PA_CHROMIUM") or next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        raise SystemExit(f"no browser: none of {', '.join(names)} is on the path; set PA_CHROMIUM to one")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--keep", type=Path, help="write the report here and leave it")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = given.keep or Path(folder, "report.html")
        written, figures = write(given.runs, file)
        found: dict[str, Any] = {"runs": written.runs, "steps": written.steps, **figures, **browse(file)}
    found["open_is_fast_enough"] = found["open_s"][-1] < MAY_OPEN
    slowest = max(*found["filter_s"].values(), found["text_key_s"], found["blocked_s"])
    found["filter_is_fast_enough"] = slowest < MAY_FILTER
    told = json.dumps(found, indent=2)
    print(told)
    if given.json is not None:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(told + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
