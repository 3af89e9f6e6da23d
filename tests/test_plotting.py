from __future__ import annotations

import struct
from pathlib import Path

import matplotlib
import pytest

from pa_middleware.plotting import LINES, drawing, legend_below


def _draw(file: Path) -> bytes:
    with drawing(file, 1, 2, width=4.0, height=2.0) as axes:
        for place, look in zip(axes, LINES, strict=False):
            place.plot([0, 1], [1, 0], **look, label="line")
            legend_below(place)
    return file.read_bytes()


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_a_plot_repeats_to_the_byte(tmp_path: Path, ending: str) -> None:
    assert _draw(tmp_path / "new" / f"one.{ending}") == _draw(tmp_path / f"two.{ending}")


def test_the_ending_is_the_format(tmp_path: Path) -> None:
    svg, png = _draw(tmp_path / "plot.svg").decode(), _draw(tmp_path / "plot.png")
    assert "<svg" in svg
    assert ">line</text>" in svg  # text stays text, to be searched and read aloud
    assert "dc:date" not in svg
    assert png.startswith(b"\x89PNG")
    assert struct.unpack(">II", png[16:24]) == (600, 300)


def test_another_ending_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'plot\.gif'; allowed: a name that ends in \.svg or \.png"):
        _draw(tmp_path / "plot.gif")


def test_settings_of_others_are_left_as_they_are(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    _draw(tmp_path / "plot.svg")
    assert dict(matplotlib.rcParams) == before
