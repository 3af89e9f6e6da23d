from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pa_demos.taxi.demo import check_rules
from pa_demos.taxi.episode import (
    RULES,
    STRAYS_BETWEEN,
    THRESHOLD,
    Driver,
    Episode,
    StepNote,
    run_episode,
    shipped_pair,
    strays_at,
)
from pa_demos.taxi.shadow import Low, look_back, stopped, write_labels
from pa_demos.taxi.show import looked_back, next_steps, results, what_was_stopped
from rich.console import Console, RenderableType

from pa_middleware import GuardError, Rules, RulesError, record
from pa_middleware.calibration import apply_labels, read_labels
from pa_middleware.calibration.recorded import runs_from_traces, traced_fingerprint
from pa_middleware.guard.calibrated import Calibration
from pa_middleware.tracing import read

SEEDS = range(40, 44)


@pytest.fixture(scope="module")
def unguarded() -> list[Episode]:
    return [run_episode("unguarded", seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Episode], Path]:
    """Shadow episodes, and the folder of their trace."""
    folder = tmp_path_factory.mktemp("traces")
    with record(folder) as recording:
        return [run_episode("shadow", seed, recording.tracer_provider) for seed in SEEDS], folder


def test_a_watched_episode_takes_the_unguarded_ones_actions(
    unguarded: list[Episode], watched: tuple[list[Episode], Path]
) -> None:
    shadow = look_back(unguarded, watched[0])
    assert (shadow.same, shadow.episodes) == (len(SEEDS), len(SEEDS))


def test_another_course_is_not_taken_for_the_same(
    unguarded: list[Episode], watched: tuple[list[Episode], Path]
) -> None:
    first, *rest = watched[0]
    for notes in (first.notes[:-1], (replace(first.notes[0], action="pickup to nowhere"), *first.notes[1:])):
        assert look_back(unguarded, [replace(first, notes=notes), *rest]).same == len(SEEDS) - 1


def test_low_steps_add_up_to_what_the_trace_says_would_have_been_stopped(
    unguarded: list[Episode], watched: tuple[list[Episode], Path]
) -> None:
    episodes, folder = watched
    shadow = look_back(unguarded, episodes)
    steps = [step for run in read(folder) for step in run.steps]
    assert shadow.failed.steps + shadow.delivered.steps == len(steps) == sum(episode.steps for episode in episodes)
    assert shadow.failed.steps_low + shadow.delivered.steps_low == sum(step.decision != "pass" for step in steps) > 0
    assert shadow.failed.episodes + shadow.delivered.episodes == len(SEEDS)
    assert {step.mode for step in steps} == {"shadow"}


def _note(score: float | None, threshold: float | None = THRESHOLD) -> StepNote:
    return StepNote("Taxi.", "pickup", score, "pass", (), threshold)


def _episode(success: bool, *scores: float, seed: int = 7) -> Episode:
    plain: dict[str, Any] = {
        "row": "shadow", "seed": seed, "steps": len(scores), "draws": len(scores), "tokens": 1, "seconds": 1.0,
        "generating": 1.0, "scoring": 1.0, "goal": "",
    }  # fmt: skip
    return Episode(success=success, notes=tuple(map(_note, scores)), **plain)


def test_low_steps_are_counted_by_how_the_episode_ended() -> None:
    episodes = [_episode(True, 1.0, -1.0), _episode(False, -1.0, -2.0, 0.0), _episode(False, THRESHOLD)]
    shadow = look_back(episodes, episodes)
    assert shadow.delivered == Low(episodes=1, episodes_with=1, steps=2, steps_low=1)
    assert shadow.failed == Low(episodes=2, episodes_with=1, steps=4, steps_low=2)


@pytest.mark.parametrize("note", [_note(None), _note(-9.0, None), _note(THRESHOLD)])
def test_a_step_without_score_or_threshold_or_at_it_is_not_low(note: StepNote) -> None:
    assert not note.low


def test_labels_fit_the_trace_they_lie_beside(watched: tuple[list[Episode], Path]) -> None:
    episodes, folder = watched
    write_labels(folder / "labels.csv", episodes)
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        assert next(csv.reader(file)) == ["run", "success", "task"]
    runs = apply_labels(runs_from_traces(read(folder)), read_labels(folder / "labels.csv"))
    assert [(run.success, run.task) for run in runs] == [(episode.success, str(episode.seed)) for episode in episodes]


def test_the_trace_names_the_pair_and_carries_its_fingerprint(watched: tuple[list[Episode], Path]) -> None:
    runs = read(watched[1])
    assert traced_fingerprint(runs) == shipped_pair().fingerprint()
    told = runs[0].steps[0].attributes
    assert told["pa_middleware.scorer.name"] == "ModelPair"
    assert told["pa_middleware.policy.model"] == "taxi-policy"


def _rules(**changes: Any) -> Rules:
    calibration = Calibration(
        fingerprint=changes.pop("fingerprint", shipped_pair().fingerprint()),
        method="quantile",
        alpha=0.1,
        bound=0.1,
        runs=10,
        tasks=10,
        successes=None,
        data="0",
        date="2026-01-31",
    )
    settings: dict[str, Any] = {"threshold": -2.0, "draws": 2, "on_low": "flag", "calibration": calibration}
    return Rules(**settings | changes)


def test_rules_of_a_file_take_the_place_of_the_rows_own(tmp_path: Path) -> None:
    _rules().save(tmp_path / "rules.json")
    check_rules(tmp_path / "rules.json")
    episode = run_episode("guarded", 40, rules=Rules.load(tmp_path / "rules.json"))
    assert {note.threshold for note in episode.notes} == {-2.0}
    assert max(len(note.rejected) for note in episode.notes) == 1
    assert {note.threshold for note in run_episode("guarded", 40).notes} == {THRESHOLD}


def test_a_guard_may_stop_an_episode_before_its_first_step() -> None:
    episode = run_episode("guarded", 40, rules=Rules(threshold=1e9, mode="enforce"))
    assert (episode.steps, episode.success, episode.notes[-1].decision) == (0, False, "abstain")
    _rendered(results({"unguarded": [episode], "guarded": [episode]}, 1, Path("rules.json")))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"fingerprint": {"policy": "other"}}, GuardError, "calibrated with another scorer"),
        ({"mode": "shadow"}, RulesError, "only watch"),
        ({"calibration": None}, RulesError, "only watch"),
        ({"on_low": "escalate"}, RulesError, "ask a human"),
        ({"tools": {"fly": "irreversible"}, "thresholds": {"irreversible": 0.0}}, RulesError, "fly"),
    ],
)
def test_rules_that_the_demo_cannot_run_are_refused(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    _rules(**changes).save(tmp_path / "rules.json")
    with pytest.raises(error, match=words):
        check_rules(tmp_path / "rules.json")


def test_the_built_in_rules_act_without_a_calibration() -> None:
    modes = {row: rules.effective_mode for row, rules in RULES.items()}
    assert modes == {"shadow": "shadow", "guarded": "enforce", "best_of_4": "enforce", "oracle": "enforce"}


def _rendered(shown: RenderableType) -> str:
    out = io.StringIO()
    Console(file=out, width=80).print(shown)
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    return text


def _report(same: int) -> dict[str, Any]:
    low = {"episodes": 63, "episodes_with": 61, "steps": 1890, "steps_low": 1032}
    return {
        "would_have_blocked": {"failed": low, "delivered": {**low, "steps_low": 7}},
        "same_actions": {"episodes": 75, "same": same},
        "seed": 11,
        "trace": "traces/demo-20260131-120000",
        "labels": "traces/demo-20260131-120000/labels.csv",
        "watched": "traces/demo-20260131-120000/watched.json",
    }


def test_what_would_have_been_held_back_is_shown_by_outcome() -> None:
    cells = [line.split() for line in _rendered(looked_back(_report(75))).splitlines()]
    assert ["failed", "61", "of", "63", "1032", "of", "1890"] in cells
    assert ["delivered", "61", "of", "63", "7", "of", "1890"] in cells


@pytest.mark.parametrize(
    ("same", "told"),
    [
        (75, "75 of 75 episodes took the same actions as unguarded."),
        (74, "Only 74 of 75 episodes took the same actions as unguarded: shadow mode CHANGED"),
    ],
)
def test_whether_watching_changed_anything_is_said_plainly(same: int, told: str) -> None:
    assert told in " ".join(_rendered(looked_back(_report(same))).split())


def test_the_next_command_calibrates_on_what_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pa_demos.taxi.show.which", lambda name: name)
    text = _rendered(next_steps(_report(75), seconds=1.0, json_path=None))
    assert "demo --driver straying --rules rules.json --seed 12" in text
    command = text[text.index("calibrate ") :].replace("\\\n", " ").splitlines()[0].split()
    assert command == [
        "calibrate",
        "traces/demo-20260131-120000",
        "--labels",
        "traces/demo-20260131-120000/labels.csv",
        "--rules",
        "traces/demo-20260131-120000/watched.json",
        "--alpha",
        "0.1",
        "--out",
        "rules.json",
    ]


def test_commands_are_printed_unwrapped_however_long_their_paths_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pa_demos.taxi.show.which", lambda name: name)
    out, trace = io.StringIO(), f"traces/{'long ' * 30}"
    shown = next_steps({**_report(75), "trace": trace}, seconds=1.0, json_path=None)
    Console(file=out, width=80).print(shown, soft_wrap=True)
    assert f"pa-middleware trace '{trace}'\n" in out.getvalue()
    assert f"pa-middleware calibrate '{trace}' \\\n" in out.getvalue()


@pytest.mark.parametrize(("failed", "delivered", "enough"), [(6, 10, True), (5, 10, False), (6, 9, False)])
def test_so_few_episodes_that_a_calibration_would_be_refused_get_no_command_for_one(
    failed: int, delivered: int, enough: bool
) -> None:
    report = _report(75)
    for outcome, count in (("failed", failed), ("delivered", delivered)):
        report["would_have_blocked"][outcome] = {**report["would_have_blocked"]["failed"], "episodes": count}
    text = " ".join(_rendered(next_steps(report, seconds=1.0, json_path=None)).split())
    assert ("calibrate traces" in text) == enough
    assert ("cannot be calibrated on" in text) != enough
    if not enough:
        assert f"{failed} failed and {delivered} delivered; it takes 6 and 10." in text
        assert "demo --mode shadow --episodes 150" in text


def test_the_straying_driver_strays_in_some_episodes_and_always_at_the_same_step() -> None:
    steps = [strays_at(seed) for seed in range(400)]
    assert steps == [strays_at(seed) for seed in range(400)]
    strayed = {step for step in steps if step is not None}
    assert 0.25 < sum(step is not None for step in steps) / len(steps) < 0.35
    assert strayed == set(range(*STRAYS_BETWEEN))


def test_the_straying_driver_is_the_policy_until_it_strays_and_the_reference_from_then_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def actions(step: int | None, driver: Driver) -> list[str]:
        monkeypatch.setattr("pa_demos.taxi.episode.strays_at", lambda seed: step)
        return [note.action for note in run_episode("unguarded", 40, driver=driver).notes]

    policy = actions(None, "straying")
    assert actions(0, "straying") == actions(None, "weak")
    assert policy != actions(None, "weak")
    change = 6
    assert len(policy) > change
    assert actions(change, "straying")[:change] == policy[:change]
    assert actions(change, "straying")[change:] != policy[change:]
    assert actions(30, "straying") == policy


def test_watching_changes_nothing_whoever_drives() -> None:
    unguarded = [run_episode("unguarded", seed, driver="straying") for seed in SEEDS]
    watched = [run_episode("shadow", seed, driver="straying") for seed in SEEDS]
    assert look_back(unguarded, watched).same == len(SEEDS)


def test_what_a_guard_stopped_is_counted_by_what_comes_of_the_same_seed_unguarded() -> None:
    plain = [_episode(True, 1.0), _episode(False, 1.0), _episode(False, 1.0)]
    ended = replace(plain[0], notes=(replace(_note(-9.0), decision="abstain"),))
    counts = stopped(plain, [plain[0], ended, plain[2]])
    assert counts == {"failed": {"episodes": 2, "stopped": 1}, "delivered": {"episodes": 1, "stopped": 0}}
    cells = [line.split() for line in _rendered(what_was_stopped({"stopped": counts})).splitlines()]
    assert ["fail", "1", "of", "2"] in cells
    assert ["deliver", "0", "of", "1"] in cells
