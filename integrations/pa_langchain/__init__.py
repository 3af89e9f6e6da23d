'''Progress advantage for agents made with LangChain's `create_agent`.

The same rules and the same records as with `pa_middleware.Guard`; the guard is a middleware:

    from langchain.agents import create_agent
    from langchain.agents.middleware import before_model, wrap_model_call
    from langchain_core.messages import HumanMessage
    from langgraph.checkpoint.memory import InMemorySaver
    from pa_demos.taxi.environment import Taxi
    from pa_demos.taxi.episode import PAIR
    from pa_demos.taxi.prompt import SYSTEM
    from pa_langchain import ProgressAdvantageMiddleware
    from pa_middleware import ModelPair, Rules
    from pa_transformers import LocalChatModel

    pair = ModelPair.from_pretrained(PAIR / "policy", PAIR / "reference")
    model = LocalChatModel(model=pair.reference.model, tokenizer=pair.tokenizer, seed=3)
    guard = ProgressAdvantageMiddleware(pair, Rules(threshold=-0.5, draws=4, on_low="flag", mode="enforce"))
    taxi = Taxi(seed=3)


    @before_model(can_jump_to=["end"])
    def arrived(state, runtime):
        """The taxi's driver would drive on."""
        return {"jump_to": "end"} if taxi.done else None


    @wrap_model_call
    def latest(request, handler):
        """The driver was trained on the task and the latest observation, and is scored under what it is shown."""
        return handler(request.override(messages=[HumanMessage(f"{taxi.goal} {request.messages[-1].text}")]))


    agent = create_agent(
        model, taxi.tools(), system_prompt=SYSTEM, middleware=[arrived, latest, guard], checkpointer=InMemorySaver()
    )
    fare = {"configurable": {"thread_id": "fare 3"}}
    agent.invoke({"messages": [HumanMessage(taxi.observation)]}, fare)

    for record in agent.get_state(fare).values["pa"]:  # the agent's output does not show them
        print(record["step"], record["decision"], round(record["score"], 2), f"{len(record['candidates'])} draws")

Where it goes in the list of middleware, and what that means: see `ProgressAdvantageMiddleware`.
'''

from pa_langchain.middleware import ProgressAdvantageMiddleware

__all__ = ["ProgressAdvantageMiddleware"]
