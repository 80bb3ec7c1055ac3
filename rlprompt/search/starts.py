"""Where a search begins: a text, a prompt that was found elsewhere, or a start by name.

All become prompts of the space. One that is shorter than the space asks for is filled up before its
beginning, so that its text stays where a person would have written it, next to what follows.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import SoftPrompt, Start, TextPrompt, TokenPrompt, vector_prompt
from rlprompt.search.allocation import halve, halving_cost, mean_rewards
from rlprompt.search.objective import Objective
from rlprompt.search.pools import telling_words
from rlprompt.search.space import PrefixSpace, SoftSpace, Space, TextSpace, TokenSpace
from rlprompt.search.vocabulary import banned_tokens, common_words
from rlprompt.tasks.base import Task
from rlprompt.tasks.wording import Wording

logger = logging.getLogger(__name__)

V = TypeVar("V", bound=SoftSpace | PrefixSpace)

# Prompts that a start of words gives a token method: a quarter of the random pool that greedy
# search begins with at 3,200 rows on 32 examples.
DRAWN = 8
# The most common words, and the most telling, that prompts are drawn of.
COMMON, TELLING = 200, 50
# Of the budget, at most, that choosing among the starts of `auto` may cost.
SHARE = 1 / 5


@dataclass(frozen=True)
class Origin:
    """What starts are made from.

    Args:
        lm: The frozen model.
        task: What prompts are for.
        space: Token prompts of the lengths that are allowed, over the pool of tokens.
        known: All ids that token prompts may have, the pool's among them.
        banned: Ids and words that no start may use.
        rng: The only source of randomness.
    """

    lm: FrozenLM
    task: Task
    space: TokenSpace
    known: frozenset[int]
    banned: Collection[str | int]
    rng: np.random.Generator

    def drawn(self, words: Sequence[int], count: int) -> list[TokenPrompt]:
        """Prompts of these words alone, none where there are no words."""
        if not words:
            return []
        space = self.space.over(words)
        return [space.sample(self.rng) for _ in range(count)]


def hand(origin: Origin) -> list[TokenPrompt]:
    """The task's hand prompt."""
    text = origin.task.hand_prompt
    return [origin.task.written(origin.lm, text)] if text else []


def label_words(origin: Origin) -> list[TokenPrompt]:
    """The label words of all classes one after the other, as many as fit.

    Lester et al. (2021, arXiv 2104.08691) call it "class label" initialisation.
    """
    words = chain.from_iterable(origin.task.class_words.values())
    ids = chain.from_iterable(origin.task.written(origin.lm, word).ids for word in words)
    allowed = [token for token in ids if not _refused(origin, TokenPrompt((token,)))]
    return [TokenPrompt(allowed[: origin.space.length])] if allowed else []


def common(origin: Origin, count: int) -> list[TokenPrompt]:
    """Prompts drawn of the most common words.

    As Lester et al. (2021) draw rows of the most common tokens, of which they take 5,000.
    """
    return origin.drawn(common_words(origin.lm, origin.space.allowed)[:COMMON], count)


def telling(origin: Origin, count: int) -> list[TokenPrompt]:
    """Prompts drawn of the words that the train texts have more often than texts do."""
    words = telling_words(origin.lm, origin.task, origin.space.allowed)
    return origin.drawn(words[:TELLING], count)


def clusters(origin: Origin) -> list[TokenPrompt]:
    """Of each cluster of the train texts' words, by their embeddings, the word at its centre.

    The word and not the mean: a mean of many words is nearer zero than any word, and gradients at
    zero are of no use (`SoftSpace.from_lm`). The largest cluster comes last, next to the text's
    end.
    """
    lm = origin.lm
    words = np.array(telling_words(lm, origin.task, origin.space.allowed), dtype=np.int64)
    if len(words) <= origin.space.length:
        return [TokenPrompt(words)] if len(words) else []
    vectors = lm.embeddings()[words].astype(np.float64)
    # A seed of its own: the clusters are the task's, and not a matter of luck.
    centres, which = kmeans2(
        vectors, origin.space.length, minit="++", rng=np.random.default_rng(0), missing="warn"
    )
    sizes = np.bincount(which, minlength=len(centres))
    found = []
    for cluster in np.argsort(sizes, kind="stable"):
        members = np.flatnonzero(which == cluster)
        if len(members):
            distances = np.square(vectors[members] - centres[cluster]).sum(1)
            found.append(words[members[distances.argmin()]])
    return [TokenPrompt(found)]


def everything(origin: Origin, tokens: Sequence[int], *, soft: bool) -> list[TokenPrompt]:
    """The pool of `auto`, of each kind some, random `tokens` last: what fits the space."""
    kinds = (
        hand(origin),
        common(origin, DRAWN),
        [*(clusters(origin) if soft else ()), *telling(origin, DRAWN)],
        origin.drawn(tokens, DRAWN),
    )
    turns = chain.from_iterable(zip_longest(*kinds))
    fitting = []
    for prompt in (prompt for prompt in turns if prompt is not None):
        if why := _refused(origin, prompt, exact=not soft):
            logger.info("auto leaves out the start %r: it %s", origin.lm.decode(prompt.ids), why)
        else:
            fitting.append(prompt)
    return fitting


def token_starts(origin: Origin, starts: Sequence[Start]) -> TokenSpace:
    """The space with starts in it; tokens of a text that its pool lacks are added.

    Raises:
        ValueError: A start is too long, uses what is banned or what is no token of the space, or
            is one of vectors; or there is no such thing for this task.
    """
    space, made = origin.space, list[TokenPrompt]()
    for start in starts:
        if isinstance(start, SoftPrompt):
            raise ValueError(
                "a start of vectors has no text that token prompts could begin with; give these "
                "methods another, or compare methods that search vectors"
            )
        match start:
            case "vocabulary":
                continue
            case "common-words":
                found = _some(origin, start, common(origin, DRAWN))
            case "task-words":
                found = _some(origin, start, telling(origin, DRAWN))
            case "auto":
                found = everything(origin, space.allowed.tolist(), soft=False)
            case _:
                found = _fitting(origin, start, exact=True)
        made += (_filled(origin, prompt) for prompt in found)
    made = list(dict.fromkeys(made))
    pool = set(space.allowed.tolist())
    missing = list(dict.fromkeys(t for p in made for t in p.ids if t not in pool))
    allowed = np.append(space.allowed, missing).astype(np.int64)
    ranked = (*space.ranked, *missing) if space.ranked else ()
    return replace(space, allowed=allowed, ranked=ranked, starts=tuple(made))


def soft_starts(origin: Origin, starts: Sequence[Start], space: SoftSpace) -> SoftSpace:
    """The space around its starts, the first of them its `start`.

    Args:
        origin: What they are made from; its space has the soft prompts' length alone.
        starts: Names, texts and prompts.
        space: Around rows of the vocabulary, which a short start is filled up with.

    Raises:
        ValueError: A start is too long, uses what is banned, or has vectors of another width; or
            there is no such thing for this task.
    """
    made = list[NDArray[np.float32]]()
    table = origin.lm.embeddings()
    for start in starts:
        match start:
            case "vocabulary":
                made.append(space.start)
                continue
            case SoftPrompt():
                found: Sequence[TokenPrompt | SoftPrompt] = [_of_width(origin, start)]
            case "common-words":
                found = _some(origin, start, common(origin, 1))
            case "task-words":
                found = _some(origin, start, clusters(origin))
            case "auto":
                found = everything(origin, space.tokens or (), soft=True)
            case _:
                found = _fitting(origin, start, exact=False)
        for prompt in found:
            vectors = prompt.vectors if isinstance(prompt, SoftPrompt) else table[list(prompt.ids)]
            made.append(np.concatenate([space.start[: space.length - len(prompt)], vectors]))
    return _around(space, made)


def text_starts(lm: FrozenLM, task: Task | None, starts: Sequence[Start]) -> tuple[TextPrompt, ...]:
    """The starts of text prompts.

    Args:
        lm: The frozen model.
        task: What prompts are for; None where that is not known, and a text stands as it is.
        starts: Texts, prompts and names. `vocabulary` is none, and `auto` the hand prompt.

    Raises:
        ValueError: A start is one of vectors or drawn of tokens, or the task has no hand prompt.
    """
    wording, made = task or Wording(), list[TextPrompt]()
    for start in starts:
        match start:
            case "vocabulary":
                continue
            case "hand" | "auto":
                hand = task.hand_prompt if task else ""
                if hand:
                    made.append(TextPrompt(wording.placed(lm, hand)))
                elif start == "hand":
                    raise ValueError(_lacking("hand", task, lm))
            case "common-words" | "task-words" | "label-words":
                raise ValueError(
                    f"a start of {start} is one of tokens, of which text prompts are not made; "
                    "give these methods a text, or hand"
                )
            case SoftPrompt():
                raise ValueError(
                    "a start of vectors has no text that text prompts could begin with"
                )
            case TextPrompt():
                made.append(start)
            case TokenPrompt():
                made.append(TextPrompt(wording.described(lm, start)[0]))
            case text:
                made.append(TextPrompt(wording.placed(lm, text)))
    return tuple(dict.fromkeys(made))


def best_starts(objective: Objective, space: Space, starts: Sequence[Start]) -> Space:
    """The space with the starts that are worth it, the best first, chosen on train.

    Of several prompts of vectors, and of the token prompts of `auto`, by successive halving
    (`halve`), paid from the budget; other token prompts are left to the method. Of `auto` so many
    take part as `SHARE` of the budget covers. A single prompt of vectors that was asked for is
    scored, so that what is found is no worse. What was scored has its rewards beside it (`known`).

    Raises:
        BudgetExhausted: The budget does not cover them; that ends the search.
    """
    if isinstance(space, TextSpace):
        return space
    auto = "auto" in starts
    pool: list[TokenPrompt] | list[SoftPrompt]
    if isinstance(space, TokenSpace):
        pool = list(space.starts) if auto else []
    else:
        pool = [vector_prompt(vectors) for vectors in space.starts]
    rows = SHARE * objective.budget.rows
    while auto and len(pool) > 1 and halving_cost(objective, len(pool)) > rows:
        pool.pop()
    if isinstance(space, TokenSpace) and len(pool) < 2:
        return replace(space, starts=space.starts[:1]) if auto else space  # the method scores it
    if tuple(starts) == ("vocabulary",):
        return space
    best = halve(objective, pool)
    if len(pool) > 1:
        logger.info("of %d starts, %d came through", len(pool), len(best.prompts))
    if isinstance(space, TokenSpace):
        tokens = mean_rewards(best, TokenPrompt)
        return replace(space, starts=tuple(tokens), known=tokens)
    vectors = mean_rewards(best, SoftPrompt)
    return replace(_around(space, [prompt.vectors for prompt in vectors]), known=vectors)


def _around(space: V, starts: Sequence[NDArray[np.float32]]) -> V:
    """The space around the first of its starts."""
    first, *others = starts
    return replace(space, start=first, others=np.stack(others) if others else None)


def _fitting(origin: Origin, start: Start, *, exact: bool) -> list[TokenPrompt]:
    """The prompt of a text, of a name or found elsewhere, if it fits the space."""
    assert not isinstance(start, SoftPrompt | TextPrompt)
    if start == "hand":
        found = _some(origin, start, hand(origin))
    elif start == "label-words":
        found = _some(origin, start, label_words(origin))
    elif isinstance(start, TokenPrompt):
        found = [start]
    else:
        found = [origin.task.written(origin.lm, start)]
    for prompt in found:
        why = _refused(origin, prompt, exact=exact)
        if why:
            raise ValueError(f"the start {origin.lm.decode(prompt.ids)!r} {why}")
    return found


def _some(origin: Origin, name: str, found: list[TokenPrompt]) -> list[TokenPrompt]:
    """The prompts of a named start, if there are any."""
    if found:
        return found
    raise ValueError(_lacking(name, origin.task, origin.lm))


def _lacking(name: str, task: Task | None, lm: FrozenLM) -> str:
    """What to say of a named start that there is none of."""
    lacks = {
        "hand": "no hand prompt (`hand_prompt`)",
        "label-words": "no label words that are allowed",
        "common-words": "no allowed token that is a word",
        "task-words": "no allowed words that its train texts have more often than others",
    }
    return (
        f"{f'task {task.name!r} on {lm.name}' if task else 'an unknown task'} has {lacks[name]} to "
        f"start from; give another start than {name}"
    )


def _refused(origin: Origin, prompt: TokenPrompt, *, exact: bool = True) -> str:
    """Why a prompt is no start here, or "".

    Args:
        origin: Where it would be one.
        prompt: The prompt.
        exact: Whether it must be of tokens that token prompts are made of: vectors of others, such
            as a line break, are as good as any.
    """
    lm, longest = origin.lm, origin.space.length
    if not len(prompt):
        return "has no tokens"
    if len(prompt) > longest:
        return (
            f"has {len(prompt)} tokens, and the prompt has {longest} at most: shorten it, or give "
            f"`length: {len(prompt)}` or more"
        )
    if found := banned_tokens(lm, prompt, origin.banned):
        return f"uses {', '.join(map(repr, found))}, which `banned` forbids: change one of the two"
    if exact and (strange := set(prompt.ids) - origin.known):
        texts = ", ".join(repr(lm.decode([token])) for token in sorted(strange))
        return f"uses {texts}, of which no token prompt is made here: leave that out"
    return ""


def _filled(origin: Origin, prompt: TokenPrompt) -> TokenPrompt:
    """A prompt that is long enough, with tokens drawn from the space before it."""
    lacking = origin.space.shortest - len(prompt)
    if lacking <= 0:
        return prompt
    return TokenPrompt((*origin.rng.choice(origin.space.allowed, lacking), *prompt.ids))


def _of_width(origin: Origin, prompt: SoftPrompt) -> SoftPrompt:
    """A start of vectors, if it fits the model and the length."""
    width, longest = prompt.vectors.shape[1], origin.space.length
    if width != origin.lm.hidden_size:
        raise ValueError(
            f"the start has vectors of width {width}, and those of {origin.lm.name} have "
            f"{origin.lm.hidden_size}: another model's vectors mean nothing here; give a text"
        )
    if not 1 <= len(prompt) <= longest:
        raise ValueError(
            f"the start has {len(prompt)} vectors, and the prompt has {longest}: give "
            f"`length: {max(1, len(prompt))}` or more"
        )
    return prompt
