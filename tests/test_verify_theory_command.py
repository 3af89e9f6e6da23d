from __future__ import annotations

import json
import sys
from pathlib import Path

import pa_demos.taxi.theory
import pytest
import typer
from commands import run as run_command
from commands import words_of
from pa_demos.taxi.theory import Theory, verify
from pa_demos.taxi.theory_identities import Check
from typer.testing import Result

from pa_middleware.verify_theory_command import FAILED, verify_theory

WRONG_USE = 2
_app = typer.Typer()
_app.command()(verify_theory)


@pytest.fixture(scope="module")
def theory() -> Theory:
    return verify()


@pytest.fixture(autouse=True)
def _once(theory: Theory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The models are read once for all tests."""
    monkeypatch.setattr(pa_demos.taxi.theory, "verify", lambda: theory)


def _run(*arguments: object) -> Result:
    return run_command(_app, *arguments)


def test_it_shows_every_table_and_writes_the_numbers_and_the_plots(tmp_path: Path) -> None:
    numbers, plots = tmp_path / "new" / "theory.json", tmp_path / "plots"
    result = _run("--json", numbers, "--plots", plots)
    assert result.exit_code == 0, result.output
    words = words_of(result)
    for part in ("Identities of the exact soft optimum", "On-policy:", "beta 1, shipped", "A trap:", "checks hold"):
        assert part in words
    told = json.loads(numbers.read_text(encoding="utf-8"))
    assert told["passed"] is True
    assert all(check["holds"] for check in told["checks"])
    shipped = next(each for each in told["policies"] if each["name"] == "beta 1, shipped")
    assert shipped["on_policy_spearman"] > 0.99
    assert {file.name for file in plots.iterdir()} == {"scatter.svg", "training.svg", "beta.svg"}


def test_a_bar_that_is_missed_is_named_and_exits_with_1(theory: Theory, monkeypatch: pytest.MonkeyPatch) -> None:
    missed = Theory((Check("shipped pair: success", 0.5, 0.9, at_least=True),), theory.policies, theory.unlike)
    monkeypatch.setattr(pa_demos.taxi.theory, "verify", lambda: missed)
    result = _run()
    assert result.exit_code == FAILED
    assert "shipped pair: success: 0.5, at least 0.9" in words_of(result)


def test_a_file_that_cannot_be_written_is_wrong_use(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for option, place in (("--json", tmp_path), ("--plots", tmp_path / "file")):
        result = _run(option, place)
        assert result.exit_code == WRONG_USE
        assert option in words_of(result)


def test_plots_without_matplotlib_say_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = _run("--plots", tmp_path)
    assert result.exit_code == WRONG_USE
    assert "pip install 'pa-middleware[plots]'" in words_of(result)
