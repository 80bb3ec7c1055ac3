"""Black-box discrete prompt learning: a distribution over tokens for each position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlprompt.agents.policies.stopping import LEAN
from rlprompt.agents.shared.ranges import check_ranges
from rlprompt.prompt import TokenPrompt
from rlprompt.search.allocation import score_new
from rlprompt.search.objective import Objective
from rlprompt.search.pools import first_words
from rlprompt.search.space import TokenSpace
from rlprompt.types import Floats, PromptKind


@dataclass(frozen=True)
class BDPL:
    """Learn for each position by itself which of a few tokens to write, by policy gradients.

    BDPL (Diao et al. 2023, arXiv 2201.08531; `run_glue_discrete_LM.py` of its code): positions are
    independent categorical distributions, uniform at first, and the gradient of the expected reward
    is estimated from prompts drawn of them, each reward less the mean of the others of its draw
    (their variance-reduced estimator, which for I prompts divides by I - 1 and so is the
    leave-one-out baseline).

    Departures: the distributions are softmaxes of logits, which Adam climbs, and not probabilities
    that AdamW moves, with a weight decay of 0.1 and gradients cut to a norm of 3, and that are
    clipped and projected after each step; what counts is the task's reward on all train examples,
    and not cross-entropy on batches of up to 128; the tokens are the first of the space's own order
    or common words, and not n-grams of the train texts with high mutual information, which `tokens:
    words` comes nearest to; of a prompt that is drawn again the reward is known and not paid again;
    where a draw brings nothing new, the logits are halved; in a space of several lengths the length
    is one more such distribution. With starts, half of a position's probability is on their tokens
    at first. The likeliest prompt is scored at the end, and chosen only if it is better than the
    others.

    >>> from rlprompt import search
    >>> from rlprompt.check import ToyTask, toy_lm
    >>> found = search(ToyTask(), toy_lm(), BDPL(), budget=400, length=3)
    >>> found.n_prompts, found.n_distinct
    (100, 100)

    Args:
        words: Tokens to choose from, 2 or more, the same for all positions, N; the starts' own come
            on top. The released code: 20 unless told, and 200 in its example. Ours is between, and
            they are not chosen by the train texts.
        samples: Prompts drawn for one step, 2 or more. The released code: 20. Ours, for a budget of
            a hundred prompts: half of that.
        learning_rate: Adam's, of the logits, above 0. The released code moves probabilities, by
            5e-5 unless told and 1e-4 in its example, in 400 steps at most. Ours: a hundred prompts
            are ten steps, in which 0.5 can take a token from one in 64 to seven in ten.

    Raises:
        ValueError: A setting is out of range.
    """

    searches: ClassVar[PromptKind] = "tokens"

    words: int = 64
    samples: int = 10
    learning_rate: float = 0.5

    def __post_init__(self) -> None:
        """Check the settings."""
        check_ranges(self, {"words": 2, "samples": 2}, ("learning_rate",))

    def run(self, objective: Objective, space: TokenSpace, rng: np.random.Generator) -> None:
        """See `Optimiser.run`."""
        words = first_words(objective.lm, space, self.words, rng)
        policy = Categoricals(space, words, self.learning_rate)
        rewards = dict(space.known)
        score_new(objective, space.starts, rewards)
        while len(rewards) < policy.n_prompts:
            drawn = policy.draw(self.samples, rng)
            unseen = set(drawn) - rewards.keys()
            if not unseen:
                policy.flatten()
                continue
            last = objective.affordable() <= len(unseen)
            score_new(objective, [policy.likeliest(), *drawn] if last else drawn, rewards)
            policy.learn(drawn, np.array([rewards[prompt] for prompt in drawn]))


class Categoricals:
    """A distribution over the tokens of each position, and over lengths where there are several.

    Args:
        space: Lengths, and starts.
        words: Tokens to choose from; the starts' own are added.
        learning_rate: Adam's.

    Attributes:
        words: (N,) token ids.
        logits: (L, N) float64. Of tokens that were not drawn the gradient is zero but for rounding,
            which Adam would make a step of in float32.
        lengths: (M,) float64 logits of the lengths, the shortest first.
    """

    def __init__(self, space: TokenSpace, words: Sequence[int], learning_rate: float) -> None:
        theirs = [token for start in space.starts for token in start.ids]
        self.words = list(dict.fromkeys([*words, *theirs]))
        self._columns = {token: column for column, token in enumerate(self.words)}
        self._shortest = space.shortest
        shares = torch.zeros(space.length, len(self.words), dtype=torch.float64)
        for start in space.starts:
            shares[range(len(start)), [self._columns[token] for token in start.ids]] += 1
        total = shares.sum(1, keepdim=True)
        even = torch.full_like(shares, 1 / len(self.words))
        known = LEAN * shares / total.clamp(min=1) + (1 - LEAN) * even
        self.logits = torch.where(total > 0, known, even).log().requires_grad_()
        self.lengths = shares.new_zeros(space.length - space.shortest + 1, requires_grad=True)
        self._adam = torch.optim.Adam([self.logits, self.lengths], lr=learning_rate)

    @property
    def n_prompts(self) -> int:
        """How many prompts there are."""
        longest = len(self.logits)
        return sum(len(self.words) ** n for n in range(self._shortest, longest + 1))

    def draw(self, count: int, rng: np.random.Generator) -> list[TokenPrompt]:
        """So many prompts, repeats among them."""
        lengths = self._shortest + _drawn(self.lengths, count, rng)
        columns = [_drawn(position, count, rng) for position in self.logits]
        prompts = zip(np.stack(columns, 1).tolist(), lengths.tolist(), strict=True)
        return [TokenPrompt([self.words[i] for i in row[:length]]) for row, length in prompts]

    def likeliest(self) -> TokenPrompt:
        """The likeliest length, and at each position the likeliest token."""
        length = self._shortest + int(self.lengths.argmax())
        return TokenPrompt([self.words[i] for i in self.logits.argmax(1)[:length].tolist()])

    def learn(self, prompts: Sequence[TokenPrompt], rewards: Floats) -> None:
        """Take a step towards the better prompts of a draw.

        At each position prompts are compared with others that reach it: where lengths differ, what
        a length is worth is no matter of a token.

        Args:
            prompts: (K,) of them.
            rewards: (K,), their mean rewards.
        """
        lengths = np.array([len(prompt) for prompt in prompts])
        choices = [(self.lengths, lengths - self._shortest, rewards)]
        for place, position in enumerate(self.logits):
            chosen = [self._columns[p.ids[place]] for p in prompts if len(p) > place]
            choices.append((position, np.array(chosen), rewards[lengths > place]))
        gain = torch.zeros((), dtype=torch.float64)
        for logits, columns, earned in choices:
            if len(earned) > 1:
                advantages = torch.from_numpy(above_the_others(earned))
                gain = gain + advantages @ logits.log_softmax(0)[columns] / len(prompts)
        self._adam.zero_grad()
        torch.autograd.backward(-gain)
        self._adam.step()

    @torch.no_grad()
    def flatten(self) -> None:
        """Go half of the way to where all is equally likely."""
        self.logits /= 2
        self.lengths /= 2


def above_the_others(rewards: Floats) -> Floats:
    """Each reward less the mean of all others, (K,).

    >>> above_the_others(np.array([1.0, 2.0, 6.0])).tolist()
    [-3.0, -1.5, 4.5]
    """
    count = len(rewards)
    above: Floats = (rewards - rewards.mean()) * count / (count - 1)
    return above


def _drawn(logits: Tensor, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    chances = logits.detach().softmax(0).numpy()
    drawn: NDArray[np.int64] = rng.choice(len(chances), size=count, p=chances / chances.sum())
    return drawn
