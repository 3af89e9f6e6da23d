from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from debugging.report.made import shop
from debugging.report.watched import opened

from pa_middleware.debugging.report import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium of this machine: $PA_CHROMIUM, or one on the path."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = os.environ.get("PA_CHROMIUM") or next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: set PA_CHROMIUM, or put one of {', '.join(NAMES)} on the path")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of the shop's three runs."""
    file = tmp_path_factory.mktemp("report") / "report.html"
    write_report(shop(), file, title="Shop", app="shop.app:make")
    return file


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Page]:
    """That report, opened and watched."""
    with opened(browser, report) as found:
        yield found
