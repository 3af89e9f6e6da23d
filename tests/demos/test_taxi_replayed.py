"""The demo's failed episodes as an app of `pa-middleware replay`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pa_middleware.cli import app as command

WRONG_USE = 2


def _run(run: str, *options: str) -> Result:
    given = ["replay", run, "--app", "pa_demos.taxi.replayed:app", *options]
    return CliRunner().invoke(command, given, env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})


def _told(file: Path) -> Any:
    result = _run("weak-110000", "--draws", "2", "--json", str(file))
    assert result.exit_code == 0, result.output
    assert max(map(len, result.output.splitlines())) <= 80
    return json.loads(file.read_text(encoding="utf-8"))


def test_an_episode_and_its_replay_come_out_the_same_every_time(tmp_path: Path) -> None:
    told = _told(tmp_path / "one.json")
    other = _told(tmp_path / "other.json")
    ways = [told["original"], *told["attempts"]], [other["original"], *other["attempts"]]
    for one in zip(*ways, strict=True):
        assert one[0]["steps"] == [
            {"action": step["action"], "score": pytest.approx(step["score"], abs=1e-3)} for step in one[1]["steps"]
        ]  # scores but for rounding
        assert [each["succeeded"] for each in one] == [one[0]["succeeded"]] * 2
        assert one[0]["draws"] == one[1]["draws"]
        assert one[0]["output_tokens"] == one[1]["output_tokens"]
    assert [each["step"] for each in told["suspects"][:1]] == [each["step"] for each in other["suspects"][:1]]
    assert (told["original"]["thread"], told["original"]["succeeded"]) == ("weak-110000", False)
    assert told["original"]["draws"] == len(told["original"]["steps"])  # nothing was drawn again in it
    suspected = [suspect["step"] for suspect in told["suspects"]]
    assert [attempt["step"] for attempt in told["attempts"]] == suspected[: len(told["attempts"])]
    for attempt in told["attempts"]:
        before = slice(0, attempt["step"])
        assert len(attempt["candidates"]) == 2
        assert attempt["steps"][before] == told["original"]["steps"][before]
        assert attempt["succeeded"] is None or isinstance(attempt["succeeded"], bool)


@pytest.mark.parametrize(
    "run", ["strong-110000", "weak-", "weak--1", "weak-1.0", "weak-1234567890", "weak-\u0661", "weak-1\n", "WEAK-1"]
)
def test_runs_of_other_names_are_refused(run: str) -> None:
    result = _run(run)
    assert result.exit_code == WRONG_USE
    words = " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.output).split())
    assert "Not replayed: there is no run" in words
    assert "weak- and a seed, such as weak-110000" in words
