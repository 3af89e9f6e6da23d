from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import templates
import torch
from doctor import pairs
from transformers import PreTrainedModel

from pa_middleware.doctor import Diagnosis, examine
from pa_middleware.doctor.examine import CHECKS
from pa_middleware.scoring.named_pairs import find_pair

Build = Callable[..., PreTrainedModel]


def _examined(policy: Path, reference: Path, **settings: int) -> Diagnosis:
    return examine(policy, reference, **{"samples": 4, "length": 8, **settings})  # type: ignore[arg-type]


def _verdicts(found: Diagnosis, *checks: str) -> list[str]:
    return [found[check].verdict for check in checks]


@pytest.fixture(scope="module")
def policy(tiny: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pairs.save(tmp_path_factory.mktemp("policy"), *pairs.small(tiny))


def test_a_pair_of_one_lineage_passes_every_check(tiny: Build, policy: Path, tmp_path: Path) -> None:
    model, tokenizer = pairs.small(tiny)
    found = _examined(policy, pairs.save(tmp_path, pairs.changed(model, 0.1), tokenizer), samples=16)
    assert {finding.check: finding.verdict for finding in found.findings} == dict.fromkeys(CHECKS, "ok")
    # A change of 0.1 of the spread leaves a correlation of 1 / sqrt(1 + 0.1^2).
    assert found["lineage"].numbers["median"] == pytest.approx(1 / math.sqrt(1.01), abs=2e-3)
    numbers = found["own texts"].numbers
    assert numbers["reference"] < 0 < numbers["policy"]
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["failed"] == []


def test_the_demos_pair_can_be_used() -> None:
    found = _examined(*map(Path, find_pair("taxi")))
    assert (found.failed, [finding.check for finding in found.findings]) == ((), list(CHECKS))


def test_the_same_model_twice_fails_for_there_is_no_signal(policy: Path) -> None:
    found = _examined(policy, policy)
    assert [finding.check for finding in found.failed] == ["lineage", "divergence", "noise"]
    assert "Every score would be 0" in found["lineage"].advice
    assert found["divergence"].numbers["own_texts"] == 0
    assert found["own texts"].verdict == "warning"


def test_models_trained_apart_fail_by_lineage(tiny: Build, policy: Path, tmp_path: Path) -> None:
    found = _examined(policy, pairs.save(tmp_path, *pairs.small(tiny, seed=7)))
    assert found["lineage"].verdict == "failed"
    assert abs(found["lineage"].numbers["median"]) < 0.1


def test_shuffled_weights_fail_by_lineage(tiny: Build, policy: Path, tmp_path: Path) -> None:
    model, tokenizer = pairs.small(tiny)
    found = _examined(policy, pairs.save(tmp_path, pairs.shuffled(model), tokenizer))
    assert found["lineage"].verdict == "failed"
    assert abs(found["lineage"].numbers["median"]) < 0.1


def test_one_replaced_matrix_is_a_warning_that_names_it(tiny: Build, policy: Path, tmp_path: Path) -> None:
    model, tokenizer = pairs.small(tiny)
    pairs.changed(model, 0.05)
    torch.nn.init.normal_(pairs.head(model))
    found = _examined(policy, pairs.save(tmp_path, model, tokenizer))["lineage"]
    assert (found.verdict, "lm_head.weight" in found.measured) == ("warning", True)


def test_another_vocabulary_fails_and_nothing_that_needs_one_is_checked(
    tiny: Build, policy: Path, tmp_path: Path
) -> None:
    found = _examined(policy, pairs.save(tmp_path, *pairs.small(tiny, "gemma")))
    assert "vocabulary" in [finding.check for finding in found.failed]
    assert "the tokenizers differ in" in found["vocabulary"].measured
    assert _verdicts(found, *CHECKS[3:]) == ["not checked"] * len(CHECKS[3:])


def test_too_few_embedding_rows_fail(tiny: Build, policy: Path, tmp_path: Path) -> None:
    _, tokenizer = pairs.small(tiny)
    found = _examined(policy, pairs.save(tmp_path, tiny("llama", len(tokenizer) - 3), tokenizer))
    assert found["vocabulary"].verdict == "failed"


def test_a_base_model_without_template_is_fine_and_another_template_is_a_warning(
    tiny: Build, policy: Path, tmp_path: Path
) -> None:
    model, _ = pairs.small(tiny)
    pairs.changed(model, 0.1)
    for template, verdict in ((None, "ok"), ("{{ messages[0].content }}", "warning")):
        tokenizer = templates.with_template("qwen3", template or "")
        tokenizer.chat_template = template
        folder = pairs.save(tmp_path / verdict, model, tokenizer)
        assert _examined(policy, folder)["template"].verdict == verdict


@pytest.mark.parametrize(
    "template", [None, "{{ raise_exception('no such turn') }}", "{{ undefined_name.text }}", "{% if"]
)
def test_a_policy_whose_template_is_missing_or_cannot_be_used_fails(
    tiny: Build, policy: Path, tmp_path: Path, template: str | None
) -> None:
    model, _ = pairs.small(tiny)
    tokenizer = templates.with_template("qwen3", "")
    tokenizer.chat_template = template
    found = _examined(pairs.save(tmp_path, model, tokenizer), policy)
    assert found["template"].verdict == "failed"
    assert _verdicts(found, *CHECKS[3:]) == ["not checked"] * len(CHECKS[3:])


def test_a_model_that_answers_nan_fails_where_it_is_first_scored(tiny: Build, policy: Path, tmp_path: Path) -> None:
    model, tokenizer = pairs.small(tiny)
    with torch.no_grad():
        pairs.head(model)[3] = math.nan
    found = _examined(policy, pairs.save(tmp_path, model, tokenizer))
    assert [finding.check for finding in found.failed] == ["stability"]
    assert "not finite" in found["stability"].measured
    assert _verdicts(found, *CHECKS[6:]) == ["not checked"] * 4


def test_a_pair_that_tells_formats_apart_is_told_of(tiny: Build, policy: Path, tmp_path: Path) -> None:
    model, tokenizer = pairs.small(tiny, seed=7)
    with torch.no_grad():
        pairs.head(model).mul_(20)
    found = _examined(policy, pairs.save(tmp_path, model, tokenizer))["divergence"]
    assert (found.verdict, found.numbers["own_texts"] > 5) == ("failed", True)


def test_half_precision_that_drowns_the_signal_is_told_of(tiny: Build, tmp_path: Path) -> None:
    model, tokenizer = pairs.small(tiny)
    policy = pairs.save(tmp_path / "policy", model.bfloat16(), tokenizer)
    with torch.no_grad():  # one small weight
        pairs.head(model)[3, 3] *= 1.02
    found = _examined(policy, pairs.save(tmp_path / "reference", model, tokenizer))
    assert found["noise"].verdict == "failed"
    assert found["stability"].verdict == "ok"


@pytest.mark.parametrize(("name", "given"), [("samples", 1), ("length", 0), ("seed", -1)])
def test_settings_that_cannot_be_used_are_refused(policy: Path, name: str, given: int) -> None:
    with pytest.raises(ValueError, match=f"{name} is {given}; allowed: at least"):
        _examined(policy, policy, **{name: given})


def test_the_same_seed_gives_the_same_diagnosis_and_leaves_the_callers_random_state(
    tiny: Build, policy: Path, tmp_path: Path
) -> None:
    model, tokenizer = pairs.small(tiny)
    reference = pairs.save(tmp_path, pairs.changed(model, 0.1), tokenizer)
    before = torch.random.get_rng_state()
    first, again, other = (_examined(policy, reference, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert first == again
    assert first["own texts"] != other["own texts"]
