from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from debugging.report.made import candidate, run, shop
from debugging.report.watched import heading, open_run, opened, wait_for_run

from pa_middleware.debugging.report import write_report
from pa_middleware.tracing.runs import Run, TracedMessage, TracedStep

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FAILED, PASSED, BARE = (each.id for each in shop())


def test_a_run_opens_at_its_first_suspect_with_the_reason(page: Page) -> None:
    open_run(page, "shop 1")
    assert heading(page) == "Step 3"
    assert "step 3 scores -4" in page.locator(".suspects").inner_text()
    assert page.locator(".rank-mark").first.inner_text() == "1"
    detail = page.locator("#detail").inner_text()
    assert "Score \u22124.00, 3.50 below its threshold \u22120.50; suspect 1 of this run" in detail
    assert page.locator(".candidate").count() == 3
    assert page.locator(".candidate.selected").inner_text().startswith("#0")
    assert page.locator(".candidate", has_text="rejected").count() == 2
    assert "Result 3 of aa." in detail  # what the tool answered
    assert page.locator(".message.fresh").count() == 2
    assert "Buy aa apples." in detail


def test_no_step_stands_out_is_said(page: Page) -> None:
    open_run(page, "shop-2")
    assert "No step stands out" in page.locator(".suspects").inner_text()


def test_tokens_are_shaded_on_demand_and_tell_their_log_ratio(page: Page) -> None:
    open_run(page, "shop 1")
    page.get_by_role("button", name="Tokens").click()
    box = page.locator(".candidate.selected")
    assert box.locator(".token").all_inner_texts() == ["pay(", ")"]
    assert box.locator(".token").nth(0).get_attribute("class") == "token even"
    assert "less-4" in (box.locator(".token").nth(1).get_attribute("class") or "")
    box.locator(".token").nth(0).hover()
    assert box.locator(".readout").inner_text().split() == ["token", "0", "pay(", "+0.000"]
    box.locator(".token").nth(0).focus()
    page.keyboard.press("ArrowRight")
    assert box.locator(".readout").inner_text().split() == ["token", "1", ")", "\u22124.000"]


def test_what_was_not_recorded_is_said(page: Page) -> None:
    open_run(page, BARE)
    page.keyboard.press("t")
    text = page.locator("#detail").inner_text()
    for words in (
        "Its text and arguments were not recorded",
        "Log-ratios of tokens were not recorded",
        "Not recorded: messages are content",
    ):
        assert words in text
    assert page.get_by_role("button", name="Copy replay").count() == 0
    page.keyboard.press("c")
    page.get_by_text("There is no other run to compare with.").wait_for()


def test_a_failed_run_stands_beside_a_succeeded_one_from_where_they_part(page: Page) -> None:
    open_run(page, "shop 1")
    page.get_by_role("button", name="Compare").click()
    place = page.locator("#compare")
    place.get_by_text("3 steps alike, then they act differently at step 3.").wait_for()
    assert "drawn here too, as candidate #1 with score \u22125.00, and not taken" in place.inner_text()
    sides = place.locator(".divergence .action").all_inner_texts()
    assert sides == ["pay sum=9", "look at=shelf"]
    assert place.locator(".pair.alike").count() == 2 + 4
    place.get_by_role("button", name="Show 1 step alike").click()
    assert place.locator(".pair.alike").count() == 3 + 4
    page.wait_for_url(lambda url: f"compare={PASSED}" in url)
    place.locator(".divergence .side").nth(1).get_by_role("button").click()
    wait_for_run(page, "shop-2")


def test_the_replay_command_is_copied_quoted_for_the_shell(page: Page) -> None:
    open_run(page, "shop 1")
    page.get_by_role("button", name="Copy replay").click()
    told = page.evaluate("navigator.clipboard.readText()")
    assert told == "pa-middleware replay 'shop 1' --app shop.app:make --from 3"


def test_a_verdict_is_kept_and_exported(page: Page) -> None:
    assert page.locator("#export").is_disabled()
    open_run(page, "shop 1")
    page.get_by_role("button", name="⚑ Mark").click()
    page.keyboard.type('It paid "9" <b>blindly</b>')
    page.keyboard.press("Enter")
    assert "You marked this step as decisive" in page.locator("#detail").inner_text()
    page.reload()
    page.wait_for_selector(".verdict.mine")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export 1 verdict").click()
    lines = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"run": FAILED, "step": 3, "reason": 'It paid "9" <b>blindly</b>'}]
    page.get_by_role("button", name="Take back").click()
    assert page.locator("#export").is_disabled()


def test_all_attributes_are_there_on_demand(page: Page) -> None:
    open_run(page, "shop 1")
    page.get_by_text("All attributes").click()
    page.locator(".attributes").first.wait_for()
    rows = [" ".join(row.split()) for row in page.locator(".attributes tr").all_inner_texts()]
    assert "pa_middleware.policy.model made" in rows
    assert "pa_middleware.token.texts shown above" in rows


def test_what_came_of_a_step_is_said_where_no_message_answers_its_calls(browser: Browser, tmp_path: Path) -> None:
    def seen(*texts: str) -> tuple[TracedMessage, ...]:
        return tuple(TracedMessage("user", text) for text in texts)

    [failed, *_] = shop()
    histories = (seen("rules", "at home"), seen("rules", "at work"), seen("rules", "at work"), ())
    steps = tuple(replace(each, history=seen) for each, seen in zip(failed.steps, histories, strict=False))
    write_report([replace(failed, steps=steps)], tmp_path / "report.html")
    expected = {
        0: ("What the next step was newly shown", "at work"),
        1: ("What the next step was newly shown", "Nothing new: all its messages were shown before."),
        2: ("Observation", "Not recorded of this step."),
        3: ("Observation", "The run ends here."),
    }
    with opened(browser, tmp_path / "report.html", f"#run={quote(failed.id)}&step=0") as page:
        for step, (words, content) in expected.items():
            page.get_by_role("heading", name=f"Step {step}", exact=True).wait_for()
            part = page.locator("#detail .part", has=page.get_by_role("heading", name=words, exact=True))
            assert content in part.inner_text()
            assert "at home" not in part.inner_text()
            page.keyboard.press("j")


def test_a_button_keeps_the_focus_when_what_is_around_it_is_drawn_anew(page: Page) -> None:
    focused = "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent"
    page.keyboard.press("Enter")
    wait_for_run(page, "shop 1")
    assert page.evaluate(focused) == "Steps"
    for name, times in (("Next step", 3), ("Tokens", 2), ("Next run", 2)):
        page.get_by_role("button", name=name, exact=True).focus()
        for _ in range(times):
            page.keyboard.press("Enter")
            page.wait_for_timeout(0)
            assert page.evaluate(focused) == name
    wait_for_run(page, BARE)


def test_runs_of_which_next_to_nothing_is_known_can_be_looked_at(browser: Browser, tmp_path: Path) -> None:
    [failed, *_] = shop()
    bare = TracedStep(0, 1, "", 0, "", "", None, None, "", (), (), None, (), None, {})
    many = run("d" * 32, "many", [[candidate(place, place / 10, "look", at=place) for place in range(50)]])
    tools = run("e" * 32, "tools", [[candidate(0, 0.1, f"tool {place}")] for place in range(402)])
    resumed = replace(failed, steps=tuple(replace(each, index=each.index // 2, attempt=2) for each in failed.steps))
    runs = [Run("f" * 32, None, ()), Run("0" * 32, None, (bare, bare)), many, tools, resumed]
    write_report(runs, tmp_path / "report.html")
    with opened(browser, tmp_path / "report.html") as page:
        page.keyboard.press("Enter")
        for _ in runs:
            for key in "tjkscc":
                page.keyboard.press(key)
            page.locator("#detail").wait_for()
            assert not re.search(r"NaN|undefined|\[object|null", page.locator("body").inner_text())
            page.keyboard.press("n")
        page.locator("#tools-menu summary").click()
        assert "5 rarer ones: search for their names." in page.locator("#tools-menu").inner_text()
