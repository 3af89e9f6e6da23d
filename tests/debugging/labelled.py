"""Small labelled runs, and files of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TOLD: dict[str, Any] = {
    "question": "How many hotels?",
    "mistake_step": "2",
    "mistake_agent": "Checker",
    "mistake_reason": "It did not look.",
    "history": [
        {"role": "assistant", "name": "Planner", "content": "Find the hotels."},
        {"role": "user", "name": "Computer_terminal", "content": "three hotels"},
        {"role": "user", "name": "Checker", "content": "There are four."},
        {"role": "user", "name": "Checker", "content": " "},
        {"role": "assistant", "name": "Planner", "content": "Then it is four, and we are done here."},
    ],
}


def write(file: Path, **changed: Any) -> Path:
    """A file of the run, with changes; a value of None takes the key away."""
    file.parent.mkdir(parents=True, exist_ok=True)
    told = {key: value for key, value in (TOLD | changed).items() if value is not None}
    file.write_text(json.dumps(told), encoding="utf-8")
    return file
