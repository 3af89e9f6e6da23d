from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from debugging.report.made import shop
from debugging.report.watched import heading, open_run, opened, wait_for_run

from pa_middleware.debugging.report import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FAILED, PASSED, BARE = (each.id for each in shop())


def _names(page: Page) -> list[str]:
    return page.locator(".run-row .cell.name button").all_inner_texts()


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


def test_the_filter_counts_what_matches_and_steps_through_it(page: Page) -> None:
    page.get_by_role("button", name="flag 1").click()
    assert page.locator("#count").inner_text() == "1 of 3 runs, 1 of 23 steps"
    assert _names(page) == ["shop 1"]
    page.get_by_role("button", name="flag 1").click()
    page.get_by_label("from score").fill("0.55")
    page.get_by_label("to score").fill("1")
    assert page.locator("#count").inner_text() == "3 runs, 7 of 23 steps"
    open_run(page, "shop-2")
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
    open_run(page, "shop 1")
    assert heading(page) == "Step 3"
    page.keyboard.press("k")
    assert page.locator("#said").inner_text() == "That was the first step"
    page.keyboard.press("j")
    assert heading(page) == "Step 4"
    page.keyboard.press("n")
    wait_for_run(page, "shop-2")
    page.keyboard.press("n")
    assert page.locator("#said").inner_text() == "That was the last run"


def test_a_permalink_opens_the_step_with_the_filter_and_survives_a_reload(browser: Browser, report: Path) -> None:
    with opened(browser, report, f"#run={PASSED}&step=5&tokens=1&least=0.1&decisions=pass") as page:
        for _ in range(2):
            assert page.locator(".run-head h2").inner_text() == "shop-2"
            assert heading(page) == "Step 5"
            assert page.get_by_label("from score").input_value() == "0.1"
            assert page.locator(".tokens").count() == 1
            page.reload()
            page.wait_for_selector("#detail h2")
        page.get_by_role("button", name="Copy link").click()
        assert page.evaluate("navigator.clipboard.readText()") == page.url
        page.evaluate(f"location.hash = 'run={quote(FAILED)}&step=1'")
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
    wait_for_run(page, "shop-2")
    press("p")
    wait_for_run(page, "shop 1")
    headings = []
    for key in ("ArrowDown", "ArrowUp", "j", "j", "k", "s", "s"):
        press(key)
        headings.append(heading(page))
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


def test_conversations_that_share_a_trace_have_links_of_their_own(browser: Browser, tmp_path: Path) -> None:
    runs = [replace(run, trace_id="a" * 32) for run in shop()[:2]]
    write_report(runs, tmp_path / "report.html")
    with opened(browser, tmp_path / "report.html", f"#run={'a' * 32}.shop-2&step=5") as page:
        wait_for_run(page, "shop-2")
        page.keyboard.press("p")
        wait_for_run(page, "shop 1")
        page.reload()
        wait_for_run(page, "shop 1")


def test_back_returns_to_the_step_that_was_open_last(page: Page) -> None:
    open_run(page, "shop 1")
    page.keyboard.press("j")
    page.keyboard.press("n")
    wait_for_run(page, "shop-2")
    page.go_back()
    page.get_by_role("heading", name="Step 4", exact=True).wait_for()
    assert page.locator(".run-head h2").inner_text() == "shop 1"
    page.go_back()
    page.locator("#overview").wait_for()
    page.go_forward()
    wait_for_run(page, "shop 1")


def test_a_page_that_may_not_write_its_address_works_all_the_same(page: Page) -> None:
    page.evaluate("void (history.pushState = history.replaceState = () => { throw new DOMException('no'); })")
    open_run(page, "shop 1")
    page.keyboard.press("j")
    assert heading(page) == "Step 4"
    page.get_by_role("button", name="Copy link").click()
    assert page.evaluate("navigator.clipboard.readText()").endswith(".shop+1&step=4")


def test_the_menu_of_tools_closes_by_escape_and_by_a_click_elsewhere(page: Page) -> None:
    menu = page.locator("#tools-menu")
    summary = menu.locator("summary")
    for escape in (True, False):
        summary.click()
        menu.get_by_role("checkbox").first.check()
        page.keyboard.press("Enter")  # opens no run
        if escape:
            page.keyboard.press("Escape")
        else:
            page.locator("h1").click()
        assert menu.get_attribute("open") is None
    assert page.locator("#overview").is_visible()


def test_a_page_whose_script_cannot_run_says_so(browser: Browser, report: Path) -> None:
    for runs_scripts in (False, True):
        context = browser.new_context(java_script_enabled=runs_scripts)
        context.add_init_script("delete window.DecompressionStream")
        page = context.new_page()
        page.goto(report.as_uri())
        assert "which needs the whole file and a browser that runs scripts" in page.locator("main").inner_text()
        context.close()
