from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation.made import same, scored, several, trajectory
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pa_middleware.evaluation.errors import EvaluationError
from pa_middleware.evaluation.scores_file import external_line, header_line, read_scores, run_line
from pa_middleware.evaluation.stored import StoredRun, StoredStep

HEADER = {"parity": None, "policy": "p", "reference": "r", "beta": 1.0, "runs": 4}
RUNS = [scored(trajectory(name), seed) for seed, name in enumerate("dbca")]
ARRAYS = ("policy", "reference", "top_mean", "entropy", "self_certainty")
LOG_PROBS = st.floats(max_value=-0.0, width=32, allow_infinity=False)


def _write(file: Path, runs: dict[int, StoredRun], **changed: Any) -> Path:
    lines = [run_line(run, position) for position, run in runs.items()]
    file.write_text(header_line(HEADER | changed) + "".join(lines), encoding="utf-8")
    return file


def _reward_model(file: Path, scores: dict[str, Any], name: str = "prm") -> Path:
    lines = [external_line(run, given) for run, given in scores.items()]
    file.write_text(header_line({"reward_model": name}) + "".join(lines), encoding="utf-8")
    return file


@given(values=arrays(np.float32, st.integers(1, 9), elements=LOG_PROBS), position=st.integers(0, 99))
def test_what_is_read_is_what_was_written_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory, values: np.ndarray[Any, np.dtype[np.float32]], position: int
) -> None:
    step = StoredStep(
        index=2,
        agent="Ägent",
        policy=values,
        reference=values[::-1],
        top_mean=values,
        entropy=-values,
        self_certainty=-values,
        truncated=True,
    )
    run = StoredRun(id="a", task="t", reward=0.5, mistake_step=2, characters=(3, 0, 5), steps=(step,))
    file = _write(tmp_path_factory.mktemp("scores") / "scores.jsonl", {position: run})
    (read,) = read_scores([file]).runs
    assert same(read, run)
    assert read.steps[0].policy.tobytes() == values.tobytes()


def test_runs_come_in_the_order_of_their_source_whatever_order_they_were_scored_in(tmp_path: Path) -> None:
    file = _write(tmp_path / "a.jsonl", {2: RUNS[2], 0: RUNS[0], 3: RUNS[3], 1: RUNS[1]})
    found = read_scores([file])
    assert all(map(same, found.runs, RUNS))
    assert (found.header, found.missing, found.official) == (HEADER, 0, False)


def test_shards_of_one_pass_are_joined_in_any_order_and_what_is_missing_is_counted(tmp_path: Path) -> None:
    one = _write(tmp_path / "1.jsonl", {3: RUNS[3], 1: RUNS[1]}, shard="1/2", parity="official")
    zero = _write(tmp_path / "0.jsonl", {0: RUNS[0], 2: RUNS[2]}, shard="0/2", parity="official")
    found = read_scores([one, zero])
    assert [run.id for run in found.runs] == ["d", "b", "c", "a"]
    assert (found.missing, found.official, "shard" in found.header) == (0, True, False)
    assert read_scores([one]).missing == 2


def test_shards_of_different_passes_are_refused_and_the_difference_named(tmp_path: Path) -> None:
    one, two = _write(tmp_path / "1.jsonl", {0: RUNS[0]}), _write(tmp_path / "2.jsonl", {1: RUNS[1]}, beta=2.0)
    with pytest.raises(EvaluationError, match=r"2\.jsonl' is of another pass than '.*1\.jsonl': they differ in beta"):
        read_scores([one, two])


def test_a_run_that_is_told_twice_is_refused(tmp_path: Path) -> None:
    one, two = _write(tmp_path / "1.jsonl", {0: RUNS[0]}), _write(tmp_path / "2.jsonl", {0: RUNS[0]})
    with pytest.raises(EvaluationError, match=r"2\.jsonl', line 2: the run 'd' was told before"):
        read_scores([one, two])


def test_a_torn_line_is_refused_with_what_to_do(tmp_path: Path) -> None:
    file = _write(tmp_path / "1.jsonl", dict(enumerate(RUNS)))
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(EvaluationError, match=r"line 5 is torn: .* run the same `pa-middleware score` again"):
        read_scores([file])


def _line(**changed: Any) -> str:
    return json.dumps(json.loads(run_line(RUNS[0], 0)) | changed) + "\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{\n", ": no JSON"),
        ("[]\n", r": '\[\]' is no JSON object"),
        ("{}\n", r" is no scored run: KeyError\('reward'\)"),
        (_line(steps=[{"index": 1, "policy": [-1.0]}]), "values are not of the same tokens"),
        (_line(steps=[{"index": 1, **{key: [1.0] for key in ("policy", "reference")}}]), "of the same tokens"),
        (_line(reward=float("nan")), "its reward is nan"),
        (_line(position="first"), "is no scored run: ValueError"),
        (_line(position=float("inf")), "is no scored run: OverflowError"),
        (_line(reward=10**400), "is no scored run: OverflowError"),
        (_line(steps=[{"index": 2}, {"index": 2}]), r"its steps are \[2, 2\], of 7 messages"),
        (_line(steps=[{"index": 7}]), r"its steps are \[7\], of 7 messages"),
        (_line(steps=[{"index": -1}]), r"its steps are \[-1\], of 7 messages"),
        (_line(steps=[{"index": 1, **{key: [[-1.0]] for key in ARRAYS}}]), "of the same tokens"),
        (_line(steps=[{"index": 1, **{key: [-1e300] for key in ARRAYS}}]), "is not finite"),
        ("[" * 100_000 + "\n", "no JSON"),
    ],
)
def test_a_line_that_is_no_run_is_refused_by_its_number(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "1.jsonl"
    file.write_text(header_line(HEADER) + line, encoding="utf-8")
    with pytest.raises(EvaluationError, match=rf"1\.jsonl', line 2.*{message}"):
        read_scores([file])


@pytest.mark.parametrize(("value", "message"), [(1.0, "a log-prob is above 0"), (float("inf"), "is not finite")])
def test_a_value_that_is_no_log_prob_is_refused(tmp_path: Path, value: float, message: str) -> None:
    file = tmp_path / "1.jsonl"
    file.write_text(
        header_line(HEADER) + _line(steps=[{"index": 1, **{key: [value] for key in ARRAYS}}]), encoding="utf-8"
    )
    with pytest.raises(EvaluationError, match=message):
        read_scores([file])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no file of scores"),
        ('{"run": "a"}\n', "is no file of scores; give one that `pa-middleware score` wrote"),
        ('{"pa_middleware_scores": 2}\n', "has version 2; this release reads 1"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "1.jsonl"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(EvaluationError, match=message):
        read_scores([file])
    with pytest.raises(FileNotFoundError):
        read_scores([tmp_path / "none.jsonl"])


def test_other_reward_models_scores_are_joined_a_number_for_each_step_or_one_for_the_run(tmp_path: Path) -> None:
    runs = [scored(trajectory("a")), scored(several())]
    steps = _reward_model(tmp_path / "prm.jsonl", {"7": [0.5, None], "a": [1.0, 0.0, -1.0]})
    whole = _reward_model(tmp_path / "orm.jsonl", {"a": 3, "7": 1.5}, "orm")
    found = read_scores([steps, _write(tmp_path / "1.jsonl", dict(enumerate(runs))), whole])
    assert [run.external for run in found.runs] == [
        {"prm": (1.0, 0.0, -1.0), "orm": (3,)},
        {"prm": (0.5, None), "orm": (1.5,)},
    ]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"d": [1.0] * 3}, "'prm' has no score of 3 runs, 'b' among them"),
        ({run.id: [1.0, 2.0] for run in RUNS}, "'prm' has 2 scores of the run 'd', which has 3 actions"),
        ({run.id: [] for run in RUNS}, "'prm' has 0 scores of the run 'd', which has 3 actions"),
        (
            {run.id: [1.0] * 3 if run.id != "a" else 1.0 for run in RUNS},
            "of each step of some runs and one for the whole",
        ),
        ({"d": [10**400]}, "line 2: allowed: run, and scores"),
        ({"d": [True]}, "line 2: allowed: run, and scores"),
        ({"d": ["good"]}, "line 2: allowed: run, and scores"),
    ],
)
def test_reward_models_scores_that_do_not_fit_are_refused(tmp_path: Path, scores: dict[str, Any], message: str) -> None:
    files = [_write(tmp_path / "1.jsonl", dict(enumerate(RUNS))), _reward_model(tmp_path / "prm.jsonl", scores)]
    with pytest.raises(EvaluationError, match=message):
        read_scores(files)


def test_without_a_pass_of_a_pair_there_is_nothing_to_evaluate(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="no scoring pass among the files"):
        read_scores([_reward_model(tmp_path / "prm.jsonl", {"a": 1.0})])


def test_bytes_that_are_no_text_are_refused_by_their_line(tmp_path: Path) -> None:
    file = _write(tmp_path / "1.jsonl", {0: RUNS[0]})
    file.write_bytes(file.read_bytes() + b'{"run": "\xff"}\n')
    with pytest.raises(EvaluationError, match=r"line 3 is no text in UTF-8"):
        read_scores([file])


def test_a_run_without_actions_has_no_scores_by_a_reward_model_of_steps(tmp_path: Path) -> None:
    runs = [scored(trajectory("a")), scored(trajectory("b", actions=()))]
    steps = _reward_model(tmp_path / "prm.jsonl", {"a": [1.0, 0.0, -1.0], "b": []})
    found = read_scores([_write(tmp_path / "1.jsonl", dict(enumerate(runs))), steps])
    assert [run.external["prm"] for run in found.runs] == [(1.0, 0.0, -1.0), ()]
