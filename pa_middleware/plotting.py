"""What all plots have in common: a look that black and white print keeps, and files that repeat to the byte.

matplotlib comes with the extra `plots` and loads on use. No figure is registered with pyplot, and the look holds while
one is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINES: tuple[dict[str, Any], ...] = (
    {"color": "black", "linestyle": "-", "marker": "o"},
    {"color": "0.45", "linestyle": "--", "marker": "s"},
    {"color": "0.2", "linestyle": ":", "marker": "^"},
    {"color": "0.6", "linestyle": "-.", "marker": "D"},
    {"color": "0.35", "linestyle": (0, (5, 1, 1, 1, 1, 1)), "marker": "v"},
    {"color": "0.7", "linestyle": (0, (1, 3)), "marker": "x"},
)
"""Looks of lines, told apart by dash and marker, not by colour."""

_SETTINGS: Any = {
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.0,
    "svg.fonttype": "none",
    "svg.hashsalt": "pa-middleware",
}
_LEGEND_DOWN = 0.42
"""Inches from an axis to the legend under it; its numbers and label lie between."""


@contextmanager
def drawing(file: Path, rows: int, columns: int, *, width: float, height: float) -> Iterator[list[Axes]]:
    """Axes to draw on, row by row; the file is written, its folder made, when the block ends.

    Args:
        file: its ending, .svg or .png, is its format.
        rows: of axes.
        columns: of axes.
        width: of the figure, inches.
        height: likewise.

    Raises:
        ModuleNotFoundError: matplotlib is not installed; the message says how to install it.
        ValueError: another ending.
        OSError: the file cannot be written.
    """
    if file.suffix not in (".svg", ".png"):
        raise ValueError(f"a plot's file is {file.name!r}; allowed: a name that ends in .svg or .png")
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"plots need {error.name}; install what they need with: pip install 'pa-middleware[plots]'", name=error.name
        ) from error
    with rc_context(_SETTINGS):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield list(figure.subplots(rows, columns, squeeze=False).ravel())
        file.parent.mkdir(parents=True, exist_ok=True)
        # What a file says of its making differs from day to day and from version to version.
        figure.savefig(file, dpi=150, metadata={"Date": None} if file.suffix == ".svg" else {"Software": None})


def legend_below(axes: Axes) -> None:
    """Name what is drawn under the label of the x axis, where it hides nothing."""
    from matplotlib.transforms import ScaledTranslation

    down = ScaledTranslation(0, -_LEGEND_DOWN, axes.figure.dpi_scale_trans)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), bbox_transform=axes.transAxes + down)
