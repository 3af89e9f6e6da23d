"""A human's word on an escalated step: asked before any tool, obeyed, kept, and never asked or drawn twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from guard.agents import (
    ByArgument,
    Failing,
    How,
    Place,
    Scripted,
    World,
    act,
    agent_node,
    build,
    enforced,
    run,
    say,
    texts,
)
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from pa_middleware import Guard, GuardError, RulesError

CONFIG: Any = {"configurable": {"thread_id": "t"}}
ESCALATE: dict[str, Any] = {"threshold": 0.0, "on_low": "escalate"}

sync_and_async = pytest.mark.parametrize("how", ["sync", "async"])


class Asked:
    """A guarded graph that waits for a human."""

    def __init__(
        self, *replies: AIMessage, scorer: Any = None, how: How = "sync", place: Place = "install", **settings: Any
    ) -> None:
        self.how = how
        self.world = World()
        self.scorer = scorer or ByArgument()
        self.model = Scripted(replies=list(replies))
        guard = Guard(self.scorer, enforced(**{**ESCALATE, **settings}))
        builder = build(guard, agent_node(self.model), self.world, place=place)
        self.graph = builder.compile(checkpointer=InMemorySaver())
        self.state = self.tell("go")

    def tell(self, text: str) -> dict[str, Any]:
        self.state = run(self.graph, text, CONFIG, how=self.how)
        return self.state

    def answer(self, *decisions: Any) -> dict[str, Any]:
        return self.resume({"decisions": list(decisions)})

    def resume(self, value: Any) -> dict[str, Any]:
        command: Command[Any] = Command(resume=value)
        graph, how = self.graph, self.how
        result = graph.invoke(command, CONFIG) if how == "sync" else asyncio.run(graph.ainvoke(command, CONFIG))
        self.state = dict(result)
        return self.state

    @property
    def question(self) -> Any:
        [asked] = self.state["__interrupt__"]
        return asked.value

    @property
    def records(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.graph.get_state(CONFIG).values["pa"]
        return found


def edit(x: float, name: str = "act") -> dict[str, Any]:
    return {"type": "edit", "edited_action": {"name": name, "args": {"x": x}}}


@sync_and_async
def test_a_human_is_asked_before_any_tool_in_langchains_words(how: How) -> None:
    asked = Asked(act(-1.5), say(1), how=how)
    assert asked.world.ran == []
    [request] = asked.question["action_requests"]
    assert (request["name"], request["args"]) == ("act", {"x": -1.5})
    said = "This call scored -1.5, the action as a whole -1.5; it needs 0 or more to run unasked."
    assert said in request["description"]
    assert asked.question["review_configs"] == [
        {"action_name": "act", "allowed_decisions": ["approve", "edit", "reject", "respond"]}
    ]
    assert asked.records[-1]["decision"] == "escalate"


@sync_and_async
@pytest.mark.parametrize("place", ["hand", "install"])
def test_an_approved_call_runs_as_it_was_drawn_and_nothing_is_drawn_or_scored_again(how: How, place: Place) -> None:
    asked = Asked(act(-1), say(1), how=how, place=place)
    scored, drawn = len(asked.scorer.steps), len(asked.model.asked)
    assert (scored, drawn) == (1, 1)
    final = asked.answer({"type": "approve"})
    assert asked.world.ran == [-1.0]
    assert texts(final["messages"]) == ["human:go", "ai[1]:", "tool:did -1.0", "ai:done #1"]
    assert (len(asked.scorer.steps), len(asked.model.asked)) == (2, 2), "only the next step"
    assert [(record["by"], record["decision"], record["reason"], record["step"]) for record in asked.records] == [
        ("rules", "escalate", "below_threshold", 0),
        ("human", "pass", "human", 0),
        ("rules", "pass", "above_threshold", 1),
    ]
    assert asked.records[1]["calls"][0]["human"] == "approve"


@sync_and_async
def test_a_rejected_call_never_runs_and_the_model_reads_why(how: How) -> None:
    asked = Asked(act(-1), say(1), how=how)
    final = asked.answer({"type": "reject", "message": "too early"})
    assert asked.world.ran == []
    assert texts(final["messages"]) == ["human:go", "ai[1]:", "tool:too early", "ai:done #1"]
    assert final["messages"][2].status == "error"
    assert asked.records[1]["decision"] == "block"


@sync_and_async
def test_a_human_may_answer_in_the_tools_place(how: How) -> None:
    asked = Asked(act(-1), say(1), how=how)
    final = asked.answer({"type": "respond", "message": "it is 42"})
    assert asked.world.ran == []
    assert (final["messages"][2].text, final["messages"][2].status) == ("it is 42", "success")


@sync_and_async
def test_an_edited_call_is_scored_again_under_the_same_prompt_and_the_history_shows_it_as_it_ran(how: How) -> None:
    asked = Asked(act(-1), say(1), how=how)
    final = asked.answer(edit(2))
    assert asked.world.ran == [2.0]
    assert final["messages"][1].tool_calls[0]["args"] == {"x": 2}
    first, again = asked.scorer.steps[:2]
    assert texts(again.history) == texts(first.history) == ["human:go"]
    assert again.candidates[0].tool_calls[0]["args"] == {"x": 2}
    record = asked.records[1]
    assert (record["score"], record["calls"][0]["human"], record["calls"][0]["score"]) == (2.0, "edit", 2.0)


@sync_and_async
def test_an_edited_call_that_is_low_does_not_run(how: How) -> None:
    asked = Asked(act(-1), say(1), how=how)
    final = asked.answer(edit(-2))
    assert asked.world.ran == []
    assert final["messages"][2].text.startswith("Not executed: a human edited this call")
    assert final["messages"][1].tool_calls[0]["args"] == {"x": -2}, "what was refused is what stands there"
    assert asked.records[1]["decision"] == "block"


def test_rules_that_trust_human_edits_run_them_unscored() -> None:
    asked = Asked(act(-1), say(1), trust_human_edits=True)
    asked.answer(edit(-2))
    assert asked.world.ran == [-2.0]
    assert len(asked.scorer.steps) == 2, "the edit is not among them"


@pytest.mark.parametrize(("on_scorer_error", "ran"), [("abstain", []), ("escalate", []), ("flag", [2.0])])
def test_an_edit_that_cannot_be_scored_runs_only_where_the_rules_flag(on_scorer_error: Any, ran: list[float]) -> None:
    scorer = Failing(None, ValueError("down"), None)
    asked = Asked(act(-1), say(1), scorer=scorer, on_scorer_error=on_scorer_error)
    asked.answer(edit(2))
    assert asked.world.ran == ran
    assert asked.records[1]["error"] == "ValueError: down"


@pytest.mark.parametrize("other", ["approve", "reject", "respond"])
@sync_and_async
def test_an_edited_call_is_judged_by_itself_whatever_becomes_of_the_others(how: How, other: str) -> None:
    asked = Asked(act(-1, -1), say(1), how=how)
    asked.answer(edit(0.5), {"type": other, "message": "because"})
    assert asked.world.ran == [0.5, -1.0] if other == "approve" else [0.5]
    assert [call["args"]["x"] for call in asked.scorer.steps[1].candidates[0].tool_calls] == [0.5]


def test_a_model_is_not_told_that_an_edit_was_low_when_it_could_not_be_scored() -> None:
    asked = Asked(act(-1), say(1), scorer=Failing(None, ValueError("down"), None))
    final = asked.answer(edit(2))
    assert final["messages"][2].text == (
        "Not executed: a human edited this call, and the edited call could not be scored."
    )


@sync_and_async
def test_only_the_low_calls_are_asked_about_and_none_runs_before_the_answer(how: How) -> None:
    asked = Asked(act(1, -9, 2, -8), say(1), how=how)
    assert [request["args"]["x"] for request in asked.question["action_requests"]] == [-9, -8]
    assert asked.world.ran == []
    final = asked.answer({"type": "reject"}, {"type": "approve"})
    assert sorted(asked.world.ran) == [-8.0, 1.0, 2.0]
    answers = [message for message in final["messages"] if isinstance(message, ToolMessage)]
    assert len(answers) == len({answer.tool_call_id for answer in answers}) == 4


@sync_and_async
def test_a_scorers_failure_is_escalated_where_the_rules_say_so(how: How) -> None:
    asked = Asked(act(-1, 2), say(1), scorer=Failing(ValueError("down"), None), on_scorer_error="escalate", how=how)
    assert len(asked.question["action_requests"]) == 2, "nobody knows which of them is low"
    assert "could not be scored: ValueError: down" in asked.question["action_requests"][0]["description"]
    asked.answer({"type": "approve"}, {"type": "reject"})
    assert asked.world.ran == [-1.0]
    assert asked.records[0]["reason"] == "scorer_error"


WRONG: list[tuple[Any, str]] = [
    ("yes", "the answer is 'yes'"),
    ({"decisions": []}, "with 1, one for each request"),
    ({"decisions": [{"type": "approve"}] * 2}, "with 1, one for each request"),
    ({"decisions": ["approve"]}, "allowed: a type among approve, edit, reject, respond"),
    ({"decisions": [{"type": "allow"}]}, "allowed: a type among"),
    ({"decisions": [{"type": "edit"}]}, "an edited_action with a name and args"),
    ({"decisions": [{"type": "edit", "edited_action": {"name": "act", "args": "x=1"}}]}, "an edited_action"),
    ({"decisions": [{"type": "respond"}]}, "a message is None; allowed: text"),
    ({"decisions": [{"type": "reject", "message": 1}]}, "a message is 1"),
]


@pytest.mark.parametrize(("wrong", "said"), WRONG)
@sync_and_async
def test_an_answer_that_cannot_be_understood_is_asked_for_again_and_nothing_runs(
    how: How, wrong: Any, said: str
) -> None:
    asked = Asked(act(-1), say(1), how=how)
    asked.resume(wrong)
    assert said in asked.question["error"]
    assert asked.world.ran == []
    asked.answer({"type": "approve"})
    assert asked.world.ran == [-1.0]
    assert len(asked.model.asked) == 2


@sync_and_async
@pytest.mark.parametrize("place", ["hand", "install"])
def test_new_input_while_a_human_is_asked_leaves_no_open_call_behind(how: How, place: Place) -> None:
    asked = Asked(act(1, -9), say(1, "never mind"), how=how, place=place)
    final = asked.tell("something else")
    assert "__interrupt__" not in final
    refused = "tool:No result is known: the conversation went on before this call was answered."
    assert texts(final["messages"]) == [
        "human:go", "ai[2]:", refused, refused, "human:something else", "ai:never mind #1",
    ]  # fmt: skip
    assert texts(asked.model.asked[-1]) == texts(final["messages"])[:-1], "the model was shown the closed conversation"
    assert texts(asked.scorer.steps[-1].history) == texts(final["messages"])[:-1], "and the score was taken under it"
    assert asked.world.ran == []


@pytest.mark.parametrize("settings", [ESCALATE, {"on_scorer_error": "escalate"}])
@sync_and_async
def test_escalation_without_a_checkpointer_is_an_error_before_anything_is_drawn(
    how: How, settings: dict[str, Any]
) -> None:
    world, model = World(), Scripted(replies=[act(-1)])
    graph = build(Guard(ByArgument(), enforced(**settings)), agent_node(model), world).compile()
    with pytest.raises(GuardError, match=r"no checkpointer .* compile\(checkpointer=\.\.\.\)"):
        run(graph, how=how)
    assert (world.ran, model.asked) == ([], [])


def test_a_low_answer_has_no_call_to_ask_about_and_is_abstained_from() -> None:
    asked = Asked(say(-1))
    assert "__interrupt__" not in asked.state
    assert asked.records[-1]["decision"] == "abstain"


def test_in_shadow_mode_nobody_is_asked() -> None:
    world = World()
    guard = Guard(ByArgument(), enforced(**ESCALATE, mode="shadow"))
    graph = build(guard, agent_node(Scripted(replies=[act(-1), say(1)])), world).compile()
    final = run(graph)
    assert world.ran == [-1.0]
    assert final["pa"][0]["decision"] == "escalate"


def test_an_escalated_call_that_was_changed_behind_the_guards_back_is_not_asked_about_but_refused() -> None:
    asked = Asked(act(-1), say(1))
    action = asked.graph.get_state(CONFIG).values["messages"][-1]
    forged = action.model_copy(update={"tool_calls": [{**action.tool_calls[0], "args": {"x": 9}}]})
    asked.graph.update_state(CONFIG, {"messages": [forged]}, as_node="agent")
    final: Any = asked.graph.invoke(None, CONFIG)
    assert asked.world.ran == []
    assert "is not the one that was approved" in final["messages"][2].text


def test_trust_in_edits_that_nobody_can_make_is_refused() -> None:
    with pytest.raises(RulesError, match="trust_human_edits=True has no effect"):
        Guard(ByArgument(), enforced(threshold=0.0, trust_human_edits=True))


def test_a_human_is_told_to_telemetry_in_the_trace_of_the_step(backend: Any) -> None:
    world = World()
    guard = Guard(ByArgument(), enforced(**ESCALATE), tracer_provider=backend.tracer_provider)
    graph = build(guard, agent_node(Scripted(replies=[act(-1), say(1)])), world).compile(checkpointer=InMemorySaver())
    run(graph, config=CONFIG)
    graph.invoke(Command(resume={"decisions": [{"type": "approve"}]}), CONFIG)
    spans = {span.name: span for span in backend.spans()}
    review, guarded = spans["review progress_advantage"], backend.spans()[1]
    assert review.attributes["pa_middleware.review.decisions"] == ("approve",)
    assert review.context.trace_id == guarded.context.trace_id


def test_the_history_function_is_given_the_state_before_the_action() -> None:
    seen: list[list[str]] = []

    def history(state: Any) -> Any:
        seen.append(texts(state["messages"]))
        return [HumanMessage("shown")]

    world = World()
    scorer: Any = ByArgument()
    guard = Guard(scorer, enforced(**ESCALATE), history=history)
    graph = build(guard, agent_node(Scripted(replies=[act(-1), say(1)])), world).compile(checkpointer=InMemorySaver())
    run(graph, config=CONFIG)
    graph.invoke(Command(resume={"decisions": [edit(1)]}), CONFIG)
    assert [texts(step.history) for step in scorer.steps[:2]] == [["human:shown"]] * 2
    assert {tuple(each) for each in seen[:4]} >= {("human:go",)}
