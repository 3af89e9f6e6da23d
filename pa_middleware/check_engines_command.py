"""`pa-middleware check-engines`: whether two engines give log-probs that can be relied on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from pa_middleware.json_option import check_writable, write_json

if TYPE_CHECKING:
    from pa_middleware.engines.findings import SelfTest

FAILED = 1
"""Exit code when a check failed; 2 is for engines and options that cannot be used."""

_ENGINE = "KIND:MODEL@URL, such as vllm:my-policy@http://127.0.0.1:8000; KIND is vllm, sglang or openai."


def check_engines(
    policy: Annotated[str, typer.Argument(help=f"The policy's engine: {_ENGINE}")],
    reference: Annotated[str, typer.Argument(help="The reference's engine, likewise.")],
    *,
    tokenizer: Annotated[str, typer.Option(help="Folder or hub name of the pair's tokenizer, with chat template.")],
    tolerance: Annotated[
        float, typer.Option(min=0, help="Nats by which log-probs may differ that should be the same.")
    ] = 0.05,
    auth_env: Annotated[
        str | None, typer.Option(help="Environment variable that holds the engines' API key.", show_default=False)
    ] = None,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds for one request.")] = 30.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything to this file as well.")] = None,
) -> None:
    """Ask two engines the same in several ways: are their log-probs right? Exit code 1 if a check failed."""
    from transformers import AutoTokenizer

    from pa_middleware.engines.findings import SelfTestError
    from pa_middleware.engines.pair import EnginePair
    from pa_middleware.engines.spec import source_of
    from pa_middleware.engines.table import render
    from pa_middleware.scoring.errors import ScoringError

    check_writable(json_file)
    settings: dict[str, Any] = {"auth_env": auth_env, "timeout": timeout}
    try:
        sources = source_of(policy, **settings), source_of(reference, **settings)
        loaded = AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
        result: SelfTest
        with Console(stderr=True).status("Asking the engines"):
            try:
                with EnginePair(*sources, loaded, tolerance=tolerance) as pair:
                    result = pair.self_test
            except SelfTestError as error:
                result = error.result
    except (OSError, ValueError, ScoringError) as error:
        raise typer.BadParameter(str(error)) from error
    Console().print(render(result))
    write_json(result.to_dict(), json_file)
    if result.failed:
        raise typer.Exit(FAILED)
