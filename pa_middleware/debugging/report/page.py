"""The page around the data: its markup, style and script, and the policy that lets nothing else run.

The assets are joined in the order below; the script's files share one scope. Scripts and styles are allowed by their
hash alone, so markup or script that came in with the data would be refused by the browser even if it got past the
escaping.
"""

from __future__ import annotations

import base64
import hashlib
import html
from importlib.resources import files
from string import Template

from pa_middleware.tracing.visible import visible

_STYLES = ("theme", "frame", "controls", "overview", "run", "step", "reading", "compare")
_SCRIPTS = (
    "dom",
    "text",
    "data",
    "search",
    "filter",
    "address",
    "virtual",
    "verdicts",
    "strip",
    "chart",
    "controls",
    "overview",
    "steps",
    "tokens",
    "messages",
    "candidates",
    "step",
    "compare",
    "run",
    "keys",
    "main",
)


def page(title: str) -> tuple[str, str]:
    """The page's text before the data and after it."""
    style = "\n".join(_asset(f"{name}.css") for name in _STYLES)
    script = '"use strict";\n(() => {\n' + "\n".join(_asset(f"{name}.js") for name in _SCRIPTS) + "})();\n"
    before, after = _asset("report.html").split("<!-- data -->\n")
    given = {"title": html.escape(visible(title)), "policy": _policy(style, script), "style": style, "script": script}
    return Template(before).substitute(given), Template(after).substitute(given)


def _policy(style: str, script: str) -> str:
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash(script)}",
            f"style-src {_hash(style)}",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _asset(name: str) -> str:
    return (files(__package__) / "assets" / name).read_text(encoding="utf-8")
