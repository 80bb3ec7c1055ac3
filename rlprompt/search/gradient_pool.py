"""The tokens that a gradient finds worth trying: a pool that is paid for from the budget.

At one prompt the gradient with respect to its embeddings is taken; a token's product with it is,
to first order, what the token would bring in the place of another, but for what is the same for all
tokens (AutoPrompt, Shin et al. 2020, arXiv 2010.15980). AutoPrompt ranks by it at a position and a
step; here it is taken once, to prune the vocabulary before any method searches it, as ClaPS (Zhou
et al. 2023, arXiv 2310.12774) does by the reward of each token alone, which costs a prompt a token.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import numpy as np

from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Pool, TokenPrompt
from rlprompt.search.objective import Objective
from rlprompt.search.space import Space, TokenSpace
from rlprompt.search.vocabulary import common_words
from rlprompt.tasks.base import Task, prompt_rows
from rlprompt.types import Loss, PromptKind

logger = logging.getLogger(__name__)

INSTEAD = "give another pool, such as `tokens: words`"


def pool_loss(kind: PromptKind, pool: Pool, task: Task) -> Loss | None:
    """What a pool's gradient is of; None where the pool takes none.

    The right answers' log-probability where the task has it, as in `gcg`: it has a slope also where
    the reward has none, such as the accuracy.
    """
    if kind != "tokens" or pool.kind != "gradient":
        return None
    return "cross_entropy" if task.has("cross_entropy_with_grad") else "reward"


def pool_rows(kind: PromptKind, pool: Pool, task: Task) -> int:
    """Rows of a search's budget that a pool costs: those of a gradient, or 0."""
    loss = pool_loss(kind, pool, task)
    return 0 if loss is None else prompt_rows(task, loss=loss)


def check_pool(kind: PromptKind, pool: Pool, task: Task, lm: FrozenLM, rows: int) -> None:
    """Refuse a pool by gradient where there is none to be had, or not for so many rows.

    Raises:
        ValueError: The task has no gradient, none reaches a prompt of the model, or the budget does
            not cover it and a prompt.
    """
    loss = pool_loss(kind, pool, task)
    if loss is None:
        return
    if loss == "reward" and not task.has("rewards_with_grad"):
        raise ValueError(
            f"task {task.name!r} has no gradient, which `tokens: gradient` ranks tokens by; "
            f"{INSTEAD}"
        )
    if obstacle := lm.gradient_obstacle:
        raise ValueError(
            f"{lm.name} gives no gradient, which `tokens: gradient` ranks tokens by ({obstacle}); "
            f"{INSTEAD}"
        )
    paid, least = pool_rows(kind, pool, task), pool_rows(kind, pool, task) + prompt_rows(task)
    if rows < least:
        raise ValueError(
            f"a budget of {rows} rows does not cover the gradient of `tokens: gradient`, {paid} "
            f"rows, and one prompt; give {least} rows or more, or {INSTEAD.removeprefix('give ')}"
        )


def gradient_tokens(objective: Objective, space: Space, pool: Pool) -> list[int]:
    """The tokens of a space that bring most by a gradient, the best first, paid from the budget.

    The gradient is taken at `reference`, whose score is entered as any prompt's, and its mean over
    the positions counts: a pool says nothing of positions, and methods try a token at any, so this
    is what it brings on average. The best of the positions would be that with the steepest
    gradient, for all tokens.

    Returns:
        At most `pool.size` ids, of equals the commoner first; none where the pool takes no
        gradient, or that is zero, which is logged.

    Raises:
        BudgetExhausted: The budget does not cover the gradient; that ends the search.
    """
    if not isinstance(space, TokenSpace):
        return []
    task, lm = objective.task, objective.lm
    loss = pool_loss("tokens", pool, task)
    if loss is None:
        return []
    prompt = reference(task, lm, space)
    (gradient,) = objective.evaluate_with_grad([prompt], loss=loss).gradients
    if not gradient.any():
        logger.warning(
            "the gradient of %s is zero at the prompt %r, so no token is left out",
            *(task.name, lm.decode(prompt.ids)),
        )
        return []
    gains = lm.embeddings(space.allowed.tolist()) @ gradient.mean(axis=0)
    found: list[int] = space.allowed[np.argsort(-gains, kind="stable")][: pool.size].tolist()
    return found


def narrowed(space: Space, ranked: Sequence[int]) -> Space:
    """The space of these tokens and those of its starts, or as it is where none are given."""
    if not ranked or not isinstance(space, TokenSpace):
        return space
    ids = tuple(dict.fromkeys(chain(ranked, *(start.ids for start in space.starts))))
    return replace(space, allowed=np.array(ids), ranked=ids)


def reference(task: Task, lm: FrozenLM, space: TokenSpace) -> TokenPrompt:
    """The prompt that a pool's gradient is taken at, which lies in the space.

    The task's hand prompt, after the commonest word where it is too short; where there is none, or
    it does not fit, the commonest word over and over, as AutoPrompt begins with masks and GCG with
    exclamation marks. It is the same for all methods and seeds.
    """
    filler = (common_words(lm, space.allowed) or space.allowed.tolist())[0]
    if task.hand_prompt:
        ids = task.written(lm, task.hand_prompt).ids
        prompt = TokenPrompt((filler,) * (space.shortest - len(ids)) + ids)
        if ids and space.contains(prompt):
            return prompt
        logger.info("the hand prompt is none here, so the gradient is taken at another prompt")
    return TokenPrompt((filler,) * space.length)
