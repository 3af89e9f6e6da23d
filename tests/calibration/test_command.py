from __future__ import annotations

import json
import shutil
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rich
import typer
from calibration.agent import Known, recorded, take_run
from calibration.made import SCORER
from commands import run as run_command
from commands import words_of
from typer.testing import Result

import pa_middleware.tracing
from pa_middleware import Guard, Rules
from pa_middleware.calibrate_command import REFUSED, calibrate

WRONG_USE = 2

_app = typer.Typer()
_app.command()(calibrate)


def _run(*arguments: object) -> Result:
    return run_command(_app, *arguments)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recorded trace of 40 good and 10 bad runs of a guarded graph, and labels for all."""
    folder = tmp_path_factory.mktemp("calibration")
    scores = np.random.default_rng(0).normal(size=(50, 3)).round(3)
    scores[40:, 0] -= 6
    runs = {f"run-{place}": row.tolist() for place, row in enumerate(scores)}
    recorded(folder / "traces" / "t.jsonl", runs)
    lines = [f"run-{place},{int(place < 40)},task-{place}" for place in range(50)]
    (folder / "labels.csv").write_text("\n".join(["run,success,task", *lines]), encoding="utf-8")
    lowest = sorted(scores[:40].min(axis=1).tolist())
    (folder / "expected.json").write_text(json.dumps(lowest[3]), encoding="utf-8")
    return folder


def _expected(folder: Path) -> float:
    threshold: float = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    return threshold


def test_recorded_runs_and_labels_become_rules_that_a_guard_enforces(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "rules.json"
    result = _run(folder / "traces", "--labels", folder / "labels.csv", "--out", out, "--probability", "isotonic")
    assert result.exit_code == 0, result.output
    rules = Rules.load(out)
    assert rules.threshold == _expected(folder)
    assert rules.effective_mode == "enforce"
    assert rules.calibration is not None
    assert dict(rules.calibration.fingerprint) == SCORER
    assert (rules.calibration.runs, rules.calibration.tasks, rules.calibration.successes) == (50, 50, 40)
    assert rules.calibration.success is not None
    records = take_run("new", [1.0, rules.threshold, -9.0], rules=rules)
    assert [record["decision"] for record in records] == ["pass", "pass", "abstain"]
    assert records[0]["p_success"] > records[2]["p_success"]


def test_the_output_names_every_number_within_80_columns(folder: Path, tmp_path: Path) -> None:
    result = _run(folder / "traces", "--labels", folder / "labels.csv", "--out", tmp_path / "rules.toml")
    assert result.exit_code == 0, result.output
    assert max(map(len, result.output.splitlines())) <= 80
    words = words_of(result)
    for part in (
        "50 runs of 50 tasks: 40 successful, 10 failed.",
        "policy 1f, reference 2e",
        f"{_expected(folder):+.4g}",
        "actions threshold tasks below all ",
        "On average over calibrations, at most 9.76 % of successful runs of new tasks have an action below its",
        "(asked: 10 %; from 40 tasks)",
        "judged by false alarms % failures caught % in time % lead",
        "score ",
        "random ",
        "length ",
        "policy log-prob ",
        "100 [100, 100]",
        "mode enforce",
    ):
        assert part in words
    assert "…" not in result.output


def test_without_labels_the_command_says_how_little_that_is(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "rules.json"
    result = _run(folder / "traces", "--out", out)
    assert result.exit_code == 0, result.output
    assert "This is weaker than with labels: it is for all runs alike." in words_of(result)
    calibration = Rules.load(out).calibration
    assert calibration is not None
    assert (calibration.method, calibration.successes) == ("quantile", None)


def test_by_tier_on_top_of_other_rules(folder: Path, tmp_path: Path) -> None:
    base, out = tmp_path / "base.json", tmp_path / "rules.json"
    Rules(threshold=0.0, tools={"act": "irreversible"}, on_low="block", draws=2, mode="shadow").save(base)
    options = ["--labels", folder / "labels.csv", "--rules", base, "--by", "tier", "--alpha", "0.2"]
    result = _run(folder / "traces", *options, "--out", out)
    assert result.exit_code == 0, result.output
    rules = Rules.load(out)
    assert set(rules.thresholds) == {"irreversible", "final_answer"}
    assert (rules.on_low, rules.draws, rules.mode, rules.effective_mode) == ("block", 2, None, "enforce")
    words = words_of(result)
    assert "The 2 thresholds share alpha equally (Bonferroni);" in words
    assert "In no run: read_only, default; held to" in words


def test_a_guard_with_another_scorer_refuses_the_rules(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "rules.json"
    assert _run(folder / "traces", "--labels", folder / "labels.csv", "--out", out).exit_code == 0
    Guard(Known(), Rules.load(out))
    with pytest.raises(Exception, match="reference"):
        Guard(Known({**SCORER, "reference": "00"}), Rules.load(out))


def test_a_refusal_says_why_and_writes_no_rules(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "rules.json"
    result = _run(folder / "traces", "--labels", folder / "labels.csv", "--alpha", "0.01", "--out", out)
    assert result.exit_code == REFUSED
    assert "Not calibrated: alpha=0.01 needs 110 tasks" in words_of(result)
    assert not out.exists()


def test_runs_that_were_guarded_are_refused_with_what_to_do(tmp_path: Path) -> None:
    rules = Rules(threshold=0.0, mode="enforce")
    file = recorded(tmp_path / "t.jsonl", {"one": [-1.0]}, rules=rules)
    result = _run(file, "--out", tmp_path / "rules.json")
    assert result.exit_code == REFUSED
    assert "none of 1 runs can be used (1 shaped by a guard); record runs with a guard in shadow mode" in words_of(
        result
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "rules.yaml"], "Invalid value for --out: 'rules.yaml'; allowed: a name that ends in .json or .toml"),
        (["--labels", "missing.csv"], "Invalid value for --labels"),
        (["--rules", "missing.json"], "Invalid value for --rules"),
        (["--by", "tool"], "Invalid value for '--by'"),
        (["--alpha", "5"], "Invalid value for --alpha: 5; allowed: a number between 0 and 1"),
        (["--probability", "platt"], "Invalid value for --probability: needs --labels"),
        (["--of", "mean"], "Invalid value for --of: has no effect without --probability"),
    ],
)
def test_files_and_options_that_cannot_be_used_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = _run(folder / "traces", "--out", "rules.json", *arguments)
    assert result.exit_code == WRONG_USE
    assert message in words_of(result)


def test_a_missing_trace_and_a_label_of_an_unknown_run_are_refused(folder: Path, tmp_path: Path) -> None:
    missing = _run(tmp_path / "none.jsonl", "--out", tmp_path / "rules.json")
    assert (missing.exit_code, "Invalid value for RUNS" in words_of(missing)) == (WRONG_USE, True)
    (tmp_path / "labels.csv").write_text("run,success\nrun-77,1\n", encoding="utf-8")
    unknown = _run(folder / "traces", "--labels", tmp_path / "labels.csv", "--out", tmp_path / "rules.json")
    assert unknown.exit_code == WRONG_USE
    assert "line 2: run 'run-77' is not among the 50 recorded runs" in words_of(unknown)


def test_a_file_that_cannot_be_written_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "rules.json").mkdir()
    (tmp_path / "file").write_text("", encoding="utf-8")
    for out in (tmp_path / "rules.json", tmp_path / "file" / "rules.json", tmp_path / "file" / "new" / "rules.json"):
        result = _run(folder / "traces", "--out", out)
        assert result.exit_code == WRONG_USE
        assert "Invalid value for --out" in words_of(result)
        assert "threshold" not in words_of(result)  # found before anything is reported


@pytest.mark.parametrize(
    "settings",
    [
        {"on_low": "flag", "draws": 4},
        {"tools": {"act": "irreversible"}, "threshold": -1.0, "mode": "enforce"},
        {"threshold": -1.0, "mode": "shadow"},
        {"threshold": -1.0, "thresholds": {"final_answer": "off"}},
    ],
)
def test_settings_without_thresholds_of_their_own_are_a_base_and_the_result_is_enforced(
    folder: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    base, out = tmp_path / "base.json", tmp_path / "rules.json"
    base.write_text(json.dumps(settings), encoding="utf-8")
    result = _run(folder / "traces", "--labels", folder / "labels.csv", "--rules", base, "--out", out)
    assert result.exit_code == 0, result.output
    rules = Rules.load(out)
    assert rules.effective_mode == "enforce"
    assert (rules.on_low, rules.draws) == (settings.get("on_low", "abstain"), settings.get("draws", 1))
    assert ("all but final_answer" in words_of(result)) == ("thresholds" in settings)


def test_a_scorer_that_knows_nothing_is_refused_with_the_held_out_table(folder: Path, tmp_path: Path) -> None:
    labels, out = tmp_path / "labels.csv", tmp_path / "rules.json"
    lines = [f"run-{place},{int(place % 4 > 0)}" for place in range(40)]
    labels.write_text("\n".join(["run,success", *lines]), encoding="utf-8")
    out.write_text("{}", encoding="utf-8")
    result = _run(folder / "traces", "--labels", labels, "--out", out)
    assert (result.exit_code, result.stdout) == (REFUSED, "")
    words = words_of(result)
    assert "judged by false alarms % failures caught % in time % lead" in words
    assert "Not calibrated: on held-out runs (30 successful, 10 failed, alpha 0.1) the scorer is not shown" in words
    assert "rules.json was left as it was." in words
    assert out.read_text(encoding="utf-8") == "{}"


def test_the_example_of_the_package_does_what_the_command_does(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pa_middleware import calibration

    shutil.copytree(folder, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    example = "\n".join(line for line in (calibration.__doc__ or "").splitlines() if line.startswith("    "))
    names = {name: getattr(calibration, name) for name in calibration.__all__}
    exec(textwrap.dedent(example), {"pa_middleware": pa_middleware, "rich": rich, **names})
    assert "On average over calibrations" in capsys.readouterr().out
    assert Rules.load("rules.json").threshold == _expected(folder)
