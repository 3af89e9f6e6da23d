"""The two models that a short text names: a pair of the registry, a folder that holds a pair, or two models."""

from __future__ import annotations

from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from pa_middleware.scoring.errors import PairError

PAPER: dict[str, tuple[str, str]] = {
    "qwen3.5-9b": ("Qwen/Qwen3.5-9B", "Qwen/Qwen3.5-9B-Base"),
    "qwen3-14b": ("Qwen/Qwen3-14B", "Qwen/Qwen3-14B-Base"),
    "gemma4-4b": ("google/gemma-4-E4B-it", "google/gemma-4-E4B"),
    "olmo3-7b-instruct": ("allenai/Olmo-3-7B-Instruct", "allenai/Olmo-3-7B-Instruct-DPO"),
}
"""The pairs of the paper's official code (arXiv 2606.26080): policy and reference, as the model hub names them."""
DEMO = "taxi"
"""The pair that comes with the demos; it needs no download."""
ROLES = ("policy", "reference")
"""What a folder that holds a pair holds."""


def find_pair(text: str) -> tuple[str, str]:
    """Policy and reference, each a folder or a name on a model hub; nothing is loaded or asked of a hub.

    Args:
        text: a name of the registry, in any case; a folder that holds `policy` and `reference`; or
            `POLICY,REFERENCE`, two folders or hub names. The first of these that fits.

    Raises:
        PairError: none of them fits.
    """
    name = text.strip()
    if name.lower() in PAPER:
        return PAPER[name.lower()]
    if name.lower() == DEMO:
        return _demo()
    if name and Path(name).is_dir():
        return _held(Path(name))
    parts = [part.strip() for part in name.split(",")]
    if len(parts) == 2 and all(parts):
        return parts[0], parts[1]
    near = get_close_matches(name.lower(), [*PAPER, DEMO], n=2)
    meant = f" Did you mean {' or '.join(near)}?" if near else ""
    raise PairError(
        f"no pair is called {text!r}; allowed: {', '.join([*PAPER, DEMO])}, a folder that holds "
        f"{' and '.join(ROLES)}, or POLICY,REFERENCE (two folders or hub names).{meant}"
    )


def _held(folder: Path) -> tuple[str, str]:
    missing = [role for role in ROLES if not (folder / role).is_dir()]
    if missing:
        raise PairError(
            f"the folder {str(folder)!r} holds no folder {missing[0]!r}; a pair's folder holds "
            f"{' and '.join(ROLES)}. For two folders elsewhere write POLICY,REFERENCE"
        )
    return str(folder / ROLES[0]), str(folder / ROLES[1])


def _demo() -> tuple[str, str]:
    """The demo's pair where the demos are installed. They are found, not imported: they stand outside."""
    spec = find_spec("pa_demos")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(place) / "taxi" / "pair"
        if folder.is_dir():
            return _held(folder)
    raise PairError(f"the pair {DEMO!r} comes with the demos, and the package pa_demos is not installed; install both")
