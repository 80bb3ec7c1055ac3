"""Makes the space of a search: of a kind, for a model and a task, with the starts in it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Length, Pool, Start, TextPrompt, checked_starts
from rlprompt.search.pools import Hidden, ranked_pool
from rlprompt.search.space import PrefixSpace, ReadKeys, SoftSpace, Space, TextSpace, TokenSpace
from rlprompt.search.starts import Origin, soft_starts, text_starts, token_starts
from rlprompt.search.vocabulary import commonest
from rlprompt.tasks.base import Task
from rlprompt.tasks.fitting import room
from rlprompt.template import Template
from rlprompt.types import PromptKind


def make_space(
    kind: PromptKind,
    lm: FrozenLM,
    length: int | Length,
    banned: Collection[str | int],
    rng: np.random.Generator,
    task: Task | None = None,
    *,
    start: Start | Sequence[Start] = "vocabulary",
    tokens: str | Mapping[str, int] | Pool = "all",
    hidden: Hidden | None = None,
    read_keys: ReadKeys | None = None,
) -> Space:
    """The space of a kind for a model, of the task's own tokens if it has some.

    Args:
        kind: Of its prompts.
        lm: The frozen model.
        length: As for `search`.
        banned: As for `search`.
        rng: Draws what is random in the starts.
        task: What prompts are for; left out, `tokens` and starts that need one stay as they come.
        start: As for `search`; several are all in the space (`best_starts` chooses).
        tokens: As for `search`; `gradient` are all, until it is paid for.
        hidden: What the model makes of texts (`Objective.hidden`), for what it expects after them;
            None leaves that out of the pool.
        read_keys: What the layers make of soft prompts (`Objective.keys_and_values`), for prefix
            prompts; None asks the model.

    Raises:
        ValueError: No token is allowed, or a start is none in this space; or prefix prompts are
            none for the model or for the task's template; or a ban cannot be kept.
    """
    given = checked_starts(start)
    if kind == "prefix":
        _check_leading(lm, task)
        around = make_space(
            "soft", lm, length, banned, rng, task, start=given, tokens=tokens, hidden=hidden
        )
        assert isinstance(around, SoftSpace)
        return PrefixSpace.around(lm, around, read_keys or lm.keys_and_values)
    if kind == "text":
        return _text_space(lm, Length.of(length), banned, task, given)
    read = [lm.fed(one) if isinstance(one, TextPrompt) else one for one in given]
    starts = sorted(read, key=lambda one: one == "auto")  # trimmed from the end
    pool, lengths = Pool.of(tokens), Length.of(length)
    own = None if task is None else task.tokens(lm)
    space = TokenSpace.from_lm(lm, lengths.at_most if kind == "soft" else lengths, banned, own)
    known = space.allowed.tolist()
    pooled = known
    # What a gradient ranks is known once that is paid for (`gradient_tokens`).
    whole = pool.kind in ("all", "gradient")
    if task is not None and not whole:
        pooled = ranked_pool(lm, task, known, pool, hidden)
    if kind == "soft":
        if whole and own is None:
            pooled = commonest(lm, known)
        soft = SoftSpace.from_lm(lm, lengths, rng, pooled)
        if task is None:
            return soft
        return soft_starts(Origin(lm, task, space, frozenset(known), banned, rng), starts, soft)
    if task is None:
        return space
    if not whole:
        space = replace(space, allowed=np.array(pooled), ranked=tuple(pooled))
    return token_starts(Origin(lm, task, space, frozenset(known), banned, rng), starts)


def _text_space(
    lm: FrozenLM,
    length: Length,
    banned: Collection[str | int],
    task: Task | None,
    starts: Sequence[Start],
) -> TextSpace:
    """Texts of a range's length at most, and of no more than the longest example leaves room for.

    An exact number says how many tokens token prompts have, and nothing of texts.
    """
    said = None if length.simplest == length.at_most else length.at_most
    if lm.served and said is not None:
        raise ValueError(
            f"`length` says {said} tokens at most, and {lm.name}, served by {lm.where}, does not "
            "tell how many a text has; leave it out"
        )
    left = None if task is None else room(task, lm)
    limits = [one for one in (said, left) if one is not None]
    made = text_starts(lm, task, starts)
    return TextSpace.from_lm(lm, min(limits, default=None), made, banned)


def _check_leading(lm: FrozenLM, task: Task | None) -> None:
    """Refuse prefix prompts in a template that has text before the prompt.

    Tasks without a template are refused when they are asked, if they have such texts.

    Raises:
        ValueError: It has.
    """
    template = getattr(task, "template", None)
    if isinstance(template, Template):
        lm.limits.check_leading(template.query(dict.fromkeys(template.fields, "x"), lm))
