"""Peak memory of a step, next to the official arithmetic's."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

from benchmarks.scoring_models import ACTION, OBSERVATION, START, STEP, Tokens, official, queries
from benchmarks.scoring_timing import Pair, Ratios, Result

LONG = START + 29 * STEP + ACTION
"""Tokens at which memory is measured."""


def memory(pair: Pair, tokens: Tokens) -> Ratios:
    """Peak resident memory above what was there before, without what a reading keeps."""
    prompt = tokens.draw(LONG - STEP)
    peaks = {}
    for count in (1, 8):
        reading = pair.policy.open()
        reading.read(prompt)
        kept = 0
        for _ in range(2):  # at the second time the cache has its room already
            reading.read(prompt)
            asked = queries(prompt + tokens.draw(OBSERVATION), tokens.candidates(count))
            before = reading.nbytes
            peak, _ = peak_bytes(lambda asked=asked, reading=reading: pair.policy.answer(asked, reading))  # type: ignore[misc]
            kept = reading.nbytes - before
        peaks[count] = peak - max(0, kept)
        del reading
    ids = prompt + tokens.draw(STEP)
    theirs, _ = peak_bytes(lambda: official(pair.bare, ids))
    mebi = 1 << 20
    print(
        f"memory at T = {LONG}: ours {peaks[1] / mebi:.1f} MiB with 1 candidate, {peaks[8] / mebi:.1f} MiB with 8, "
        f"official {theirs / mebi:.0f} MiB"
    )
    return {"memory_step": peaks[1] / theirs, "memory_step_n8": peaks[8] / theirs}


def peak_bytes(work: Callable[[], Result]) -> tuple[int, Result]:
    """The most resident memory while some work runs, less what is resident before. Linux only."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed and not given back would hide what the work takes
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts at what is resident now
    before = _status("VmRSS")
    result = work()
    return _status("VmHWM") - before, result


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise RuntimeError(f"the kernel does not tell {name}")
