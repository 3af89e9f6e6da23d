"""What an agent, a tool or a user wrote is shown as text, whatever it is."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from debugging.report.made import candidate, run, shop
from debugging.report.watched import opened

from pa_middleware.debugging.report import write_report
from pa_middleware.tracing.runs import Run, TracedCall, TracedCandidate, TracedMessage, TracedStep

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HOSTILE = {
    "script": "</script><script>window.owned = 1; alert(1)</script>",
    "handler": '<img src=x onerror="window.owned = 1"><svg/onload=alert(1)>',
    "attribute": '" onmouseover="window.owned=1" autofocus onfocus=\'alert(1)\' x="',
    "comment": "<!--<script>--><!-- ]]> </style><style>*{display:none}</style>",
    "url": "javascript:window.owned=1//https://example.invalid/a?b#c",
    "frame": '<iframe srcdoc="<script>parent.owned=1</script>"></iframe><base href="https://example.invalid/">',
    "meta": '<meta http-equiv="refresh" content="0;url=//example.invalid"><link rel=stylesheet href=//example.invalid>',
    "control": "a\x00b\x07c\x1b[31mred\x1b]0;title\x07\x7f\x85d",
    "bidi": "\u202egnp.exe\u202c \u2066x\u2069 \u200b\u200e\ufeff\u2028\u2029",
    "surrogate": "half \ud83d and \ude00 alone",
    "template": "${alert(1)} {{constructor.constructor('alert(1)')()}} $policy $$ <%= 1 %> {% x %}",
    "prototype": "__proto__",
}
SHOWN = {
    "control": "a\\x00b\\x07c\\x1b[31mred\\x1b]0;title\\x07\\x7f\\x85d",
    "bidi": "\\u202egnp.exe\\u202c \\u2066x\\u2069 \\u200b\\u200e\\ufeff\\u2028\\u2029",
    "surrogate": "half \\ud83d and \\ude00 alone",
}


def _hostile_candidate(given: TracedCandidate, text: str) -> TracedCandidate:
    return replace(
        given,
        span_id=text,
        label=text,
        text=text,
        tool_arguments=(json.dumps({text: text}), text),
        tool_names=(text, text),
        reasoning=text,
        token_texts=(text, text),
        error=text,
        action_kind=text,
        attributes={text: text, "list": (text, text)},
    )


def _hostile_step(given: TracedStep, text: str) -> TracedStep:
    message = TracedMessage(text, text, text, (TracedCall(text, text, text),), text)
    return replace(
        given,
        span_id=text,
        decision=text,
        reason=text,
        action_kind=text,
        tool_names=(text,),
        tool_call_ids=(text,),
        candidates=tuple(_hostile_candidate(each, text) for each in given.candidates),
        error=text,
        attributes={text: text},
        mode=text,
        tiers=(text,),
        history=(message, *(message for _ in range(given.index))),
        tool_definitions=text,
        review=(text,),
    )


def _hostile(text: str) -> list[Run]:
    """A failed run and a succeeded one in which every text is this one."""
    good, bad = candidate(0, 1.0, "x"), candidate(0, -3.0, "x")
    runs = [run("a" * 32, text, [[good, bad], [bad, good], [bad]]), run("b" * 32, text, [[good], [good, bad]])]
    return [
        replace(
            made,
            trace_id=f"{text}{place}",
            agent=text,
            task=text,
            success=bool(place),
            steps=tuple(_hostile_step(each, text) for each in made.steps),
        )
        for place, made in enumerate(runs)
    ]


def _look_everywhere(page: Page) -> str:
    """Everything that is shown on the way through the page."""
    seen = [page.locator("body").inner_text()]
    page.locator("#tools-menu summary").click()
    seen.append(page.locator("#tools-menu").inner_text())
    page.locator("#tools-menu summary").click()
    page.locator(".run-row").first.click()
    page.locator("#detail h2").wait_for()
    page.keyboard.press("t")
    page.evaluate("document.querySelectorAll('#detail details').forEach((closed) => { closed.open = true; })")
    page.locator(".attributes").first.wait_for()
    seen.append(page.locator("body").inner_text())
    page.locator(".candidate .token").first.hover()
    page.locator(".chart svg").hover()
    page.keyboard.press("k")
    for name in ("Copy link", "Copy replay"):
        if page.get_by_role("button", name=name).count():
            page.get_by_role("button", name=name).click()
            seen.append(page.evaluate("navigator.clipboard.readText()"))
    page.get_by_role("button", name="Mark").click()
    page.keyboard.press("Enter")
    page.keyboard.press("c")
    page.locator("#compare header").wait_for()
    seen.append(page.locator("body").inner_text())
    return "\n".join(seen)


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_text_is_shown_and_nothing_of_it_runs(browser: Browser, tmp_path: Path, kind: str) -> None:
    text = HOSTILE[kind]
    file = tmp_path / "report.html"
    write_report(_hostile(text), file, title=text, app=text)
    with opened(browser, file) as page:
        seen = _look_everywhere(page)
        assert seen.count(SHOWN.get(kind, text)) > 20
        assert page.evaluate("window.owned") is None
        assert page.locator("iframe, object, embed, img, base, link, a[href], form[action]").count() == 0
        page.locator("#search").fill("no such thing")
        page.wait_for_selector("#count:not([data-searching])")


def test_a_megabyte_is_cut_until_it_is_asked_for(browser: Browser, tmp_path: Path) -> None:
    [failed, *_] = shop()
    large = TracedMessage("user", "<b>x\u202e" * (1 << 18))
    steps = tuple(replace(each, history=(*each.history, large)) for each in failed.steps)
    file = tmp_path / "report.html"
    written = write_report([replace(failed, steps=steps)], file)
    assert written.size < 300_000
    with opened(browser, file, f"#run={quote(failed.id)}&step=0") as page:
        message = page.locator(".message", has_text="<b>x\\u202e").last
        assert len(message.inner_text()) < 20_000
        message.get_by_role("button", name="Show all 1,310,720 characters").click()
        assert page.evaluate("document.activeElement.textContent.length") > 1_310_720
        page.keyboard.press("Escape")
        assert page.locator("#overview").is_visible()


def test_the_command_for_the_shell_quotes_whatever_the_id_is(browser: Browser, tmp_path: Path) -> None:
    named = {
        "it's; rm -rf /": None,
        "-x": None,
        "$(touch x)`y`": None,
        "a\nb\x1b[201~": "$'a\\x0ab\\x1b[201~'",
        "\x85\u202e'\\": "$'\\u0085\\u202e\\'\\\\'",
    }
    made = [run(f"{place:032x}", name, [[candidate(0, 1.0, "x")]]) for place, name in enumerate(named)]
    file = tmp_path / "report.html"
    write_report(made, file)
    with opened(browser, file) as page:
        for place, (name, quoted) in enumerate(named.items()):
            page.evaluate(f"location.hash = {json.dumps(f'run={quote(made[place].id)}')}")
            page.locator(".run-head .trace", has_text=f"{place:032x}").wait_for()
            page.get_by_role("button", name="Copy replay").click()
            told = page.evaluate("navigator.clipboard.readText()")
            if quoted:
                assert f" {quoted} " in told
            else:
                assert name in shlex.split(told)
                assert (shlex.split(told)[-2:] == ["--", name]) is name.startswith("-")


def test_markup_that_got_into_the_file_does_not_run(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    write_report(shop(), file)
    markup = """<script>window.owned = 1</script><script src="https://example.invalid/x.js"></script>
    <script type="module">window.owned = 1</script>
    <style>body { position: fixed }</style><b style="position: fixed">b</b>
    <link rel="stylesheet" href="https://example.invalid/x.css"><img src="https://example.invalid/" onerror="owned = 1">
    <svg onload="window.owned = 1"></svg><a id="link" href="javascript:window.owned = 1">a</a>
    <iframe srcdoc="<script>parent.owned = 1</script>"></iframe><object data="data:text/html,x"></object>
    <form action="https://example.invalid/"><button id="send">send</button></form><base href="https://example.invalid/">
    """
    text = file.read_text(encoding="utf-8")
    file.write_text(
        text.replace('<script type="text/plain"', f'{markup}<script type="text/plain"', 1), encoding="utf-8"
    )
    page = browser.new_page()
    asked: list[str] = []
    page.on("requestfinished", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-ready]", state="attached")
    for name in ("link", "send"):
        page.evaluate(f"document.getElementById('{name}').click()")
    assert page.evaluate("window.owned") is None
    for element in ("body", "b[style]"):
        assert page.evaluate(f"getComputedStyle(document.querySelector('{element}')).position") == "static"
    assert page.url.split("#")[0] == file.as_uri()
    assert asked in ([file.as_uri()], [file.as_uri(), "about:srcdoc"])
    page.close()


def test_no_script_or_style_can_run_but_the_pages_own(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    write_report(shop(), file)
    page = browser.new_page()
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-ready]", state="attached")
    refused = page.evaluate(
        """() => {
          const broken = [];
          const attempts = {
            markup: () => { document.body.innerHTML = "<p>"; },
            script: () => { document.createElement("script").textContent = "window.owned = 1"; },
            evaluated: () => { setTimeout("window.owned = 1"); },
          };
          for (const [name, attempt] of Object.entries(attempts)) try { attempt(); } catch { broken.push(name); }
          const image = document.createElement("img");
          image.src = "https://example.invalid/";
          document.body.append(image);
          const styled = document.createElement("p");
          styled.setAttribute("style", "position: fixed");
          document.body.append(styled);
          if (getComputedStyle(styled).position !== "fixed") broken.push("style");
          return broken;
        }"""
    )
    assert refused == ["markup", "script", "evaluated", "style"]
    assert page.evaluate("window.owned") is None
    page.close()
