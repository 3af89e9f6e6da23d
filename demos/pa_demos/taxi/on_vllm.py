"""The taxi with both models on vLLM: the driver writes there, and the guard asks there for scores.

    python -m pa_demos.taxi.on_vllm --policy http://127.0.0.1:8001 --reference http://127.0.0.1:8002

docs/engines.md has the commands that serve the shipped pair so. All episodes run side by side in one event loop.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence

from pa_vllm import VLLM, ChatVLLM
from pydantic import SecretStr
from transformers import AutoTokenizer

from pa_middleware import EnginePair, Guard

from .agent import build_agent, first_messages, shown
from .environment import Taxi
from .episode import PAIR, RULES

POLICY, REFERENCE = "policy", "reference"
"""Names that the models are served by."""


def driver_on(reference: str) -> ChatVLLM:
    """The agent's model, on the reference's server.

    Its draws have no seed: vLLM makes the same draw again for the same one.
    """
    return ChatVLLM(
        model=REFERENCE,
        base_url=f"{reference}/v1",
        api_key=SecretStr("none"),
        temperature=1.0,
        max_completion_tokens=24,
    )


async def delivered(reference: str, seeds: Sequence[int], pair: EnginePair | None = None) -> int:
    """How many episodes deliver their passenger.

    Args:
        reference: URL of the server that the driver writes on.
        seeds: of the episodes' worlds; the driver's draws have none.
        pair: scores what the driver proposes; None: nobody does.
    """
    driver = driver_on(reference)

    async def episode(seed: int) -> bool:
        taxi = Taxi(seed)
        builder = build_agent(driver, taxi)
        if pair is not None:
            Guard(pair, RULES["guarded"], tools=taxi.tools(), history=shown).install(builder)
        await builder.compile().ainvoke(
            {"messages": first_messages(taxi)}, {"configurable": {"thread_id": f"episode-{seed}"}}
        )
        return taxi.success

    return sum(await asyncio.gather(*map(episode, seeds)))


def main(arguments: Sequence[str] | None = None) -> dict[str, int]:
    """Run episodes without a guard and with one; print how many delivered, and give it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", required=True, help="URL of the policy's server")
    parser.add_argument("--reference", required=True, help="URL of the reference's")
    parser.add_argument("--episodes", type=int, default=20)
    options = parser.parse_args(arguments)
    sources = VLLM(options.policy, POLICY), VLLM(options.reference, REFERENCE)
    with EnginePair(*sources, AutoTokenizer.from_pretrained(PAIR / "policy")) as pair:
        for served in pair.served:
            print(f"{served.model}: {served.way}")
        found = {}
        for told, scorer in (("unguarded", None), ("guarded", pair)):
            found[told] = asyncio.run(delivered(options.reference, range(options.episodes), scorer))
            print(f"{told}: {found[told]} of {options.episodes} passengers delivered")
    return found


if __name__ == "__main__":
    main()
