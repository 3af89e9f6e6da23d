"""Where weights to merge come from: a checkpoint's files, or a loaded model. One tensor at a time, by name."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from pa_middleware.scoring.errors import PairError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel

Form: TypeAlias = "tuple[tuple[int, ...], torch.dtype]"
HEADS = ("lm_head.weight", "embed_out.weight")
BESIDE = ("*.json", "*.jinja", "*.txt", "tokenizer.model")
"""What a checkpoint holds beside weights: config, tokenizer, templates."""
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight")


class Source(Protocol):
    """Named weights. A head that is tied to the embedding is no weight of its own."""

    label: str
    """What errors call it."""
    names: Sequence[str]
    """Its weights, each once."""

    def read(self, name: str) -> torch.Tensor:
        """One weight, on the CPU; for the name of a head that is tied, the embedding."""
        ...

    def form(self, name: str) -> Form:
        """Shape and dtype of one weight, without reading it."""
        ...


class LoadedSource:
    """The weights of a model in memory: its parameters and the buffers that its checkpoint holds.

    Args:
        model: not quantized.
        label: what errors call it.

    Raises:
        PairError: the weights are quantized.
    """

    def __init__(self, model: PreTrainedModel, label: str) -> None:
        _refuse_quantized(model.config, label)
        self.label = label
        self._state: dict[str, torch.Tensor] = model.state_dict()
        self.names: Sequence[str] = _without_tied_head(list(self._state), tied=_is_tied(model.config))

    def read(self, name: str) -> torch.Tensor:
        """See `Source`."""
        return self._state[_found(name, self._state, self.label)].detach().to("cpu")

    def form(self, name: str) -> Form:
        """See `Source`."""
        tensor = self._state[_found(name, self._state, self.label)]
        return tuple(tensor.shape), tensor.dtype


class CheckpointSource:
    """The weights of a checkpoint in safetensors files, one file or shards. Each read opens its file and closes it.

    Args:
        place: a folder, or a name on a model hub, which is downloaded.

    Raises:
        PairError: there are no safetensors files, a tensor is in two of them, or the weights are quantized.
        OSError: it cannot be found or read.
    """

    def __init__(self, place: str | Path) -> None:
        from safetensors import safe_open
        from transformers import AutoConfig

        self.label = str(place)
        self.folder = _folder(place)
        self.config = AutoConfig.from_pretrained(self.folder, trust_remote_code=False)
        _refuse_quantized(self.config, self.label)
        self._files: dict[str, Path] = {}
        self._forms: dict[str, Form] = {}
        for path in sorted(self.folder.glob("model*.safetensors")):
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118  # it is no mapping
                    if name in self._files:
                        raise PairError(
                            f"{self.label} holds {name!r} in {self._files[name].name} and in {path.name}; remove the "
                            "files that are not part of the checkpoint"
                        )
                    self._files[name] = path
                    shape = tuple(file.get_slice(name).get_shape())
                    none_of_it = file.get_slice(name)[:0] if shape else file.get_tensor(name)
                    self._forms[name] = shape, none_of_it.dtype
        if not self._files:
            raise PairError(f"{self.label} holds no model*.safetensors; save the model with save_pretrained()")
        self.names: Sequence[str] = _without_tied_head(list(self._files), tied=_is_tied(self.config))

    def read(self, name: str) -> torch.Tensor:
        """See `Source`."""
        from safetensors import safe_open

        found = _found(name, self._files, self.label)
        with safe_open(self._files[found], framework="pt") as file:
            tensor: torch.Tensor = file.get_tensor(found)
        return tensor

    def form(self, name: str) -> Form:
        """See `Source`."""
        return self._forms[_found(name, self._forms, self.label)]


def check_same_names(reference: Source, other: Source) -> None:
    """Raise a `PairError` unless another model has the weights of the reference, and no more."""
    own, theirs = set(reference.names), set(other.names)
    lacking = {name for name in own - theirs if not (name in HEADS and _embedding(other.names))}
    for differing, where in ((lacking, reference.label), (theirs - own, other.label)):
        if differing:
            raise PairError(
                f"{len(differing)} weights are only in {where}, first {min(differing)!r}; merged are models of one "
                f"architecture, so that {other.label} less {reference.label} is defined for every weight"
            )


def _folder(place: str | Path) -> Path:
    if Path(place).is_dir():
        return Path(place)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(str(place), allow_patterns=["model*.safetensors", *BESIDE]))
    except HFValidationError as error:
        raise FileNotFoundError(f"{str(place)!r} is neither a folder nor a name on a model hub") from error


def _is_tied(config: PreTrainedConfig) -> bool:
    return bool(getattr(config.get_text_config(), "tie_word_embeddings", False))


def _refuse_quantized(config: Any, label: str) -> None:
    if getattr(config, "quantization_config", None) is not None:
        raise PairError(f"the weights of {label} are quantized; their difference needs the weights before that")


def _embedding(names: Collection[str]) -> str | None:
    return next((name for name in names if f".{name}".endswith(tuple(f".{each}" for each in EMBEDDINGS))), None)


def _without_tied_head(names: Sequence[str], *, tied: bool) -> list[str]:
    return [name for name in names if not (tied and name in HEADS and _embedding(names))]


def _found(name: str, names: Collection[str], label: str) -> str:
    """The name itself, or the embedding's where a tied head is asked for."""
    if name in names:
        return name
    if name in HEADS and (embedding := _embedding(names)):
        return embedding
    raise PairError(f"{label} has no weight {name!r}")
