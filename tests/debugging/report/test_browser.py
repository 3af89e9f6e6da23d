from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from debugging.report.made import shop
from debugging.report.watched import opened

from pa_middleware.debugging.report import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FAILED, PASSED, BARE = (trace * 16 for trace in ("aa", "bb", "cc"))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("report") / "report.html"
    write_report(shop(), file, title="Shop", app="shop.app:make")
    return file


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Page]:
    with opened(browser, report) as found:
        yield found


def _names(page: Page) -> list[str]:
    return page.locator(".run-row .cell.name button").all_inner_texts()


def _run(page: Page, name: str) -> None:
    """Waits until this run is open."""
    page.locator(".run-head h2", has_text=name).wait_for()


def _open(page: Page, name: str) -> None:
    page.get_by_role("button", name=name).click()
    _run(page, name)


def _heading(page: Page) -> str:
    return page.locator("#detail h2").inner_text()


def _steps(page: Page) -> list[str]:
    """The steps that match."""
    return page.locator(".step-row:not(.dim) .number").all_inner_texts()


def test_runs_are_listed_by_their_lowest_score_and_sorted_by_what_is_clicked(page: Page) -> None:
    assert _names(page) == ["shop 1", "shop-2", BARE]
    worst = page.locator(".run-row").first
    assert "failed" in worst.inner_text()
    assert "\u22124.00" in worst.inner_text()
    assert "step 3" in worst.inner_text()
    assert worst.locator("[aria-label='stands out']").count() == 1
    page.locator(".heads .outcome button").click()
    assert _names(page) == ["shop 1", BARE, "shop-2"]
    page.locator(".heads .outcome button").click()
    assert _names(page) == ["shop-2", BARE, "shop 1"]
    assert page.locator(".heads .outcome").get_attribute("aria-sort") == "descending"
    page.locator(".heads .steps button").click()
    assert _names(page)[0] == BARE  # seven steps, the others eight


def test_a_run_opens_at_its_first_suspect_with_the_reason(page: Page) -> None:
    _open(page, "shop 1")
    assert _heading(page) == "Step 3"
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
    _open(page, "shop-2")
    assert "No step stands out" in page.locator(".suspects").inner_text()


def test_the_filter_counts_what_matches_and_steps_through_it(page: Page) -> None:
    page.get_by_role("button", name="flag 1").click()
    assert page.locator("#count").inner_text() == "1 of 3 runs, 1 of 23 steps"
    assert _names(page) == ["shop 1"]
    page.get_by_role("button", name="flag 1").click()
    page.get_by_label("from score").fill("0.55")
    page.get_by_label("to score").fill("1")
    assert page.locator("#count").inner_text() == "3 runs, 7 of 23 steps"
    _open(page, "shop-2")
    assert _steps(page) == ["1", "2", "3"]
    assert page.locator(".run-head .buttons").inner_text().startswith("2 of 3")
    page.get_by_role("button", name="failed 1").click()
    assert page.locator(".run-head .buttons").inner_text().startswith("not in the filter")
    page.get_by_role("button", name="failed 1").click()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Clear").click()
    page.locator("#tools-menu summary").click()
    page.locator("#tools-menu label", has_text="look").click()
    assert page.locator("#count").inner_text() == "3 runs, 10 of 23 steps"


def test_text_is_searched_in_actions_arguments_messages_and_observations(page: Page) -> None:
    found = {}
    for words in ("shelf", "result 3 of aa", '"sum": 7', "shop assistant", "nowhere"):
        page.locator("#search").fill(words)
        page.wait_for_selector("#count:not([data-searching])")
        found[words] = page.locator("#count").inner_text()
    assert found == {
        "shelf": "2 of 3 runs, 3 of 23 steps",
        "result 3 of aa": "1 of 3 runs, 2 of 23 steps",  # the step that asked, and the one that was shown it
        '"sum": 7': "1 of 3 runs, 1 of 23 steps",
        "shop assistant": "2 of 3 runs, 2 of 23 steps",
        "nowhere": "0 of 3 runs, 0 of 23 steps",
    }
    assert page.get_by_text("No run matches the filter.").is_visible()


def test_next_and_previous_respect_the_filter(page: Page) -> None:
    page.locator("#search").fill("sum")
    page.wait_for_selector("#count:not([data-searching])")
    page.locator("#search").blur()
    _open(page, "shop 1")
    assert _heading(page) == "Step 3"
    page.keyboard.press("k")
    assert page.locator("#said").inner_text() == "That was the first step"
    page.keyboard.press("j")
    assert _heading(page) == "Step 4"
    page.keyboard.press("n")
    _run(page, "shop-2")
    page.keyboard.press("n")
    assert page.locator("#said").inner_text() == "That was the last run"


def test_a_permalink_opens_the_step_with_the_filter_and_survives_a_reload(browser: Browser, report: Path) -> None:
    with opened(browser, report, f"#run={PASSED}&step=5&tokens=1&least=0.1&decisions=pass") as page:
        for _ in range(2):
            assert page.locator(".run-head h2").inner_text() == "shop-2"
            assert _heading(page) == "Step 5"
            assert page.get_by_label("from score").input_value() == "0.1"
            assert page.locator(".tokens").count() == 1
            page.reload()
            page.wait_for_selector("#detail h2")
        page.get_by_role("button", name="Copy link").click()
        assert page.evaluate("navigator.clipboard.readText()") == page.url
        page.evaluate(f"location.hash = 'run={FAILED}&step=1'")
        page.get_by_role("heading", name="Step 1", exact=True).wait_for()
        assert page.locator(".run-head h2").inner_text() == "shop 1"
        page.go_back()
        page.get_by_role("heading", name="Step 5", exact=True).wait_for()
    with opened(browser, report, "#run=unknown&step=x&sort=__proto__&least=e") as page:
        assert page.locator("#said").inner_text() == "The run of this link is not in this report."
        assert len(_names(page)) == 3


def test_all_can_be_done_by_keys(page: Page) -> None:
    press = page.keyboard.press
    press("j")
    press("Enter")
    _run(page, "shop-2")
    press("p")
    _run(page, "shop 1")
    headings = []
    for key in ("ArrowDown", "ArrowUp", "j", "j", "k", "s", "s"):
        press(key)
        headings.append(_heading(page))
    assert [int(each.removeprefix("Step ")) for each in headings] == [4, 3, 4, 5, 4, 5, 6]
    press("t")
    assert page.locator(".tokens").count() == 1
    press("t")
    assert page.locator(".tokens").count() == 0
    press("c")
    assert page.locator(".compare").is_visible()
    press("c")
    assert page.locator("#detail").is_visible()
    press("/")
    page.keyboard.type("jktc?")
    assert page.locator("#search").input_value() == "jktc?"
    press("Escape")
    press("?")
    assert page.get_by_role("dialog").is_visible()
    press("Escape")
    assert not page.get_by_role("dialog").is_visible()
    press("u")
    assert page.locator("#overview").is_visible()


def test_tokens_are_shaded_on_demand_and_tell_their_log_ratio(page: Page) -> None:
    _open(page, "shop 1")
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
    _open(page, BARE)
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
    _open(page, "shop 1")
    page.get_by_role("button", name="Compare").click()
    place = page.locator("#compare")
    place.get_by_text("3 steps alike, then they act differently at step 3.").wait_for()
    assert "drawn here too, as candidate #1 with score \u22125.00, and not taken" in place.inner_text()
    sides = place.locator(".divergence .action").all_inner_texts()
    assert sides == ["pay sum=9", "look at=shelf"]
    assert place.locator(".pair.alike").count() == 2 + 4
    place.get_by_role("button", name="Show 1 step alike").click()
    assert place.locator(".pair.alike").count() == 3 + 4
    assert f"compare={PASSED}" in page.url
    place.locator(".divergence .side").nth(1).get_by_role("button").click()
    _run(page, "shop-2")


def test_the_replay_command_is_copied_quoted_for_the_shell(page: Page) -> None:
    _open(page, "shop 1")
    page.get_by_role("button", name="Copy replay").click()
    told = page.evaluate("navigator.clipboard.readText()")
    assert told == "pa-middleware replay 'shop 1' --app shop.app:make --from 3"


def test_dark_and_light_follow_the_system_until_chosen(browser: Browser, report: Path) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    with opened(browser, report, color_scheme="dark") as page:
        dark = page.evaluate(ground)
        page.keyboard.press("d")
        light = page.evaluate(ground)
        assert light != dark
        page.reload()
        page.wait_for_selector(".run-row")
        assert page.evaluate(ground) == light
    with opened(browser, report, color_scheme="light") as page:
        assert page.evaluate(ground) == light


def test_a_verdict_is_kept_and_exported(page: Page) -> None:
    assert page.locator("#export").is_disabled()
    _open(page, "shop 1")
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


def test_without_local_storage_everything_still_works(browser: Browser, report: Path) -> None:
    with opened(browser, report) as page:
        page.context.add_init_script(
            "Object.defineProperty(window, 'localStorage', { get() { throw new Error('no'); } });"
        )
        page.reload()
        page.wait_for_selector(".run-row")
        page.keyboard.press("d")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="⚑ Mark").click()
        page.keyboard.press("Enter")
        assert page.get_by_role("button", name="Export 1 verdict").is_enabled()


def test_all_attributes_are_there_on_demand(page: Page) -> None:
    _open(page, "shop 1")
    page.get_by_text("All attributes").click()
    page.locator(".attributes").first.wait_for()
    rows = [" ".join(row.split()) for row in page.locator(".attributes tr").all_inner_texts()]
    assert "pa_middleware.policy.model made" in rows
    assert "pa_middleware.token.texts shown above" in rows


def test_conversations_that_share_a_trace_have_links_of_their_own(browser: Browser, tmp_path: Path) -> None:
    runs = [replace(run, trace_id=FAILED) for run in shop()[:2]]
    write_report(runs, tmp_path / "report.html")
    with opened(browser, tmp_path / "report.html", f"#run={FAILED}.shop-2&step=5") as page:
        _run(page, "shop-2")
        page.keyboard.press("p")
        _run(page, "shop 1")
        page.reload()
        _run(page, "shop 1")
