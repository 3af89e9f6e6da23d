"""A browser page that holds everything against the report which a harmless page would not do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Page

_VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective));
"""


@contextmanager
def opened(browser: Browser, file: Path, fragment: str = "", **settings: Any) -> Iterator[Page]:
    """The report, ready. On leaving, fails if it asked for anything, wrote to the console or broke its policy."""
    context = browser.new_context(**{"viewport": {"width": 1300, "height": 850}, **settings})
    context.set_default_timeout(4_000)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    context.add_init_script(_VIOLATIONS)
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("dialog", lambda dialog: _refuse(wrong, dialog))
    page.on("popup", lambda popup: wrong.append(f"popup: {popup.url}"))
    page.on("request", lambda request: _note(wrong, request.url, file))
    try:
        page.goto(file.as_uri() + fragment)
        page.wait_for_selector("html[data-ready]", state="attached")
        yield page
        assert page.evaluate("window.violations") == []
        assert wrong == []
    finally:
        context.close()


def wait_for_run(page: Page, name: str) -> None:
    """Waits until this run is open."""
    page.locator(".run-head h2", has_text=name).wait_for()


def open_run(page: Page, name: str) -> None:
    """Opens a run from the list."""
    page.get_by_role("button", name=name).click()
    wait_for_run(page, name)


def heading(page: Page) -> str:
    """Which step is open."""
    return page.locator("#detail h2").inner_text()


def _refuse(wrong: list[str], dialog: Dialog) -> None:
    wrong.append(f"dialog: {dialog.message}")
    dialog.dismiss()


def _note(wrong: list[str], url: str, file: Path) -> None:
    if url.split("#")[0] != file.as_uri() and not url.startswith("blob:"):
        wrong.append(f"request: {url}")
