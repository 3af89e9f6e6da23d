from __future__ import annotations

import json

import pytest
from pa_transformers.tool_calls import parse_tool_calls


def _call(name: str, arguments: object) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def test_a_text_without_calls_stays_as_it_is() -> None:
    assert parse_tool_calls("  just words \n") == ("  just words \n", [], [])
    assert parse_tool_calls("") == ("", [], [])


def test_calls_are_read_in_order_and_the_text_around_them_is_kept() -> None:
    text, calls, invalid = parse_tool_calls(f"First.\n{_call('a', {'x': [1, 'é']})}\n{_call('b', {})}")
    assert text == "First."
    assert [(call["name"], call["args"]) for call in calls] == [("a", {"x": [1, "é"]}), ("b", {})]
    assert invalid == []


def test_each_call_has_an_id_of_its_own() -> None:
    _, calls, _ = parse_tool_calls(_call("a", {}) * 3)
    _, more, _ = parse_tool_calls(_call("a", {}))
    assert len({call["id"] for call in calls + more}) == 4


def test_missing_arguments_are_no_arguments() -> None:
    _, calls, invalid = parse_tool_calls('<tool_call>\n{"name": "pickup"}\n</tool_call>')
    assert [(call["name"], call["args"]) for call in calls] == [("pickup", {})]
    assert invalid == []


@pytest.mark.parametrize(
    "body",
    [
        "",
        "not json",
        '{"name": "a", "arguments": {}',
        '{"name": "a", "arguments": {}} {}',
        '{"name": "a", "arguments": "{}"}',
        '{"name": "a", "arguments": null}',
        '{"name": "a", "arguments": [1]}',
        '{"name": 1, "arguments": {}}',
        '{"arguments": {}}',
        '["a", {}]',
        "null",
        '{"name": "a", "arguments": {"x": ' + "[" * 100_000,
        '{"name": "a", "arguments": {"x": ' + "9" * 5_000 + "}}",
    ],
    ids=lambda body: body[:40],
)
def test_what_cannot_be_read_as_a_call_is_an_invalid_call_with_its_error(body: str) -> None:
    text, calls, invalid = parse_tool_calls(f"So: <tool_call>{body}</tool_call>")
    assert (text, calls) == ("So:", [])
    assert [(each["args"], each["type"]) for each in invalid] == [(body, "invalid_tool_call")]
    assert invalid[0]["error"]
    assert invalid[0]["id"]


def test_a_call_without_an_end_is_invalid() -> None:
    text, calls, invalid = parse_tool_calls(f'{_call("a", {})} then <tool_call>{{"name": "b"')
    assert text == "then"
    assert [call["name"] for call in calls] == ["a"]
    assert [(each["args"], each["error"]) for each in invalid] == [('{"name": "b"', "the call has no end")]


def test_one_bad_call_does_not_spoil_the_others() -> None:
    _, calls, invalid = parse_tool_calls(_call("a", {}) + _call("b", 3) + _call("c", {}))
    assert [call["name"] for call in calls] == ["a", "c"]
    assert len(invalid) == 1


def test_a_call_inside_a_call_is_invalid() -> None:
    _, calls, invalid = parse_tool_calls(f"<tool_call>{_call('a', {})}")
    assert calls == []
    assert len(invalid) == 1


def test_an_end_without_a_call_is_text() -> None:
    assert parse_tool_calls("odd </tool_call>") == ("odd </tool_call>", [], [])
