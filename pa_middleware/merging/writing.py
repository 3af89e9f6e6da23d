"""A merged reference as a checkpoint on disk: read, merged and written weight by weight."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pa_middleware.merging.merge import Merge
from pa_middleware.merging.recipe import Recipe, checked_alpha
from pa_middleware.merging.sources import BESIDE, CheckpointSource
from pa_middleware.scoring.checkpoints import check_same_vocabulary
from pa_middleware.scoring.errors import PairError

SHARD_BYTES = 2 << 30
INDEX = "model.safetensors.index.json"
NOTE = "merge.json"
"""What was merged, and how; beside the weights."""


def write_merged(
    policy: str | Path,
    reference: str | Path,
    out: str | Path,
    *,
    alpha: float,
    recipe: Recipe | None = None,
    extras: Sequence[str | Path] = (),
    anchor: str | Path | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Mapping[str, Any]:
    """Merge checkpoints into a new one that loads like the reference: its config, tokenizer, names, shapes and dtypes.

    In memory are at most one weight of each model, a few float32 copies of it, and the shard being written. The folder
    appears when it is complete; a merge that fails leaves none.

    Args:
        policy: a folder, or a name on a model hub, with safetensors files.
        reference: the same.
        out: the folder to make; must not be there, or be empty.
        alpha: 0 is the reference, 1 with `linear` the policy.
        recipe: by default `linear`.
        extras: further policies of the same reference.
        anchor: see `Merge`.
        shard_bytes: most bytes of weights in one file, unless one weight is larger.

    Returns:
        What `merge.json` in the folder says.

    Raises:
        PairError: the models do not fit together; see `Merge` and `check_same_vocabulary`.
        ValueError: alpha or a size outside what is allowed, or a setting with no effect.
        OSError: a checkpoint cannot be found or read, or the folder is taken or cannot be written.
    """
    alpha, recipe, out = checked_alpha(alpha), recipe or Recipe(), Path(out)
    if shard_bytes < 1:
        raise ValueError(f"shard_bytes is {shard_bytes!r}; allowed: at least 1")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{str(out)!r} is taken; give a folder that is not there yet, or an empty one")
    places = {"policy": policy, "reference": reference, "anchor": anchor}
    sources = {role: CheckpointSource(place) for role, place in places.items() if place is not None}
    further = [CheckpointSource(place) for place in extras]
    for other in (sources["policy"], *further):
        _check_tokenizers(other, sources["reference"])
    merge = Merge(sources["policy"], sources["reference"], recipe, extras=further, anchor=sources.get("anchor"))
    note: dict[str, Any] = {
        "merged": "pi_base + alpha * tau",
        "alpha": alpha,
        **recipe.to_dict(),
        **{role: source.label for role, source in sources.items()},
        "extra": [source.label for source in further],
        "weights": len(merge.names),
    }
    if recipe.method == "emr":
        note["emr_scale"] = merge.emr_scale
    making = out.with_name(f".{out.name}-{os.getpid()}")
    making.mkdir(parents=True)
    try:
        _copy_beside(sources["reference"].folder, making)
        _write_weights(merge, alpha, making, shard_bytes)
        (making / NOTE).write_text(json.dumps(note, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        with suppress(FileNotFoundError):
            out.rmdir()
        making.rename(out)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise
    return note


def shards(sizes: Mapping[str, int], most: int) -> list[list[str]]:
    """Names in files: in order, each file full but for what would go beyond `most` bytes, none empty."""
    files: list[list[str]] = []
    held = 0
    for name, size in sizes.items():
        if not files or held + size > most:
            files.append([])
            held = 0
        files[-1].append(name)
        held += size
    return files


def _write_weights(merge: Merge, alpha: float, folder: Path, shard_bytes: int) -> None:
    from safetensors.torch import save_file

    sizes: dict[str, int] = {}
    for name in merge.names:
        shape, dtype = merge.reference.form(name)
        sizes[name] = dtype.itemsize
        for length in shape:
            sizes[name] *= length
    files = shards(sizes, shard_bytes)
    index: dict[str, str] = {}
    for number, names in enumerate(files, start=1):
        file = f"model-{number:05}-of-{len(files):05}.safetensors" if len(files) > 1 else "model.safetensors"
        merged = {name: merge.weight(name, alpha).contiguous() for name in names}
        save_file(merged, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(names, file)
        del merged  # before the next one is made
    if len(files) > 1:
        told = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": index}
        (folder / INDEX).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def _copy_beside(source: Path, folder: Path) -> None:
    for pattern in BESIDE:
        for path in source.glob(pattern):
            if path.name not in (INDEX, NOTE):
                shutil.copyfile(path, folder / path.name)


def _check_tokenizers(policy: CheckpointSource, reference: CheckpointSource) -> None:
    from transformers import AutoTokenizer

    ours, theirs = (
        AutoTokenizer.from_pretrained(source.folder, trust_remote_code=False) for source in (policy, reference)
    )
    try:
        check_same_vocabulary(ours, theirs)
    except PairError as error:
        raise PairError(f"{policy.label} and {reference.label}: {error}") from error
