"""Tool calls in the text of a local model: JSON between `<tool_call>` tags, as Hermes and Qwen write it."""

from __future__ import annotations

import json
import re
from uuid import uuid4

from langchain_core.messages import InvalidToolCall, ToolCall
from langchain_core.messages.tool import invalid_tool_call, tool_call

_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)


def parse_tool_calls(text: str) -> tuple[str, list[ToolCall], list[InvalidToolCall]]:
    """The text around the calls, the calls, and what was meant as a call but cannot be read as one.

    A call is an object with a string `name` and an object `arguments`; the latter may be missing.
    """
    calls: list[ToolCall] = []
    invalid: list[InvalidToolCall] = []
    for match in _CALL.finditer(text):
        body = match[1].strip()
        identifier = f"call_{uuid4().hex}"
        try:
            value = json.loads(body)
        except (ValueError, RecursionError) as error:  # too long a number, too deep a nest: no call either
            invalid.append(invalid_tool_call(name=None, args=body, id=identifier, error=str(error)))
            continue
        match value:
            case {"name": str(name), "arguments": dict(arguments)}:
                calls.append(tool_call(name=name, args=arguments, id=identifier))
            case {"name": str(name)} if "arguments" not in value:
                calls.append(tool_call(name=name, args={}, id=identifier))
            case _:
                problem = "a call is an object with a string 'name' and an object 'arguments'"
                invalid.append(invalid_tool_call(name=None, args=body, id=identifier, error=problem))
    rest = _CALL.sub("", text)
    opened, mark, body = rest.partition("<tool_call>")
    if mark:  # opened and never closed
        invalid.append(invalid_tool_call(name=None, args=body, id=f"call_{uuid4().hex}", error="the call has no end"))
    return opened.strip() if calls or invalid else text, calls, invalid
