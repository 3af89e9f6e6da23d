"""The pictures of a report: its list of runs, a step with its tokens, and the same in the dark.

    python docs/screenshots.py REPORT [FOLDER]

Needs playwright and a Chromium: $PA_CHROMIUM, or one on the path. The step is the first suspect of the failed run in
which a step stands out most.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Literal

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
OVERVIEW, STEP = "#", "#outcomes=failed&stands=1&sort=margin"


def take(report: Path, folder: Path) -> None:
    """Write report-overview.png, report-step.png and report-dark.png."""
    from playwright.sync_api import sync_playwright

    found = os.environ.get("PA_CHROMIUM") or next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        raise SystemExit(f"no browser: set PA_CHROMIUM, or put one of {', '.join(NAMES)} on the path")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        for name, fragment in (("overview", OVERVIEW), ("step", STEP), ("dark", STEP)):
            scheme: Literal["dark", "light"] = "dark" if name == "dark" else "light"
            page = browser.new_page(viewport={"width": 1400, "height": 880}, color_scheme=scheme)
            page.goto(report.resolve().as_uri() + fragment)
            page.wait_for_selector(".run-row")
            if fragment == STEP:
                page.keyboard.press("Enter")
                page.wait_for_selector("#detail h2")
                page.get_by_role("button", name="Clear").click()
                page.keyboard.press("t")
                page.mouse.move(0, 0)
            page.screenshot(path=folder / f"report-{name}.png")
            page.close()
        browser.close()


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        raise SystemExit("usage: python docs/screenshots.py REPORT [FOLDER]")
    take(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) == 3 else Path(__file__).parent))
