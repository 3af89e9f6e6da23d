"""Which settings of one call, as LangChain binds them, a local model can keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TRACED = frozenset({"ls_structured_output_format", "structured_output_format"})
"""What LangChain tells its own traces."""


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse what would have no effect. None is a setting that was not made.

    Raises:
        ValueError: any other than `tools`, a `tool_choice` that leaves the choice to the model, and no streaming.
    """
    for name, value in settings.items():
        match name, value:
            case ("tools", _) | (_, None) | ("tool_choice", "auto") | ("stream", False):
                continue
            case "tool_choice", _:
                raise ValueError(
                    f"tool_choice is {value!r}; a local model can only be left to choose: None or 'auto'. Output of a "
                    "given form, as with_structured_output and response_format want it, cannot be had of it"
                )
            case _ if name not in _TRACED:
                raise ValueError(
                    f"the setting {name!r} is {value!r:.100} and would have no effect; a call of a local model takes "
                    "'tools', and 'tool_choice' None or 'auto'. Give LocalChatModel itself its temperature, "
                    "max_new_tokens, template_kwargs and seed"
                )
