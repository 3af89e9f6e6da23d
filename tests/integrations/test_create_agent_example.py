"""The example of the package runs, with a real pair, and its scores are the pair's own."""

from __future__ import annotations

import textwrap
from typing import Any

import pa_langchain
import pytest
from langchain_core.messages import HumanMessage, SystemMessage

from pa_middleware import Step


def test_the_example_runs_and_its_scores_are_those_of_the_pair_under_the_agents_prompt() -> None:
    documented = pa_langchain.__doc__ or ""
    code = documented[documented.index("    from langchain.agents") : documented.index("Where it goes in the list")]
    example: dict[str, Any] = {"__name__": "example"}
    exec(compile(textwrap.dedent(code), "example", "exec"), example)
    values = example["agent"].get_state(example["fare"]).values
    records, messages = values["pa"], values["messages"]
    assert example["taxi"].done
    assert {record["decision"] for record in records} <= {"pass", "flag"}
    assert any(len(record["candidates"]) > 1 for record in records)
    taxi, position = example["taxi"], {message.id: index for index, message in enumerate(messages)}
    for record in (records[0], records[-1]):
        index = position[record["id"]]
        shown = [SystemMessage(example["SYSTEM"]), HumanMessage(f"{taxi.goal} {messages[index - 1].text}")]
        [score] = example["pair"].score([Step(shown, [messages[index]], taxi.tools())])
        assert score.candidates[0].score == pytest.approx(record["score"], abs=1e-3)
