"""Exact action probabilities of a model in many states at once, from one packed forward pass.

The prompts share their beginning (system turn, tools, first words of the task): it is computed once and its keys and
values are expanded over the batch. The six actions share tokens: each state is one row that holds the rest of its
prompt and a trie of the action strings, with a mask that lets a token see its own ancestors only.

Equal, to rounding, to a plain forward pass over the text of every (state, action); gradients flow through all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache, LlamaForCausalLM, PreTrainedTokenizerFast

from pa_middleware.scoring.cache_names import cache_argument

from .environment import ACTION_COUNT, STATE_COUNT, active_states
from .prompt import ACTION_TEXTS, prompt_text

_CHUNK = 64  # states a forward pass; more is slower, the mask and logits leave the processor's cache


@dataclass(frozen=True, slots=True)
class _Trie:
    """The action strings as a tree. Node 0 is the root: the last prompt token, which predicts the first action token.

    Only tokens that predict another one are nodes; the end of turn is not.
    """

    tokens: list[int]
    """Input id of nodes 1, 2, ...; N - 1 of them."""
    parents: list[int]
    """Parent of nodes 1, 2, ..."""
    edges: list[list[tuple[int, int]]]
    """For each action its (node, predicted id) pairs, end of turn included."""
    children: list[set[int]]
    """For each node the ids that continue some action."""


def _trie(actions: Sequence[Sequence[int]]) -> _Trie:
    nodes: dict[tuple[int, ...], int] = {(): 0}
    trie = _Trie([], [], [], [set()])
    for ids in actions:
        path: list[tuple[int, int]] = []
        for depth, token in enumerate(ids):
            here = nodes[tuple(ids[:depth])]
            path.append((here, token))
            trie.children[here].add(token)
            prefix = tuple(ids[: depth + 1])
            if depth + 1 < len(ids) and prefix not in nodes:
                nodes[prefix] = len(nodes)
                trie.tokens.append(token)
                trie.parents.append(here)
                trie.children.append(set())
        trie.edges.append(path)
    return trie


class ActionTable:
    """Tabulates log pi(action | state) of models that share one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, states: NDArray[np.int64] | None = None) -> None:
        """Tokenise and pack once.

        Args:
            tokenizer: the pair's.
            states: int64 [S], the states to tabulate; by default all in which an episode can be under way.
        """
        self.states = active_states() if states is None else states
        prompts: list[list[int]] = [
            tokenizer(prompt_text(tokenizer, state), add_special_tokens=False)["input_ids"]
            for state in self.states.tolist()
        ]
        actions: list[list[int]] = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in ACTION_TEXTS]
        shared = 0
        while len({tuple(prompt[: shared + 1]) for prompt in prompts}) == 1 and shared + 1 < len(prompts[0]):
            shared += 1
        trie = _trie(actions)
        self._prefix = torch.tensor([prompts[0][:shared]])
        self._rows, self._positions, self._visible = _pack([prompt[shared:] for prompt in prompts], shared, trie)
        self._nodes = len(trie.tokens) + 1
        self._edges = [torch.tensor(path).T for path in trie.edges]
        self._children = trie.children

    def __call__(self, model: LlamaForCausalLM, rows: torch.Tensor | None = None) -> torch.Tensor:
        """Log-probabilities of the six actions and of everything else.

        Args:
            model: policy or reference, on CPU in float32.
            rows: int64 [B], positions in `states`; all by default.

        Returns:
            float32 [B, 7], nats; the last column is the log-probability that the model writes none of the canonical
            strings, summed branch by branch because 1 minus the six loses all precision. Rows sum to 1 as
            probabilities.
        """
        rows = torch.arange(len(self.states)) if rows is None else rows
        visible = self._visible[rows]
        shared = self._prefix.shape[1]
        cache = DynamicCache(config=model.config)
        model.model(input_ids=self._prefix, **cache_argument(model.model, cache), use_cache=True)
        for layer in cache.layers:
            layer.keys = layer.keys.expand(len(rows), -1, -1, -1)  # type: ignore[union-attr]
            layer.values = layer.values.expand(len(rows), -1, -1, -1)  # type: ignore[union-attr]
        seen = torch.cat([visible.new_ones(*visible.shape[:2], shared), visible], dim=-1)
        mask = torch.zeros(seen.shape).masked_fill_(~seen, torch.finfo(torch.float32).min)
        hidden = model.model(
            input_ids=self._rows[rows],
            position_ids=self._positions[rows],
            attention_mask=mask[:, None],
            **cache_argument(model.model, cache),
            use_cache=True,
        ).last_hidden_state[:, -self._nodes :]
        log_probs = torch.log_softmax(model.lm_head(hidden), dim=-1)  # [B, nodes, vocabulary]
        legal = torch.stack([log_probs[:, node, token].sum(dim=-1) for node, token in self._edges], dim=-1)
        return torch.cat([legal, self._leak(log_probs)], dim=-1)

    def _leak(self, log_probs: torch.Tensor) -> torch.Tensor:
        """[B, 1]: log of the probability of leaving the trie, at any node."""
        reach: dict[int, torch.Tensor] = {0: log_probs.new_zeros(len(log_probs))}
        for nodes, tokens in self._edges:
            for here, token, following in zip(nodes[:-1], tokens[:-1], nodes[1:], strict=True):
                reach[int(following)] = reach[int(here)] + log_probs[:, here, token]
        gone = []
        for node, children in enumerate(self._children):
            others = log_probs[:, node].index_fill(-1, torch.tensor(sorted(children)), -torch.inf)
            gone.append(reach[node] + torch.logsumexp(others, dim=-1))
        return torch.logsumexp(torch.stack(gone, dim=-1), dim=-1, keepdim=True)


def _pack(rests: Sequence[Sequence[int]], shared: int, trie: _Trie) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows of prompt rests, padded on the left, each followed by the trie.

    Returns:
        Input ids and position ids, int64 [S, T]; and which tokens of its row a token sees, bool [S, T, T].
    """
    width = max(map(len, rests))
    nodes = len(trie.tokens) + 1
    length = width + nodes - 1
    ids = torch.zeros(len(rests), length, dtype=torch.int64)
    positions = torch.zeros_like(ids)
    visible = torch.zeros(len(rests), length, length, dtype=torch.bool)
    depth = [0] * nodes
    ancestors = torch.zeros(nodes, nodes, dtype=torch.bool)
    for node, parent in enumerate(trie.parents, start=1):
        depth[node] = depth[parent] + 1
        ancestors[node] = ancestors[parent]
        ancestors[node, node] = True
    for row, rest in enumerate(rests):
        padding = width - len(rest)
        ids[row, padding:width] = torch.tensor(rest)
        ids[row, width:] = torch.tensor(trie.tokens)
        positions[row, padding:width] = shared + torch.arange(len(rest))
        positions[row, width:] = shared + len(rest) - 1 + torch.tensor(depth[1:])
        visible[row, :width, padding:width] = torch.ones(width, len(rest), dtype=torch.bool).tril(-padding)
        visible[row, width:, padding:width] = True
        visible[row, width:, width:] = ancestors[1:, 1:]
    return ids, positions, visible


def tabulate(model: LlamaForCausalLM, table: ActionTable) -> NDArray[np.float64]:
    """Log-probabilities of the seven actions in every one of the 500 states.

    Returns:
        float64 [500, 7], nats, rows normalised; uniform in states that no episode acts in.
    """
    with torch.no_grad():
        rows = torch.split(torch.arange(len(table.states)), _CHUNK)
        known = torch.cat([table(model, some) for some in rows]).double()
    log_probs = np.full((STATE_COUNT, ACTION_COUNT), -np.log(ACTION_COUNT))
    log_probs[table.states] = torch.log_softmax(known, dim=-1).numpy()
    return log_probs
