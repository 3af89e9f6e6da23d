"""Policy and reference in one set of weights: an adapter on, and off."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pa_middleware.scoring.checkpoints import load
from pa_middleware.scoring.errors import PairError
from pa_middleware.scoring.pair import ModelPair
from pa_middleware.scoring.twin import twin

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class LoraPair(ModelPair):
    """A pair whose policy is a model with an adapter and whose reference is the same model without it.

    Each is a body of its own over the same tensors, switched once: nothing is toggled while scoring, and the model that
    was given is left as it is. Each keeps its own keys and values. An agent is driven with `pair.policy.model` (or
    `pair.reference.model`), which no adapter switch can change: the scorer knows that body, and not the model given.

    Args:
        model: of peft, with the adapters loaded and not merged.
        tokenizer: the policy's, with its chat template.
        policy_adapter: by default the active one.
        reference_adapter: by default none: the base model.
        reference_alpha: in [0, 1): the reference is the base model plus so much of the policy's adapter, by its
            scaling. The merged reference pi_ref + alpha * tau (paper, section 4) without a weight being written.
        settings: everything else `ModelPair` takes.

    Raises:
        PairError: an adapter is not there, is merged, changes the prompt instead of the weights, or is both the
            policy's and the reference's; or it is to be scaled and does more than add a scaled product.
        ValueError: `reference_alpha` is outside, or given with an adapter of the reference.
    """

    def __init__(
        self,
        model: PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        policy_adapter: str | None = None,
        reference_adapter: str | None = None,
        reference_alpha: float | None = None,
        **settings: Any,
    ) -> None:
        if reference_alpha is not None:
            if reference_adapter is not None:
                raise ValueError(
                    f"reference_alpha is {reference_alpha!r} and reference_adapter {reference_adapter!r}; give one of "
                    "them: alpha scales the policy's adapter"
                )
            if not 0 <= reference_alpha < 1:
                raise ValueError(
                    f"reference_alpha is {reference_alpha!r}; allowed: 0 (the base model) to below 1, where every "
                    "score would be 0"
                )
        policy_adapter = policy_adapter or str(model.active_adapter)
        for adapter in (policy_adapter, reference_adapter):
            if adapter is not None and adapter not in model.peft_config:
                raise PairError(f"there is no adapter {adapter!r}; loaded: {', '.join(map(repr, model.peft_config))}")
        if policy_adapter == reference_adapter:
            raise PairError(f"{policy_adapter!r} is given as policy and as reference; every score would be 0")
        inner: Any = model.get_base_model()
        base = str(inner.config.name_or_path or "base")
        policy = f"{base}+{policy_adapter}"
        if reference_alpha is None:
            reference = f"{base}+{reference_adapter}" if reference_adapter else base
            body = _body(model, reference_adapter)
        else:
            reference = f"{base}+{reference_alpha:g}*{policy_adapter}"
            body = _body(model, policy_adapter)
            _scale(body, policy_adapter, reference_alpha)
        settings.setdefault("name", (policy, reference))
        super().__init__(_body(model, policy_adapter), body, tokenizer, **settings)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        base: str | Path,
        adapter: str | Path,
        *,
        reference_adapter: str | Path | None = None,
        reference_alpha: float | None = None,
        dtype: torch.dtype | str = "auto",
        device: torch.device | str = "cpu",
        **settings: Any,
    ) -> LoraPair:
        """A pair from a checkpoint and one or two adapters of it: folders, or names on a model hub.

        Weights load from safetensors only and no code from a checkpoint runs.

        Args:
            base: the model under the adapters, with tokenizer and chat template.
            adapter: the policy's.
            reference_adapter: the reference's; None is the base model.
            reference_alpha: see the class.
            dtype: of the base model; `auto` keeps the checkpoint's own.
            device: where it goes.
            settings: everything else `ModelPair` takes.

        Raises:
            PairError: the base lacks weights.
            OSError: a checkpoint cannot be found or read.
        """
        from peft import PeftModel

        weights, tokenizer = load(base, dtype=dtype, device=device)
        model = PeftModel.from_pretrained(weights, str(adapter), adapter_name="policy", use_safetensors=True)
        if reference_adapter is not None:
            model.load_adapter(str(reference_adapter), adapter_name="reference", use_safetensors=True)
        other = base if reference_alpha is None else f"{base}+{reference_alpha:g}*{adapter}"
        settings.setdefault("name", (str(adapter), str(reference_adapter or other)))
        reference = "reference" if reference_adapter is not None else None
        return cls(
            model,
            tokenizer,
            policy_adapter="policy",
            reference_adapter=reference,
            reference_alpha=reference_alpha,
            **settings,
        )


def _body(model: PeftModel, adapter: str | None) -> PreTrainedModel:
    """The model under the adapters, in a body where this one is on, or none."""
    from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer

    if not isinstance(model.base_model, BaseTuner):
        raise PairError("the adapter changes the prompt, not the weights; a pair needs one that can be switched off")
    if any(isinstance(module, BaseTunerLayer) and module.merged for module in model.modules()):
        raise PairError("an adapter is merged into the weights; call unmerge_adapter() first")
    trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    body: Any = twin(model)
    if adapter is None:
        body.base_model.disable_adapter_layers()
    else:
        body.set_adapter(adapter)
    for parameter, requires_grad in trained:  # peft's switches set this too, and the tensors are the user's
        parameter.requires_grad_(requires_grad)
    inner: PreTrainedModel = body.get_base_model()
    return inner


def _scale(body: PreTrainedModel, adapter: str, alpha: float) -> None:
    """Multiply what an adapter adds to the weights by alpha; the modules of a twin hold scalings of their own."""
    from peft.tuners.lora import LoraLayer
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    for name, module in body.named_modules():
        plain = isinstance(module, LoraLayer) and not module.lora_variant
        if isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper)) and not plain:
            what = "DoRA or another variant" if isinstance(module, LoraLayer) else type(module).__name__
            raise PairError(
                f"{name!r} is adapted by {what}, whose weights do not grow with a scaling; save the merged policy and "
                "merge the checkpoints (pa-middleware merge)"
            )
        if isinstance(module, LoraLayer) and adapter in module.scaling:
            module.scaling[adapter] *= alpha
