"""The data that a report holds, read back as its page reads it."""

from __future__ import annotations

import base64
import json
import re
import zlib
from pathlib import Path
from typing import Any


def overview(file: Path) -> dict[str, Any]:
    """What the page knows of all runs."""
    [told] = re.findall(r'<script type="application/json" id="overview-data">(.*?)</script>', _text(file), re.DOTALL)
    found: dict[str, Any] = json.loads(told)
    return found


def details(file: Path, place: int = 0) -> dict[str, Any]:
    """What the page knows of one run."""
    [told] = re.findall(rf'<script type="text/plain" id="run-{place}">(.*?)</script>', _text(file), re.DOTALL)
    found: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(told)))
    return found


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")
