"""A guarded agent that goes on for long: `python -m tracing.long_lived FOLDER CONVERSATIONS`.

Each conversation has 50 steps and a span of the app's around them, in the same file. Before each draw it prints how
many steps have finished.
"""

from __future__ import annotations

import sys
from itertools import count

from guard.agents import ByArgument, Scripted, World, act, agent_node, build, enforced, run, say
from langchain_core.messages import AIMessage, BaseMessage

from pa_middleware import Guard, record

STEPS = 50
"""Of each conversation."""

finished = count()


class Counted(Scripted):
    """Draws once for each step."""

    def _next(self, messages: list[BaseMessage]) -> AIMessage:
        print(next(finished), flush=True)
        return super()._next(messages)


def main() -> None:
    """Talk, and record it."""
    folder, conversations = sys.argv[1:]
    guard = Guard(ByArgument(), enforced(threshold=0.0, on_low="flag"))
    replies = [*(act(-1 if step % 10 == 7 else 1) for step in range(STEPS - 1)), say(1)]
    with record(folder) as recording:
        tracer = recording.tracer_provider.get_tracer("app")
        for _ in range(int(conversations)):
            graph = build(guard, agent_node(Counted(replies=replies)), World()).compile()
            with tracer.start_as_current_span("request"):
                run(graph, config={"recursion_limit": 3 * STEPS})


if __name__ == "__main__":
    main()
