"""Tools that nothing runs: calling one gives the agent's final answer the form that `response_format` asks for."""

from __future__ import annotations

from typing import Any

from langchain.agents.structured_output import AutoStrategy, OutputToolBinding, ProviderStrategy, ToolStrategy
from langchain_core.language_models import BaseChatModel
from langchain_core.tools import BaseTool


def answer_tools(response_format: Any, model: BaseChatModel) -> tuple[frozenset[str], list[BaseTool]]:
    """Names that no tool runs, and those tools that the model is shown beside the agent's own.

    A bare schema, or `AutoStrategy`, leaves it to LangChain whether the model is shown a tool or the provider's own
    structured output is used. LangChain goes by the model's `profile`, and so does this. Beyond that it knows names of
    some hosted models by heart and does not make them public; name `ProviderStrategy` for one of those.

    Args:
        response_format: of the request.
        model: of the request.
    """
    match response_format:
        case None | ProviderStrategy():
            return frozenset(), []
        case ToolStrategy():
            strategy = response_format
        case AutoStrategy():
            strategy = ToolStrategy(schema=response_format.schema)
        case schema:
            strategy = ToolStrategy(schema=schema)
    tools = [OutputToolBinding.from_schema_spec(spec).tool for spec in strategy.schema_specs]
    by_provider = not isinstance(response_format, ToolStrategy) and (model.profile or {}).get("structured_output")
    return frozenset(tool.name for tool in tools), [] if by_provider else tools
