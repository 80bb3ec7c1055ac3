"""How fast a model scores prompts, against the usual way of doing it.

The usual way, as RLPrompt does it: a loop over prompts, one padded batch of all examples, logits
over the whole vocabulary at every position. Both are timed in turns in one run, so that a busy
machine is busy for both; only their ratio can be compared with that of another day.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import FedPrompt, TokenPrompt
from rlprompt.template import Query

# Of a trial: prompts that `FrozenLM.score` takes at a time, texts, and tokens of each.
N_PROMPTS, N_TEXTS, N_TOKENS, PROMPT_TOKENS = 16, 16, 24, 5
# Turns at the most.
TURNS = 5


@dataclass(frozen=True)
class Speed:
    """Prompts a second.

    Attributes:
        ours: Of `FrozenLM.score`, many prompts at a time.
        usual: Of the usual way; None where the model is not causal, and ours is that way.
        n_texts: Texts that each prompt was scored on.
        turns: How often each was timed; the figures are of the medians.
    """

    ours: float
    usual: float | None
    n_texts: int
    turns: int

    @property
    def ratio(self) -> float | None:
        """How many times as fast as the usual way ours is."""
        return None if self.usual is None else self.ours / self.usual


def measure_speed(lm: FrozenLM, limit: float = 20.0) -> Speed:
    """Time a few prompts of random tokens on texts of random tokens.

    Args:
        lm: The model.
        limit: Seconds that all of it may take, as far as the first call of each tells.

    >>> from rlprompt.check.toy import toy_lm
    >>> measure_speed(toy_lm(), limit=0).turns
    1
    """
    rng = np.random.default_rng(0)
    room = N_TOKENS if lm.context is None else max(1, min(N_TOKENS, lm.context - 2 * PROMPT_TOKENS))
    tail = (*(() if lm.mask_id is None else (lm.mask_id,)), *lm.suffix_ids)

    def some(count: int) -> tuple[int, ...]:
        drawn = rng.integers(0, lm.n_vocabulary, count).tolist()
        return tuple((i + 1) % lm.n_vocabulary if i == lm.mask_id else i for i in drawn)

    def prompts() -> list[FedPrompt]:
        return [TokenPrompt(some(PROMPT_TOKENS)) for _ in range(N_PROMPTS)]

    def queries(count: int) -> list[Query]:
        heads = [(*lm.prefix_ids, *some(room)) for _ in range(count)]
        return [Query(head, tail, (some(1), some(1))) for head in heads]

    usual = lm.kind == "causal"
    asked = queries(N_TEXTS)
    # One row tells whether so many texts can be had in the time.
    one = seconds(lm.score, prompts()[:1], asked[:1])
    n_rows = N_TEXTS * (N_PROMPTS + 1)
    asked = asked[: max(1, min(N_TEXTS, int(N_TEXTS * limit / 4 / max(one * n_rows, 1e-9))))]
    first = seconds(lm.score, prompts(), asked, over="candidates")
    if usual:
        first += seconds(loop, lm, prompts()[:1], asked)
    turns = max(1, min(TURNS, int((limit - first) / first)))
    times = [
        (
            seconds(lm.score, prompts(), asked, over="candidates") / N_PROMPTS,
            seconds(loop, lm, prompts()[:1], asked) if usual else 0.0,
        )
        for _ in range(turns)
    ]
    ours, theirs = medians(times)
    return Speed(1 / ours, 1 / theirs if usual else None, len(asked), turns)


@torch.no_grad()
def loop(
    lm: FrozenLM, prompts: Sequence[FedPrompt], queries: Sequence[Query], head_at_end: bool = False
) -> Tensor:
    """The usual ways, of a causal model: (P, Q, C) log-probabilities among the candidates.

    Args:
        lm: The model.
        prompts: (P,) of tokens or of vectors, one after the other.
        queries: (Q,) in one padded batch, with candidates of one token.
        head_at_end: Whether the output head is applied at the last position alone, of a model whose
            layers are `base_model` and its head `lm_head`.
    """
    model: Any = lm.model
    candidates = torch.tensor([[answer[0] for answer in query.candidates] for query in queries])
    candidates = candidates.to(lm.device)
    found = []
    for prompt in prompts:
        fed, ends = pad(model, prompt, queries, lm.device)
        every = torch.arange(len(queries), device=lm.device)
        if head_at_end:
            hidden = model.base_model(**fed).last_hidden_state
            logits = model.lm_head(hidden[every, ends])
        else:
            logits = model(**fed).logits[every, ends]
        found.append(logits.gather(1, candidates).log_softmax(-1))
    return torch.stack(found).cpu()


def pad(
    model: Any, prompt: FedPrompt, queries: Sequence[Query], device: torch.device
) -> tuple[dict[str, Any], Tensor]:
    """A batch of all examples, padded on the right, and where each ends."""
    n_prompt = len(prompt)
    middle = prompt.ids if isinstance(prompt, TokenPrompt) else (0,) * n_prompt
    rows = [torch.tensor((*q.head_ids, *middle, *q.tail_ids)) for q in queries]
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)
    ends = torch.tensor([len(row) for row in rows], device=device) - 1
    mask = (torch.arange(ids.shape[1], device=device) <= ends[:, None]).long()
    fed: dict[str, Any] = {"attention_mask": mask, "use_cache": False}
    if isinstance(prompt, TokenPrompt):
        return fed | {"input_ids": ids}, ends
    vectors = model.get_input_embeddings()(ids)
    for row, query in zip(vectors, queries, strict=True):
        start = len(query.head_ids)
        row[start : start + n_prompt] = torch.tensor(prompt.vectors)
    return fed | {"inputs_embeds": vectors}, ends


def medians(turns: Sequence[tuple[float, ...]]) -> list[float]:
    """The median of each column.

    >>> medians([(1.0, 5.0), (2.0, 4.0), (9.0, 0.0)])
    [2.0, 4.0]
    """
    return [statistics.median(column) for column in zip(*turns, strict=True)]


def seconds(work: Callable[..., object], *arguments: Any, **options: Any) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    work(*arguments, **options)
    return time.perf_counter() - start
