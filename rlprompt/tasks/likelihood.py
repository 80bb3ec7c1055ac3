"""How likely a model finds the reference answers: a reward without writing, and with a gradient.

An example's reward is the mean log-probability a token, nats, of its reference after the text and
the prompt, which is what PMPO goes by in the place of answers (Zhao et al. 2025, arXiv 2505.16307).
Where every answer is wrong, prompts still differ in it. What it cannot say is whether the model
would write the reference: that is the metric's business.

The end is a part of an answer: a model that goes on after the reference has not written it. An
answer ends as it does where the model writes, by one of the stop strings or by an end token, and
the probabilities of all these ends are added up. The end counts as one token. A stop string that
the tokenizer spells with nothing, as T5's does a line break, is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlprompt.data.examples import Example
from rlprompt.models.conventions import end_ids
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, SoftPrompt
from rlprompt.template import Query, Template
from rlprompt.types import Candidates, Floats, Ids, SpellingError

# What the reward is called.
LOG_LIKELIHOOD = "log_likelihood"

Pooling = Literal["best", "logsumexp"]
"""How several references of an example make one reward."""


@dataclass(frozen=True)
class References:
    """The references of examples as a model is asked about them.

    Attributes:
        queries: (E,) examples, each with C candidates: every reference with every end.
        owners: (E, C) int64, the reference that a candidate is of; -1 for one that is there because
            other examples have more.
        sizes: (E, R) float64, tokens of each reference, the end counted as one.
        pooling: `best`: the likeliest reference a token counts, as in metrics an answer is held
            against the best of them. `logsumexp`: the probability that any of them is written, by
            their mean number of tokens.

    >>> queries = [Query((1,), (), ((5, 0), (6, 7, 0)))]
    >>> loglik = torch.tensor([[0.5, 0.125]]).log()
    >>> for pooling in ("best", "logsumexp"):
    ...     asked = References(queries, np.array([[0, 1]]), np.array([[2.0, 3.0]]), pooling)
    ...     print(round(asked.rewards(loglik, np.array([0])).item(), 4))
    -0.3466
    -0.188
    """

    queries: Sequence[Query]
    owners: NDArray[np.int64]
    sizes: Floats
    pooling: Pooling

    def rewards(self, loglik: Tensor, which: NDArray[np.int64]) -> Tensor:
        """Rewards (n,) of log-likelihoods (n, C) of the candidates of some examples (n,), nats."""
        owners = torch.from_numpy(self.owners[which]).to(loglik.device)
        sizes = torch.from_numpy(self.sizes[which]).to(loglik)
        references = torch.arange(sizes.shape[1], device=loglik.device)
        own = owners[:, None] == references[:, None]  # (n, R, C)
        each = torch.where(own, loglik[:, None], -torch.inf).logsumexp(-1)
        if self.pooling == "best":
            return (each / sizes).max(-1).values
        there = own.any(-1)
        return each.logsumexp(-1) * there.sum(-1) / (sizes * there).sum(-1)


@dataclass(frozen=True)
class Likelihood:
    """Scores prompts by the references of examples.

    Args:
        lm: The frozen model.
        template: Where text and prompt go; the reference follows.
        stop: Strings that end an answer.
        pooling: As for `References`.
    """

    lm: FrozenLM
    template: Template
    stop: Sequence[str]
    pooling: Pooling

    def references(self, examples: Sequence[Example]) -> References:
        """The references of examples (E,).

        Raises:
            ValueError: The model is a masked one, or a reference is spelt with no token.
        """
        if self.lm.kind == "masked":
            raise ValueError(
                f"{self.lm.name} is a masked model, which fills gaps and cannot write, so an "
                f"answer has no {LOG_LIKELIHOOD}; use a causal or encoder-decoder model, or a task "
                "with label words"
            )
        if self.lm.served:
            raise ValueError(
                f"{LOG_LIKELIHOOD} counts the token that ends an answer, which {self.lm.name}, "
                f"served by {self.lm.where}, does not report; use a metric of what it writes, such "
                "as exact_match, or a model on this machine"
            )
        spelt = [list(self._spelt(example)) for example in examples]
        n_candidates = max(sum(len(candidates) for _, candidates in own) for own in spelt)
        owners = np.full((len(spelt), n_candidates), -1)
        sizes = np.ones((len(spelt), max(map(len, spelt))))
        queries = []
        for i, (example, own) in enumerate(zip(examples, spelt, strict=True)):
            listed = [(r, ids) for r, (_, candidates) in enumerate(own) for ids in candidates]
            owners[i, : len(listed)] = [r for r, _ in listed]
            sizes[i, : len(own)] = [size for size, _ in own]
            padded = (*(ids for _, ids in listed), *[listed[-1][1]] * (n_candidates - len(listed)))
            queries.append(self.template.query(example.fields, self.lm, padded))
        return References(queries, owners, sizes, self.pooling)

    def rewards(self, prompts: Sequence[Prompt], examples: Sequence[Example]) -> Floats:
        """Rewards (P, E) of prompts, nats, <= 0."""
        asked = self.references(examples)
        return self._rewarded(asked, self.lm.score(prompts, asked.queries))

    def rewards_with_grad(
        self, prompts: Sequence[SoftPrompt], examples: Sequence[Example]
    ) -> tuple[Floats, NDArray[np.float32]]:
        """Rewards (P, E), and the gradient (P, L, H) of each prompt's mean reward."""
        asked = self.references(examples)
        loglik, grad = self.lm.score_with_grad(prompts, asked.queries, asked.rewards)
        mean = cast("NDArray[np.float32]", (grad / len(examples)).numpy())
        return self._rewarded(asked, loglik), mean

    def _rewarded(self, asked: References, loglik: Tensor) -> Floats:
        which = np.tile(np.arange(loglik.shape[1]), len(loglik))
        rewards = asked.rewards(loglik.double().flatten(0, 1), which)
        return cast(Floats, rewards.view(loglik.shape[:2]).numpy())

    def _spelt(self, example: Example) -> Iterator[tuple[int, Candidates]]:
        """Of each reference its tokens, the end counted as one, and its ids with each end."""
        own, ends = self.template.on(self.lm), sorted(end_ids(self.lm.model, self.lm.tokenizer))
        for reference in reference_texts(example):
            text = own.answer_text(reference, self.lm.kind)
            bare = own.answer_ids(self.lm, text, plain=True)
            if not bare:
                raise SpellingError(
                    f"the tokenizer of {self.lm.name} spells the reference {reference!r} of "
                    f"{example.where('given')} with no token, so it has no likelihood"
                )
            stopped = (own.answer_ids(self.lm, text, plain=True, end=stop) for stop in self.stop)
            found = [(*bare, end) for end in ends] + [ids for ids in stopped if ids != bare]
            # What goes on after an end is in the end's probability already.
            kept = [ids for ids in found if not any(_goes_on(ids, end) for end in found)]
            yield len(bare) + bool(kept), tuple(dict.fromkeys(kept)) or (bare,)


def reference_texts(
    example: Example, split: str = "given", needing: str = LOG_LIKELIHOOD
) -> list[str]:
    """The references of an example, each once, without white space around them.

    Raises:
        ValueError: There is none.
    """
    found = list(dict.fromkeys(filter(None, map(str.strip, example.references))))
    if not found:
        raise ValueError(
            f"{example.where(split)} has no reference answer, and {needing} needs one for every "
            "example; say which column holds it (label), leave the row out, or take another reward"
        )
    return found


def _goes_on(ids: Ids, start: Ids) -> bool:
    return len(ids) > len(start) and ids[: len(start)] == start
