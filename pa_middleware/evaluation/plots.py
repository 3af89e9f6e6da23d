"""Plots of what an evaluation found: every signal with its interval, and the grid that no result may be read from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from pa_middleware.evaluation.result import Evaluation, Row, oracle
from pa_middleware.intervals import Estimate
from pa_middleware.plotting import drawing, legend_below

Ending = Literal[".svg", ".png"]
_OFFICIAL = " (official order)"
_COLUMNS = 4
"""Panels side by side where each signal has its own: lines of ten signals in one are told apart by nobody."""


def plot(result: Evaluation, folder: Path, ending: Ending = ".svg") -> None:
    """Plot a result of any application; see `plot_tts`, `plot_uq` and `plot_fa`."""
    {"tts": plot_tts, "uq": plot_uq, "fa": plot_fa}[result.application](result, folder, ending)


def plot_tts(result: Evaluation, folder: Path, ending: Ending = ".svg") -> None:
    """Write `tts`, success over N by each signal, and `tts_grid`.

    Args:
        result: of `evaluate_tts`.
        folder: where to; made if it is not there.
        ending: of the files; their format.

    Raises:
        ModuleNotFoundError: matplotlib is not installed; the message says how to install it.
        OSError: a file cannot be written.
    """
    sizes = list(result.higher_is_better)
    n = [int(size) for size in sizes]
    any_of = [result.beside[oracle(size)].value for size in sizes]
    down = -(-len(result.rows) // _COLUMNS)
    with drawing(folder / f"tts{ending}", down, _COLUMNS, width=8.4, height=2.1 * down + 0.7) as axes:
        for place, row in zip(axes, result.rows, strict=False):
            curve = [told for size in sizes if (told := row.more[size]) is not None]
            low, high = [each.low for each in curve], [each.high for each in curve]
            place.fill_between(n, low, high, color="0.85", linewidth=0, label=f"{_percent(result)} interval")
            place.plot(n, any_of, color="0.4", linestyle=":", label="any of N, an oracle")
            place.plot(n, [each.value for each in curve], "o-", color="black", clip_on=False, label="best of N")
            # Of one run there is nothing to choose.
            place.plot(n, [any_of[0]] * len(n), color="0.4", linestyle="--", label="random")
            place.set(title=_named(row), xlabel="N", ylabel="success", ylim=(0, 1))
            place.locator_params("x", integer=True)
        for place in axes[len(result.rows) :]:
            place.set_axis_off()
        legend_below(axes[(down - 1) * _COLUMNS])
    _plot_grid(result, "step aggregation", folder / f"tts_grid{ending}")


def plot_uq(result: Evaluation, folder: Path, ending: Ending = ".svg") -> None:
    """Write `uq`, AUROC by each signal, `uq_reliability` if there are probabilities, and `uq_grid`.

    Takes an evaluation of `evaluate_uq`, and else takes and raises what `plot_tts` does.
    """
    told: dict[str, list[Estimate | None]] = {
        "held out, aggregation chosen on other tasks": [row.held_out for row in result.rows],
        "aggregation fixed beforehand": [row.a_priori for row in result.rows],
    }
    _plot_rows(result, told, folder / f"uq{ending}", what=result.metric, chance=0.5)
    if result.reliability:
        with drawing(folder / f"uq_reliability{ending}", 1, 1, width=3.6, height=3.9) as (place,):
            place.plot([0, 1], [0, 1], color="0.4", linestyle="--")
            x, y = ([getattr(each, name) for each in result.reliability] for name in ("predicted", "observed"))
            place.plot(x, y, color="black", marker="o", linestyle="")
            for each in result.reliability:
                at = (each.predicted, each.observed)
                place.annotate(str(each.count), at, (4, 4), textcoords="offset points", annotation_clip=False)
            place.set(title=f"{_named(result.rows[0])}; the numbers count runs", xlim=(0, 1.05), ylim=(-0.05, 1.05))
            place.set(xlabel="probability of success, held out", ylabel="share that succeeded", aspect="equal")
    _plot_grid(result, "step aggregation", folder / f"uq_grid{ending}")


def plot_fa(result: Evaluation, folder: Path, ending: Ending = ".svg") -> None:
    """Write `fa`, how often each signal and baseline names the labelled step, and `fa_grid`.

    Takes an evaluation of `evaluate_fa`, and else takes and raises what `plot_tts` does.
    """
    told: dict[str, list[Estimate | None]] = {
        "exactly": [row.held_out for row in result.rows],
        "among the first three": [row.more["top 3"] for row in result.rows],
    }
    chance = result.beside["random"].value
    _plot_rows(result, told, folder / f"fa{ending}", what="labelled step named, held out", chance=chance)
    _plot_grid(result, "rule", folder / f"fa_grid{ending}")


def _plot_rows(
    result: Evaluation, series: Mapping[str, Sequence[Estimate | None]], file: Path, *, what: str, chance: float
) -> None:
    """A line for each signal from top to bottom, with a dot and its interval for each series."""
    with drawing(file, 1, 1, width=6.0, height=0.32 * len(result.rows) + 1.2) as (place,):
        place.axvline(chance, color="0.4", linestyle="--", linewidth=0.8)
        looks = (("black", "o"), ("0.5", "s"))
        for down, ((colour, marker), (label, estimates)) in enumerate(zip(looks, series.items(), strict=True)):
            told = [(row + 0.25 * down, each) for row, each in enumerate(estimates) if each is not None]
            y, x = [row for row, _ in told], [each.value for _, each in told]
            place.hlines(y, [each.low for _, each in told], [each.high for _, each in told], color=colour)
            place.plot(x, y, color=colour, marker=marker, linestyle="", label=label, clip_on=False)
        place.set(xlabel=f"{what}; {_percent(result)} intervals; dashed: chance", xlim=(0, 1))
        place.set_yticks(range(len(result.rows)), [_named(row) for row in result.rows])
        place.invert_yaxis()
        legend_below(place)


def _plot_grid(result: Evaluation, across: str, file: Path) -> None:
    """Every cell of progress advantage as a shade and a number, the formula's order and the official code's."""
    orders: dict[bool, dict[tuple[str, str], float]] = {False: {}, True: {}}
    for label, value in result.rows[0].grid.items():
        token, _, other = label.replace(_OFFICIAL, "").replace(", ", "/").partition("/")
        orders[_OFFICIAL in label][token, other] = value
    tokens, others = (list(dict.fromkeys(cell[place] for cell in orders[False])) for place in (0, 1))
    with drawing(file, 1, 2, width=8.4, height=3.4) as axes:
        for place, (official, cells) in zip(axes, orders.items(), strict=True):
            values = np.array([[cells[token, other] for other in others] for token in tokens])
            low, high = (end(result.rows[0].grid.values()) for end in (min, max))
            place.imshow(values, cmap="Greys", vmin=low, vmax=2 * high - low)  # pale, for the numbers on it
            for (down, right), value in np.ndenumerate(values):
                place.text(right, down, f"{value:.2f}", ha="center", va="center")
            place.set(title="the official code's order" if official else "the formula's order")
            place.set(xlabel=across, ylabel="token aggregation")
            place.set_xticks(range(len(others)), others, rotation=30)
            place.set_yticks(range(len(tokens)), tokens)
        title = f"{_named(result.rows[0])}, {result.metric} of every cell; the best one is tuned on the same data"
        axes[0].figure.suptitle(title)


def _percent(result: Evaluation) -> str:
    return f"{100 * float(str(result.settings['confidence'])):g} %"


def _named(row: Row) -> str:
    return row.name.replace("_", " ")
