from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from debugging.report.made import candidate, run, shop, step
from debugging.report.parts import details

from pa_middleware.debugging.report import write_report
from pa_middleware.tracing.runs import Run, TracedMessage, TracedStep


def _told(given: Run, folder: Path) -> dict[str, Any]:
    write_report([given], folder / "report.html")
    return details(folder / "report.html")


def _history(told: dict[str, Any], place: int) -> list[str]:
    """What the page makes of the differences from step to step."""
    shown: list[int] = []
    for each in told["steps"][: place + 1]:
        begin, gone = each.get("cut", [0, 0])
        shown = shown[:begin] + shown[begin + gone :] + each.get("added", [])
    return [told["messages"][number].get("text", "") for number in shown]


def _seeing(*histories: Sequence[str]) -> Run:
    steps: list[TracedStep] = []
    for index, texts in enumerate(histories):
        steps.append(step(index, [candidate(0, 1.0, "look")], [TracedMessage("user", text) for text in texts]))
    return Run("a" * 32, None, tuple(steps))


def test_histories_are_told_by_what_changed_and_come_back_whole(tmp_path: Path) -> None:
    histories = ["ab", "abcd", "acd", "", "ab", "aab", "ba", "bb"]  # longer, one taken out, none, anew, one twice, ...
    told = _told(_seeing(*histories), tmp_path)
    assert ["".join(_history(told, place)) for place in range(len(histories))] == histories
    assert len(told["messages"]) == 4


def test_a_window_that_moves_over_a_history_is_told_by_what_enters_it(tmp_path: Path) -> None:
    told = _told(_seeing("sabcd", "sbcde", "scdef", "sdefg"), tmp_path)
    assert [(each["cut"], len(each["added"])) for each in told["steps"][1:]] == [([1, 1], 1)] * 3
    assert "".join(_history(told, 3)) == "sdefg"


def test_the_answer_to_a_call_is_the_first_message_that_a_later_step_was_shown(tmp_path: Path) -> None:
    told = _told(shop()[0], tmp_path)
    for place, each in enumerate(told["steps"][:-1]):
        [[call, number]] = each["answers"]
        assert call == f"call-{place}"
        assert told["messages"][number]["text"] == f"Result {place} of aa."
    assert "answers" not in told["steps"][-1]


def test_an_id_that_is_used_again_is_answered_step_by_step(tmp_path: Path) -> None:
    history: list[TracedMessage] = []
    steps = []
    for index in range(3):
        steps.append(replace(step(index, [candidate(0, 1.0, "look")], tuple(history)), tool_call_ids=("call",)))
        history.append(TracedMessage("tool", f"result {index}", answers="call"))
    told = _told(Run("a" * 32, None, tuple(steps)), tmp_path)
    answers = [each.get("answers", [["", None]])[0][1] for each in told["steps"]]
    assert [told["messages"][number]["text"] for number in answers[:2]] == ["result 0", "result 1"]
    assert answers[2] is None


def test_every_attribute_is_there_once_and_what_is_shown_anyway_by_its_name(tmp_path: Path) -> None:
    given = shop()[0]
    told = _told(given, tmp_path)
    common, of_candidates = told["common"]
    assert common == {"pa_middleware.policy.model": "made", "pa_middleware.score.normalization": "sum"}
    assert of_candidates == {"pa_middleware.token.texts": None}
    for each, shown in zip(given.steps, told["steps"], strict=True):
        assert common | shown["attributes"] == dict(each.attributes)


def test_a_span_without_attributes_has_none_of_the_others(tmp_path: Path) -> None:
    [failed, *_] = shop()
    unfinished = replace(failed.steps[-1], attributes={}, decision="", end_ns=None)
    told = _told(replace(failed, steps=(*failed.steps[:-1], unfinished)), tmp_path)
    assert "attributes" not in told["steps"][-1]
    assert told["common"][0]["pa_middleware.policy.model"] == "made"


def test_a_run_without_content_says_no_text(tmp_path: Path) -> None:
    told = _told(shop()[2], tmp_path)
    assert told["messages"] == told["definitions"] == []
    assert not {"text", "arguments", "texts", "ratios"} & set(told["steps"][0]["candidates"][0])
    assert (
        _told(run("a" * 32, None, [[replace(candidate(0, 1.0, "look"), text="")]]), tmp_path)["steps"][0]["candidates"][
            0
        ]["text"]
        == ""
    )
