"""An engine whose log-probs cannot be relied on is refused when a pair is made, and the reason is the right one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import typer
from commands import run as run_command
from commands import words_of
from engines.openai_compatible_server import OpenAICompatibleServer
from engines.vllm_server import VLLMServer
from pa_demos.taxi.episode import PAIR
from pa_openai import OpenAICompatible
from pa_vllm import VLLM

from pa_middleware import ModelPair
from pa_middleware.check_engines_command import FAILED, check_engines
from pa_middleware.engines.errors import EngineError
from pa_middleware.engines.findings import SelfTest, SelfTestError
from pa_middleware.engines.pair import EnginePair
from pa_middleware.engines.source import LogProbSource

Servers = tuple[VLLMServer, VLLMServer]


def _tested(local: ModelPair, policy: LogProbSource, reference: LogProbSource, **settings: Any) -> SelfTest:
    with EnginePair(policy, reference, local.tokenizer, **settings) as pair:
        return pair.self_test


def _refused(local: ModelPair, policy: LogProbSource, reference: LogProbSource) -> dict[str, str]:
    """Name of each failed check, and its reason."""
    with pytest.raises(SelfTestError) as refused:
        _tested(local, policy, reference)
    return {f"{check.of} {check.name}": check.reason for check in refused.value.result.failed}


def _vllm(server: VLLMServer, way: Any = "completions") -> VLLM:
    return VLLM(server.url, server.answers.name, way=way)


@pytest.mark.parametrize("way", ["ids", "generate", "completions"])
def test_sound_engines_pass_every_check(servers: Servers, local: ModelPair, way: str) -> None:
    result = _tested(local, *(_vllm(server, way) for server in servers))
    assert {check.outcome for check in result.checks} == {"ok"}, result.checks
    assert len(result.checks) == 17
    assert result.tells_raw == (True, True)
    assert 0 < result.noise < 1e-4


@pytest.mark.parametrize(("shift", "tells"), [(1, "ids"), (-1, "ids"), (1, "texts")])
def test_rows_that_are_off_by_one_are_refused(local: ModelPair, shift: int, tells: Literal["ids", "texts"]) -> None:
    with (
        OpenAICompatibleServer(local.policy.model, names=("policy",)) as policy,
        OpenAICompatibleServer(local.reference.model, names=("reference",)) as reference,
    ):
        policy.tells = reference.tells = tells
        texts = {f"<{token}>": token for token in range(len(local.tokenizer))}
        sources = [OpenAICompatible(each.url, each.names[0], vocabulary=texts) for each in (policy, reference)]
        assert not _tested(local, *sources).failed
        policy.faults.shift = shift
        failed = _refused(local, *sources)
    assert set(failed) & {"policy later tokens change nothing", "policy what it writes and what it scores"}
    assert not [name for name in failed if name.startswith("reference")]


def test_an_engine_whose_own_tokens_cannot_be_known_is_refused(local: ModelPair) -> None:
    with OpenAICompatibleServer(local.policy.model, tells="texts") as policy:
        source = OpenAICompatible(policy.url, "policy")
        failed = _refused(local, source, source)
    assert "policy what it writes and what it scores" in failed


def test_the_same_model_twice_is_refused(servers: Servers, local: ModelPair) -> None:
    failed = _refused(local, _vllm(servers[0]), _vllm(servers[0]))
    assert failed == {
        "pair policy and reference differ": "Both addresses serve the same model, and every score would be 0: give the "
        "reference's own"
    }


def test_log_probs_that_change_from_one_time_to_the_next_are_refused(servers: Servers, local: ModelPair) -> None:
    servers[1].faults.noise = 0.2
    failed = _refused(local, _vllm(servers[0]), _vllm(servers[1]))
    assert "reference asked again in another order" in failed
    assert not [name for name in failed if name.startswith("policy")]


def test_noise_within_the_tolerance_is_measured(servers: Servers, local: ModelPair) -> None:
    for server in servers:
        server.faults.noise = 0.02
    result = _tested(local, *map(_vllm, servers), tolerance=0.3)
    assert result.noise == pytest.approx(0.02 * 2**0.5, rel=0.25)


def test_answers_that_depend_on_what_is_asked_beside_are_refused(servers: Servers, local: ModelPair) -> None:
    def mixed_up(path: str, answer: Any) -> Any:
        if path == "/v1/completions" and len(answer["choices"]) > 1:
            one, other = answer["choices"][0], answer["choices"][1]
            for row, wrong in zip(one["prompt_logprobs"][-3:], other["prompt_logprobs"][-3:], strict=True):
                for told, instead in zip(row.values(), wrong.values(), strict=False):
                    told["logprob"] = instead["logprob"]
        return answer

    servers[0].rewrite = mixed_up
    failed = _refused(local, _vllm(servers[0]), _vllm(servers[1]))
    assert set(failed) == {"policy asked all at once"}


def test_log_probs_after_temperature_are_noted_and_no_reason_to_refuse(servers: Servers, local: ModelPair) -> None:
    servers[0].faults.tempered = True
    result = _tested(local, *map(_vllm, servers))
    [noted] = [check for check in result.checks if check.outcome == "noted"]
    assert (noted.of, noted.name) == ("policy", "log-probs told while sampling")
    assert noted.reason == "What the agent's own generation tells is not used; the model is asked for each action"
    assert result.tells_raw == (False, True)


def test_numbers_that_no_softmax_made_are_refused(servers: Servers, local: ModelPair) -> None:
    servers[0].faults.unnormalised = 60.0
    failed = _refused(local, *map(_vllm, servers))
    assert failed == {"policy the likeliest token": "These are no log-probs"}


def test_another_rendering_is_noted_with_the_place_where_it_begins(servers: Servers, local: ModelPair) -> None:
    servers[1].rewrite = lambda path, answer: (
        {**answer, "tokens": answer["tokens"][1:]} if path == "/tokenize" else answer
    )
    result = _tested(local, *map(_vllm, servers))
    [noted] = [check for check in result.checks if check.outcome == "noted"]
    assert (noted.of, noted.name) == ("reference", "its own rendering")
    assert noted.found.startswith("differs from the pair's at token 0: ")


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"drops_prompt": True}, "without the prompt log-probs"),
        ({"bos": 1}, "other tokens than were sent"),
        ({"answers_as": "another"}, "another"),
    ],
)
def test_engines_that_do_something_else_than_they_are_asked_are_refused_before(
    servers: Servers, local: ModelPair, fault: dict[str, Any], says: str
) -> None:
    for name, value in fault.items():
        setattr(servers[0].faults, name, value)
    with pytest.raises(EngineError, match=says):
        _tested(local, *map(_vllm, servers))


# On the command line

_app = typer.Typer()
_app.command()(check_engines)
Spec = Callable[[VLLMServer], str]


def _spec(server: VLLMServer) -> str:
    return f"vllm:{server.answers.name}@{server.url}"


def test_the_command_shows_every_check_and_what_a_step_pays_for(servers: Servers, tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    shown = run_command(_app, *map(_spec, servers), "--tokenizer", PAIR / "policy", "--json", told)
    assert shown.exit_code == 0, shown.output
    assert "The engines can be used." in words_of(shown)
    assert "A step pays for its new tokens." in words_of(shown)
    found = json.loads(told.read_text(encoding="utf-8"))
    assert found["failed"] == []
    assert len(found["checks"]) == 17


def test_the_command_says_what_failed_with_exit_code_1(servers: Servers) -> None:
    shown = run_command(_app, *[_spec(servers[0])] * 2, "--tokenizer", PAIR / "policy")
    assert shown.exit_code == FAILED, shown.output
    assert "These engines cannot be relied on: pair policy and reference differ." in words_of(shown)


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ("vllm", "needed: KIND:MODEL@URL, with KIND one of vllm, sglang, openai"),
        ("other:model@http://127.0.0.1:1", "needed: KIND:MODEL@URL"),
        ("vllm:nobody@{url}", "does not serve 'nobody'"),
    ],
)
def test_the_command_refuses_what_is_no_engine_and_says_what_is(servers: Servers, policy: str, says: str) -> None:
    spec = policy.format(url=servers[0].url)
    shown = run_command(_app, spec, _spec(servers[1]), "--tokenizer", PAIR / "policy")
    assert shown.exit_code == 2
    assert says in words_of(shown)
