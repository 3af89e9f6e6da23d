"""Rules as files: JSON and TOML, there and back; the schema; errors that say where and what to do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from guard.test_rules import CALIBRATION

from pa_middleware import Rules, RulesError
from pa_middleware.guard.rules_file import json_schema, load_base
from pa_middleware.guard.success import SuccessMap

EXAMPLES: dict[str, Rules] = {
    "defaults": Rules(),
    "hand-set": Rules(threshold=-0.5, draws=4, draws_per_run=40, on_low="flag", mode="enforce"),
    "stops early": Rules(draws=8, select="best", stop_at=0.05, drawn_by="reference"),
    "everything": Rules(
        threshold=-1.25,
        thresholds={"read_only": None, "irreversible": 1e-9, "final_answer": -3.0},
        tools={"db_*": "irreversible", "search": "read_only"},
        draws=3,
        select="best",
        on_low="escalate",
        on_scorer_error="escalate",
        scoring_timeout=2.5,
        trust_human_edits=True,
        mode="enforce",
        abstain_message='Ich höre auf. "So" \\ 🚕',
        calibration=replace(
            CALIBRATION, success=SuccessMap(kind="isotonic", of="mean", x=(-1.0, 0.1, 2.0), y=(0.0, 0.5, 1.0))
        ),
    ),
    "unlabelled": Rules(threshold=0.1, calibration=replace(CALIBRATION, method="quantile", successes=None)),
}


@pytest.mark.parametrize("suffix", ["json", "toml"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_file_gives_back_the_rules_it_was_made_of(name: str, suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"rules.{suffix}"
    EXAMPLES[name].save(file)
    assert Rules.load(file) == EXAMPLES[name]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_schema_accepts_what_is_saved(name: str, tmp_path: Path) -> None:
    EXAMPLES[name].save(tmp_path / "rules.json")
    jsonschema.validate(json.loads((tmp_path / "rules.json").read_text()), json_schema())


@pytest.mark.parametrize(
    "wrong",
    [
        {"treshold": 1},
        {"threshold": "low"},
        {"tools": {"a": "risky"}},
        {"thresholds": {"default": 1}},
        {"draws": 1.5},
        {"draws": 0},
        {"scoring_timeout": -1},
        {"draws": 2, "select": "best", "stop_at": 0, "drawn_by": "policy"},
        {"draws": 2, "select": "best", "stop_at": 1, "drawn_by": "policy"},
        {"draws": 2, "select": "best", "stop_at": 0.1, "drawn_by": "agent"},
        {"abstain_message": ""},
    ],
)
def test_the_schema_refuses_what_loading_refuses(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, json_schema())
    (tmp_path / "rules.json").write_text(json.dumps(wrong))
    with pytest.raises(RulesError):
        Rules.load(tmp_path / "rules.json")


def test_the_published_schema_is_that_of_the_rules() -> None:
    published = Path(__file__).parents[2] / "docs" / "rules.schema.json"
    assert json.loads(published.read_text(encoding="utf-8")) == json_schema()


FILES: dict[str, tuple[str, str]] = {
    "unknown": ('{"treshold": 1}', "'treshold' is no setting; allowed: threshold, .* did you mean 'threshold'?"),
    "nothing like it": ('{"xyz": 1}', "'xyz' is no setting; .* leave it out"),
    "inert": ('{"draws": 4}', "draws=4 has no effect"),
    "no table": ("[1]", r"the file holds \[1\]"),
    "no table inside": ('{"thresholds": 1}', "thresholds holds 1"),
    "no JSON": ("{", "cannot be read as JSON"),
    "twice": ('{"threshold": 1, "threshold": 2}', "'threshold' is there more than once"),
    "a table too many": ('{"rules": {"threshold": 1}}', "settings stand at the top of the file"),
    "calibration lacks": ('{"threshold": 0, "calibration": {"alpha": 0.1}}', "calibration lacks bound, data"),
    "calibration unknown": ('{"threshold": 0, "calibration": {"beta": 1}}', "'beta' is no key of calibration"),
    "success lacks": ('{"threshold": 0, "calibration": {"success": {"kind": "platt"}}}', "success lacks of, x, y"),
}


@pytest.mark.parametrize("name", FILES)
def test_what_is_wrong_with_a_file_is_said_with_its_name(name: str, tmp_path: Path) -> None:
    text, said = FILES[name]
    file = tmp_path / "my rules.json"
    file.write_text(text)
    with pytest.raises(RulesError, match=said) as caught:
        Rules.load(file)
    assert "my rules.json" in str(caught.value)


def test_a_file_is_json_or_toml_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(RulesError, match=r"'rules.yaml'; allowed: a name that ends in .json or .toml"):
        Rules.load("rules.yaml")
    (tmp_path / "rules.toml").write_text("threshold: 1")
    with pytest.raises(RulesError, match="cannot be read as TOML"):
        Rules.load(tmp_path / "rules.toml")
    (tmp_path / "order.toml").write_text('[tools]\nrm = "irreversible"\nthreshold = 0.5\n')
    with pytest.raises(RulesError, match="'threshold' stands among tools; in TOML, settings come before the first"):
        Rules.load(tmp_path / "order.toml")
    with pytest.raises(FileNotFoundError):
        Rules.load(tmp_path / "missing.json")


def test_an_editors_schema_key_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "rules.json").write_text('{"$schema": "rules.schema.json", "threshold": 0.5}')
    assert Rules.load(tmp_path / "rules.json") == Rules(threshold=0.5)


def test_the_base_of_a_calibration_needs_no_threshold_and_brings_no_mode(tmp_path: Path) -> None:
    settings = '{"on_low": "flag", "draws": 4, "mode": "shadow", "tools": {"rm": "irreversible"}}'
    (tmp_path / "base.json").write_text(settings)
    base = load_base(tmp_path / "base.json")
    assert base == Rules(threshold=0.0, on_low="flag", draws=4, tools={"rm": "irreversible"})
    EXAMPLES["everything"].save(tmp_path / "old.toml")
    assert load_base(tmp_path / "old.toml").calibration is None
