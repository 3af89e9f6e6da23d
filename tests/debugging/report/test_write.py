from __future__ import annotations

import base64
import hashlib
import math
import os
import re
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
from debugging.report.made import candidate, run, shop
from debugging.report.parts import details, overview

from pa_middleware.debugging import AttributionError
from pa_middleware.debugging.report import ReportError, write_report
from pa_middleware.tracing.runs import Run


def test_all_runs_are_in_the_one_file_that_is_written(tmp_path: Path) -> None:
    file = tmp_path / "new" / "report.html"
    written = write_report(iter(shop()), file)
    assert (written.runs, written.steps, written.size) == (3, 23, file.stat().st_size)
    assert [path.name for path in file.parent.iterdir()] == ["report.html"]
    told = overview(file)
    assert [each["trace"] for each in told["runs"]] == [each.trace_id for each in shop()]
    assert [each["success"] for each in told["runs"]] == [False, True, None]
    assert told["runs"][0]["suspects"][0] == [3, -4.0, 4.2]
    assert told["runs"][0]["stands"] is True
    assert told["runs"][1]["stands"] is False
    assert told["runs"][0]["score"] == [step.score for step in shop()[0].steps]
    assert [len(details(file, place)["steps"]) for place in range(3)] == [8, 8, 7]


def test_the_same_runs_make_the_same_file(tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        write_report(shop(), tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_nothing_but_the_pages_own_script_and_style_is_allowed_and_both_by_their_hash(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    write_report(shop(), file)
    text = file.read_text(encoding="utf-8")
    [told] = re.findall(r'<meta http-equiv="Content-Security-Policy" content="(.*?)">', text)
    policy = dict(each.split(" ", 1) for each in unescape(told).split("; "))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["trusted-types"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    for directive, tag in (("script-src", "script"), ("style-src", "style")):
        [own] = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
        assert policy[directive] == f"'sha256-{digest}'"
    assert not re.search(r'\bstyle="|\bon\w+="|https?://(?!www\.w3\.org/2000/svg)', text)


def test_a_run_that_cannot_be_shown_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    write_report(shop(), file)
    before = file.read_bytes()
    [failed, *_] = shop()
    broken = replace(failed, steps=(replace(failed.steps[0], threshold=math.nan), *failed.steps[1:]))
    with pytest.raises(ReportError, match=f"run '{'aa' * 16}.shop 1' has a number that is not finite"):
        write_report([shop()[1], broken], file)

    def stops() -> Iterator[Run]:
        yield failed
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_report(stops(), file)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_run_that_comes_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=f"run '{'aa' * 16}.shop 1' came twice; give each run once"):
        write_report([*shop(), shop()[0]], tmp_path / "report.html")


def test_what_is_there_and_no_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe", Path()):
        with pytest.raises(FileExistsError, match="is there and no file"):
            write_report(shop(), place)
    assert (tmp_path / "pipe").is_fifo()


def test_the_rule_decides_who_is_suspect(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    write_report(shop(), file, rule="first_below", threshold=0.55)
    told = overview(file)
    assert (told["rule"], told["threshold"]) == ("first_below", 0.55)
    assert [each["suspects"][0][0] for each in told["runs"]] == [0, 0, 0]
    with pytest.raises(AttributionError, match="needs a threshold"):
        write_report(shop(), file, rule="first_below")


def test_no_more_than_one_run_is_in_memory(tmp_path: Path) -> None:
    def many(count: int) -> Iterator[Run]:
        for number in range(count):
            yield run(f"{number:032x}", "x" * 50_000, [[candidate(0, 1.0, "look", at="y" * 50_000)]])

    write_report(many(2), tmp_path / "warm.html")
    peaks = []
    for count in (3, 60):
        tracemalloc.start()
        write_report((replace(each, conversation_id=None) for each in many(count)), tmp_path / "report.html")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_no_run_and_a_run_without_steps_are_shown_as_such(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    assert write_report([], file).runs == 0
    assert write_report([Run("f" * 32, None, ())], file).steps == 0
    assert overview(file)["runs"][0]["why"] == "no step of this run has a score"


def test_the_title_is_text(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    write_report([], file, title="<b>$style & \u202e</b>")
    assert "<h1><bdi>&lt;b&gt;$style &amp; \\u202e&lt;/b&gt;</bdi></h1>" in file.read_text(encoding="utf-8")
