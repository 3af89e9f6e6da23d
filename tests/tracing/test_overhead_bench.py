"""The benchmark runs; what it measures is no matter of a test."""

from __future__ import annotations

import math

from benchmarks.tracing_overhead import AT_MOST, measure


def test_the_overhead_of_every_way_of_tracing_is_measured() -> None:
    report = measure(1)
    assert report.keys() > AT_MOST.keys()
    assert all(math.isfinite(number) for added in report.values() for number in added.values())
