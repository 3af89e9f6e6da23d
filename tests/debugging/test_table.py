from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from pa_middleware.debugging import explain
from pa_middleware.debugging.table import render
from pa_middleware.tracing import conventions as names
from pa_middleware.tracing.runs import Run, TracedCandidate, TracedStep

CANDIDATE = TracedCandidate(
    index=0,
    span_id="c",
    score=-2.5,
    threshold=-0.5,
    label="fail",
    token_count=4,
    log_ratio_min=-1.0,
    log_ratio_argmin=0,
    log_ratio_mean=-0.5,
    log_ratios=(),
    text=None,
    tool_arguments=(),
    error=None,
    attributes={},
)
STEP = TracedStep(
    index=3,
    attempt=1,
    span_id="s",
    start_ns=1,
    decision="flag",
    reason="budget_exhausted",
    score=-2.5,
    threshold=-0.5,
    action_kind="tool_call",
    tool_names=("search",),
    tool_call_ids=("call-1",),
    selected_index=0,
    candidates=(CANDIDATE, CANDIDATE),
    error=None,
    attributes={},
)
GOOD = replace(STEP, index=4, decision="pass", reason="above_threshold", score=1.25, candidates=(CANDIDATE,))


def _shown(*steps: TracedStep, width: int = 80, colour: bool = False, conversation: str | None = None) -> str:
    return _rendered(Run("f" * 32, conversation, steps), width, colour)


def _rendered(run: Run, width: int = 80, colour: bool = False) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=colour, color_system="truecolor" if colour else None)
    console.print(render(run, explain(run)))
    return out.getvalue()


def test_a_step_is_a_row_with_action_score_bar_threshold_decision_and_draws() -> None:
    (row,) = [line for line in _shown(STEP, GOOD).splitlines() if "flag" in line and "1." not in line]
    assert row.split() == ["3", "search", "-2.5", "-----|", "-0.5", "flag", "2"]
    (row,) = [line for line in _shown(STEP, GOOD).splitlines() if "pass" in line and "2." not in line]
    assert row.split() == ["4", "search", "+1.25", "|++", "-0.5", "pass", "1"]


def test_the_suspects_are_ranked_under_the_table_and_whether_one_stands_out_is_said() -> None:
    shown = _shown(GOOD, STEP).splitlines()
    assert "1. step 3 -2.5  flag (budget_exhausted): search" in shown
    assert "2. step 4 +1.25  pass (above_threshold): search" in shown
    assert "No step stands out: step 3 scores -2.5; it takes 3 scores to tell." in shown
    many = [replace(GOOD, index=index, score=1.0 + index / 100) for index in range(4, 10)]
    assert "Step 3 scores -2.5; the next, step 4, is 3.54 away, a gap that chance seldom" in _shown(*many, STEP)
    assert sum(line.startswith(("1.", "2.", "3.", "4.")) for line in _shown(*many, STEP).splitlines()) == 3


def test_where_tokens_are_known_the_share_of_resamples_is_said() -> None:
    known = [
        replace(step, candidates=(replace(CANDIDATE, log_ratios=(step.score or 0.0,), token_count=1),))
        for step in (STEP, GOOD)
    ]
    known = [replace(step, selected_index=0, attributes={names.NORMALIZATION: "sum"}) for step in known]
    assert "First in 100% of resamples of its tokens." in " ".join(_shown(*known).split())


@pytest.mark.parametrize("width", [70, 80, 120])
def test_no_line_is_wider_than_the_terminal_whatever_the_action(width: int) -> None:
    long = replace(STEP, tool_names=("tool" * 100,), decision="x" * 50)
    shown = _shown(long, GOOD, width=width, conversation="c" * 90)
    assert max(map(len, shown.splitlines())) <= width
    assert "+1.25" in shown


def test_without_colour_no_escape_sequence_is_written_and_with_it_decisions_have_one() -> None:
    assert "\x1b" not in _shown(STEP, GOOD)
    assert "\x1b[33mflag" in _shown(STEP, GOOD, colour=True)


@pytest.mark.parametrize(
    "hostile",
    [
        "[red]x[/red]",
        "[/]",
        "[link=http://evil]x[/link]",
        "\x1b[2Jx",
        "\x1b]0;x\x07",
        "a\nb\rc",
        "\u202ex\u202c",
        "\x9b1m",
    ],
)
def test_untrusted_text_is_neither_markup_nor_control(hostile: str) -> None:
    candidate = replace(CANDIDATE, tool_arguments=(hostile,), text=hostile)
    step = replace(STEP, tool_names=(hostile,), decision=hostile, reason=hostile, candidates=(candidate,))
    message = replace(step, tool_names=(), tool_call_ids=(), action_kind=hostile)
    shown = _rendered(Run(hostile, hostile, (step, message)), 400)
    assert all(char.isprintable() or char == "\n" for char in shown)
    assert shown.count("\n") == _rendered(Run("x", "x", (STEP, STEP)), 400).count("\n")
    if "[" in hostile:
        assert hostile.replace("\x1b", "\\x1b").replace("\x9b", "\\x9b")[:5] in shown


def test_an_untrusted_decision_is_no_style() -> None:
    assert "\x1b[5m" not in _shown(replace(STEP, decision="blink"), colour=True)


def test_a_step_without_score_or_end_is_shown_as_such() -> None:
    unfinished = replace(STEP, decision="", reason="", score=None, threshold=None, tool_names=(), action_kind="")
    shown = _shown(unfinished)
    assert "unfinished" in shown
    assert "No step of this run has a score." in shown


def test_in_shadow_mode_what_was_only_noted_is_in_brackets_and_counted() -> None:
    low = replace(STEP, decision="abstain", reason="below_threshold", mode="shadow")
    good = replace(GOOD, mode="shadow")
    shown = _shown(low, good, good)
    (row,) = [line for line in shown.splitlines() if line.startswith("    3")]
    assert row.split()[-2:] == ["(abstain)", "2"]
    assert [line.split()[-2] for line in shown.splitlines() if line.startswith("    4")] == ["pass", "pass"]
    assert "abstain in shadow mode (below_threshold): search" in " ".join(shown.split())
    assert "Shadow: 1 of 3 steps would have been stopped or drawn again." in shown
    assert "Shadow: 0 of 1 steps would have been" in _shown(good)
    flagged = _shown(replace(low, decision="flag"), replace(low, decision=""))
    assert "Shadow: 1 of 1 steps would have been stopped, drawn again or marked." in flagged


def test_in_shadow_mode_without_any_threshold_nothing_counts_as_judged() -> None:
    free = replace(GOOD, mode="shadow", threshold=None)
    assert "Shadow: no threshold, so nothing was judged." in _shown(free, free)
    assert "Shadow: 0 of 2 steps" in _shown(free, replace(GOOD, mode="shadow"))
    failed = replace(free, decision="abstain", reason="scorer_error", score=None)
    assert "Shadow: 1 of 2 steps" in _shown(free, failed)


@pytest.mark.parametrize("mode", ["", "enforce"])
def test_outside_shadow_mode_a_decision_is_what_was_done(mode: str) -> None:
    shown = _shown(replace(STEP, mode=mode), GOOD)
    assert "(flag)" not in shown
    assert "hadow" not in shown
