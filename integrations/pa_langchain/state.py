"""The state of an agent with the guard's records in it."""

from __future__ import annotations

import operator
from typing import Annotated, Any, NotRequired

from langchain.agents.middleware import AgentState
from langchain.agents.middleware.types import PrivateStateAttr

from pa_middleware.guard.record import Record


class GuardedAgentState(AgentState[Any]):
    """State of a guarded agent. The records are its own affair: no input sets them and no output shows them."""

    pa: NotRequired[Annotated[list[Record], PrivateStateAttr, operator.add]]  # LangGraph takes the last for the reducer
