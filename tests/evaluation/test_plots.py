from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pa_middleware.evaluation.fa import evaluate_fa
from pa_middleware.evaluation.plots import plot
from pa_middleware.evaluation.result import Application, Evaluation
from pa_middleware.evaluation.stored import Floats, StoredRun, StoredScores, StoredStep
from pa_middleware.evaluation.tts import evaluate_tts
from pa_middleware.evaluation.uq import evaluate_uq

EVALUATE: dict[Application, Callable[[StoredScores], Evaluation]] = {
    "tts": evaluate_tts,
    "uq": evaluate_uq,
    "fa": evaluate_fa,
}
FILES = {
    "tts": {"tts", "tts_grid"},
    "uq": {"uq", "uq_reliability", "uq_grid"},
    "fa": {"fa", "fa_grid"},
}


def _scores() -> StoredScores:
    """Six tasks of four runs; a failed run has a label at its second action."""
    random = np.random.default_rng(0)

    def values(scale: float) -> Floats:
        return -random.exponential(scale, 5).astype(np.float32)

    runs = []
    for number in range(24):
        steps = tuple(
            StoredStep(
                index=index,
                policy=values(1.0),
                reference=values(1.0),
                top_mean=values(3.0),
                entropy=-values(1.0),
                self_certainty=-values(2.0),
            )
            for index in (1, 3, 5, 7)[: 2 + number % 3]
        )
        failed = number % 2 == 1
        runs.append(
            StoredRun(
                id=str(number),
                task=str(number // 4),
                reward=0.0 if failed else 1.0,
                mistake_step=3 if failed else None,
                characters=tuple(random.integers(5, 50, 2 * len(steps)).tolist()),
                steps=steps,
            )
        )
    return StoredScores(header={"beta": 1.0}, runs=tuple(runs))


@pytest.fixture(scope="module")
def results() -> dict[Application, Evaluation]:
    scores = _scores()
    return {application: evaluate(scores) for application, evaluate in EVALUATE.items()}


@pytest.mark.parametrize("application", ["tts", "uq", "fa"])
def test_every_application_has_its_plots_with_every_signal_and_a_grid_marked_as_tuned(
    results: dict[Application, Evaluation], application: Application, tmp_path: Path
) -> None:
    result = results[application]
    plot(result, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {f"{name}.svg" for name in FILES[application]}
    shown = (tmp_path / f"{application}.svg").read_text(encoding="utf-8")
    assert all(f">{row.name.replace('_', ' ')}</text>" in shown for row in result.rows)
    assert "tuned on the same data" in (tmp_path / f"{application}_grid.svg").read_text(encoding="utf-8")


def test_the_ending_that_is_asked_for_is_the_format(results: dict[Application, Evaluation], tmp_path: Path) -> None:
    plot(results["fa"], tmp_path, ".png")
    written = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert set(written) == {"fa.png", "fa_grid.png"}
    assert all(each.startswith(b"\x89PNG") for each in written.values())


def test_the_grid_shows_every_cell_of_both_orders(results: dict[Application, Evaluation], tmp_path: Path) -> None:
    grid = dict.fromkeys(results["uq"].rows[0].grid, 0.123)
    rows = (replace(results["uq"].rows[0], grid=grid), *results["uq"].rows[1:])
    plot(replace(results["uq"], rows=rows), tmp_path)
    text = (tmp_path / "uq_grid.svg").read_text(encoding="utf-8")
    assert text.count(">0.12</text>") == len(grid) == 60


def test_without_probabilities_there_is_no_reliability_diagram(
    results: dict[Application, Evaluation], tmp_path: Path
) -> None:
    plot(replace(results["uq"], reliability=()), tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"uq.svg", "uq_grid.svg"}


def test_without_matplotlib_the_error_says_how_to_install_it(
    results: dict[Application, Evaluation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'pa-middleware\[plots\]'"):
        plot(results["uq"], tmp_path)
