"""A local transformers model as a LangChain chat model with tools."""

from pa_transformers.chat_model import LocalChatModel

__all__ = ["LocalChatModel"]
