"""What a step costs on vLLM when its prefix cache is read, next to asking for log-probs in the plain way.

    python -m benchmarks.engine_prefix --vllm build/vllm/bin/python [--steps N] [--json FILE]

The trajectory is that of `benchmarks.scoring`: 1,000 tokens, then 150 of observation and 60 of action a step. Both ways
ask the same server for the log-probs of each step's action, in turns: `generate` reads the prefix cache,
`completions` has vLLM read the whole history, as it always does when log-probs of a prompt are wanted in the plain way.
The cached way goes first in every step, so that it finds only what it has put into the cache itself. Times are those
that a client waits; the first step, where nothing is cached, counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pa_vllm import VLLM
from pa_vllm.ways import WayName

from benchmarks.engine_serving import vllm
from benchmarks.scoring_models import Moment, Tokens, load_pair, smollm2_tokenizer, trajectory
from pa_middleware.engines.source import Floats

AT_LEAST = 6.0
"""How many times cheaper a trajectory has to be with the cache."""
LONGEST = 8_192
NAME = "smollm2"
WAYS: tuple[WayName, ...] = ("generate", "completions")


def save(folder: Path) -> None:
    """SmolLM2 in float32 as a checkpoint that vLLM reads."""
    model: Any = load_pair("smollm2")[0]
    # What was read from a quantised file would be written as one.
    del model.config.quantization_config, model.hf_quantizer
    model.is_quantized = False
    model.save_pretrained(folder)
    smollm2_tokenizer().save_pretrained(folder)


async def measured(url: str, moments: Sequence[Moment]) -> list[dict[WayName, tuple[float, Floats]]]:
    """Seconds and log-probs of each step's executed action, in each way."""
    sources = {way: VLLM(url, NAME, way=way, timeout=600.0) for way in WAYS}
    try:
        for source in sources.values():
            await source.open()
        steps = []
        for number, moment in enumerate(moments):
            step: dict[WayName, tuple[float, Floats]] = {}
            for way, source in sources.items():
                began = time.perf_counter()
                [log_probs] = await source.log_probs(moment.queries(1))
                step[way] = time.perf_counter() - began, log_probs
            steps.append(step)
            told = ", ".join(f"{way} {seconds:.2f} s" for way, (seconds, _) in step.items())
            print(f"  step {number}, {len(moment.prompt)} tokens of prompt: {told}", flush=True)
        return steps
    finally:
        for source in sources.values():
            await source.close()


def report(moments: Sequence[Moment], steps: Sequence[dict[WayName, tuple[float, Floats]]]) -> dict[str, Any]:
    """The totals, what they say, and how far the log-probs of both ways are apart."""
    seconds = {way: [step[way][0] for step in steps] for way in WAYS}
    cached, plain = (sum(seconds[way]) for way in WAYS)
    apart = max(float(np.abs(np.subtract(*(step[way][1] for way in WAYS))).max()) for step in steps)
    return {
        "steps": len(steps),
        "tokens": [len(moment.prompt) for moment in moments],
        "seconds": seconds,
        "total_seconds": dict(zip(WAYS, (cached, plain), strict=True)),
        "ratio": plain / cached,
        "at_least": AT_LEAST,
        "nats_apart": apart,
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm", required=True, help="Python of an environment with vLLM")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--json", type=Path, help="write everything to this file")
    arguments = parser.parse_args()
    moments = trajectory(Tokens("smollm2"), arguments.steps)
    with tempfile.TemporaryDirectory() as place:
        folder, log = Path(place, "model"), Path(place, "server")
        log.mkdir()
        save(folder)
        with vllm(arguments.vllm, folder, NAME, log, "--max-model-len", str(LONGEST)) as url:
            steps = asyncio.run(measured(url, moments))
    found = report(moments, steps)
    cached, plain = found["total_seconds"].values()
    print(f"{len(steps)} steps: {cached:.1f} s with the prefix cache, {plain:.1f} s without")
    print(f"ratio {found['ratio']:.1f}; at least {AT_LEAST:g}: {'holds' if found['ratio'] >= AT_LEAST else 'FAILS'}")
    print(f"log-probs apart by up to {found['nats_apart']:.2g} nats a token")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
