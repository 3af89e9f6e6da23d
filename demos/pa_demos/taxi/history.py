"""The same agreement when the models are shown the whole history instead of the window they were trained on.

Neither model ever saw such a prompt, so the figures are poor. They are kept to show what scoring under a prompt that
the policy did not act under costs.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from langchain_core.messages import BaseMessage, ToolMessage
from transformers import DynamicCache, LlamaForCausalLM, PreTrainedTokenizerFast

from pa_middleware.scoring.cache_names import cache_argument

from .actions import ActionTable, tabulate
from .agreement import choices, compare, named
from .environment import BETA, MALFORMED, Taxi
from .exact import Table, soft_optimum
from .prompt import ACTION_MESSAGES, ACTION_TEXTS, render, window


def full_history_agreement(
    policy: LlamaForCausalLM,
    reference: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    episodes: int = 50,
    seed: int = 0,
) -> dict[str, float]:
    """Agreement with the exact advantage, scored under system, task and every call and observation so far.

    The agents act under the window; only the scores are taken under the history.

    Args:
        policy: pi_theta.
        reference: pi_ref.
        tokenizer: the pair's.
        episodes: sampled with each of the two models.
        seed: of agents and environment.

    Returns:
        `policy_states_...` and `reference_states_...` figures as in `agreement`, over the reference's actions.
    """
    table = ActionTable(tokenizer)
    log_policy, log_reference = tabulate(policy, table), tabulate(reference, table)
    advantage = soft_optimum(np.exp(log_reference)).advantage[:, :MALFORMED]
    figures: dict[str, float] = {}
    for name, acting in (("policy_states", log_policy), ("reference_states", log_reference)):
        states: list[int] = []
        scores: list[Table] = []
        for episode in range(episodes):
            visited, prompts = _episode(acting, tokenizer, seed + episode)
            states += visited
            ratio = _action_log_probs(policy, tokenizer, prompts) - _action_log_probs(reference, tokenizer, prompts)
            scores.append(BETA * ratio)
        score, truth = np.concatenate(scores), advantage[states]
        figures |= named(name, compare(score, truth, np.exp(log_reference[states, :MALFORMED])))
        figures |= named(name, choices(score, truth, np.ones(len(states))))
    return figures


def _episode(acting: Table, tokenizer: PreTrainedTokenizerFast, seed: int) -> tuple[list[int], list[str]]:
    """States of one sampled episode, and the prompt with the whole history at each."""
    taxi, random = Taxi(seed), np.random.default_rng(seed)
    messages: list[BaseMessage] = window(taxi.goal, taxi.observation)
    states, prompts = [], []
    while not taxi.done:
        states.append(taxi.state)
        prompts.append(render(tokenizer, messages))
        odds = np.exp(acting[taxi.state, :MALFORMED])
        action = int(random.choice(MALFORMED, p=odds / odds.sum()))
        call = ACTION_MESSAGES[action]
        messages += [call, ToolMessage(taxi.act(action), tool_call_id=str(call.tool_calls[0]["id"]))]
    return states, prompts


@torch.no_grad()
def _action_log_probs(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: list[str]) -> Table:
    """log pi of the six actions after each prompt, float64 [T, 6]; every prompt begins with the one before it."""
    actions = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in ACTION_TEXTS]
    width = max(map(len, actions))
    targets = torch.tensor([ids + [0] * (width - len(ids)) for ids in actions])
    real = torch.tensor([[1.0] * len(ids) + [0.0] * (width - len(ids)) for ids in actions])
    cache = DynamicCache(config=model.config)
    read, rows = 0, []
    for prompt in prompts:
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        first = model(torch.tensor([ids[read:]]), **cache_argument(model, cache), use_cache=True).logits[:, -1:]
        read = len(ids)
        branches = copy.deepcopy(cache)
        branches.batch_repeat_interleave(len(actions))
        rest = model(targets[:, :-1], **cache_argument(model, branches), use_cache=True).logits
        log_probs = torch.log_softmax(torch.cat([first.expand(len(actions), -1, -1), rest], dim=1), dim=-1)
        rows.append((log_probs.gather(-1, targets[:, :, None])[:, :, 0] * real).sum(dim=-1))
    return np.asarray(torch.stack(rows).double().numpy())
