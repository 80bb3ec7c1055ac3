"""What a search method is: settings, and a `run` on an objective and a space."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np

from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Length, Pool, Prompt, Start, TextPrompt, checked_starts
from rlprompt.search.blocks import Block
from rlprompt.search.objective import Evaluation, Objective
from rlprompt.search.pools import Hidden, ranked_pool
from rlprompt.search.space import (
    PrefixSpace,
    ReadKeys,
    SoftSpace,
    Space,
    TextSpace,
    TokenSpace,
    commonest,
)
from rlprompt.search.starts import Origin, soft_starts, text_starts, token_starts
from rlprompt.tasks.base import Task
from rlprompt.tasks.fitting import room
from rlprompt.template import Template
from rlprompt.types import PromptKind

SpaceT = TypeVar("SpaceT", bound=Space, contravariant=True)

Proposals = Generator[Sequence[Prompt], Evaluation, None]
"""What `AskTell.ask` gives: it yields prompts, and is sent what they earned."""


@runtime_checkable
class Optimiser(Protocol[SpaceT]):
    """A search method: a frozen dataclass of its settings.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Draw:
    ...     batch: int = 8
    ...     searches = "tokens"
    ...
    ...     def run(self, objective, space, rng):
    ...         while True:  # until `evaluate` raises `BudgetExhausted`
    ...             objective.evaluate([space.sample(rng) for _ in range(self.batch)])
    >>> isinstance(Draw(), Optimiser)
    True

    A class with `needs_gradient = True` has a study refuse a task without, before anything is paid,
    one with `needs_next_token = True` a model that tells none (`FrozenLM.tells_next`), and one with
    `needs_demonstrations = True` a task that has no examples to show (`Task.showable`).
    Its `prepare(lm)`, if it has one, may refuse the model, too, and fetch what else is needed.

    Attributes:
        searches: The space that `run` wants, `tokens`, `soft`, `prefix` or `text`.
    """

    searches: ClassVar[PromptKind]

    def run(self, objective: Objective, space: SpaceT, rng: np.random.Generator) -> None:
        """Search until the budget is spent (`BudgetExhausted`) or there is nothing left to try.

        Args:
            objective: The only way to a reward.
            space: Where to look, a `TokenSpace`, `SoftSpace`, `PrefixSpace` or `TextSpace`.
            rng: The only source of randomness: same generator, same search.
        """
        ...


class AskTell(ABC, Generic[SpaceT]):
    """An optimiser that asks for rewards of a batch and is told them, and needs nothing else.

    `ask` is a generator, so the state of a search is its local variables:

        evaluation = yield prompts
        evaluation = yield Block(prompts, examples)  # on some train examples

    >>> class Draw(AskTell[TokenSpace]):
    ...     searches = "tokens"
    ...
    ...     def ask(self, space, n_prompts, rng):
    ...         for _ in range(n_prompts):
    ...             yield [space.sample(rng)]
    >>> space = TokenSpace(length=2, allowed=[5])
    >>> next(Draw().ask(space, 3, np.random.default_rng(0)))
    [TokenPrompt(ids=(5, 5))]
    """

    @abstractmethod
    def ask(self, space: SpaceT, n_prompts: int, rng: np.random.Generator) -> Proposals:
        """Yield batches of prompts, or a `Block` of them, and receive their evaluations.

        Args:
            space: Where to look.
            n_prompts: Prompts that the budget covers.
            rng: The only source of randomness.
        """

    def run(self, objective: Objective, space: SpaceT, rng: np.random.Generator) -> None:
        """See `Optimiser.run`."""
        proposals = self.ask(space, objective.affordable(), rng)
        prompts = next(proposals, None)
        while prompts is not None:
            examples = prompts.examples if isinstance(prompts, Block) else None
            # Outside `try`: a task may raise it too.
            evaluation = objective.evaluate(prompts, examples)
            try:
                prompts = proposals.send(evaluation)
            except StopIteration:
                return


def check_model(optimiser: Optimiser[Any], lm: FrozenLM) -> None:
    """Refuse a method that writes with the model where that tells no next token, or is not ready.

    And one that searches for anything but texts on a model that is on a server.

    Raises:
        ValueError: It is such a method, and such a model; or as `prepare` of the method says.
    """
    if lm.served and optimiser.searches != "text":
        raise ValueError(
            f"{type(optimiser).__name__} searches prompts of the kind {optimiser.searches}, and "
            f"{lm.name}, served by {lm.where}, takes texts alone; take a method that searches "
            "texts (`prompt: {kind: text}`), or a model on this machine"
        )
    if getattr(optimiser, "needs_next_token", False) and not lm.tells_next:
        raise ValueError(
            f"{type(optimiser).__name__} writes with the model, and {lm.name}, which is {lm.kind}, "
            "tells no next token; take a causal model, or a method that needs none, such as ppo"
        )
    if (prepare := getattr(optimiser, "prepare", None)) is not None:
        prepare(lm)


def check_shows(optimiser: Optimiser[Any], task: Task) -> None:
    """Refuse a method whose prompts show train examples where the task has none to show.

    Raises:
        ValueError: It is such a method, and such a task.
    """
    if getattr(optimiser, "needs_demonstrations", False) and not task.showable():
        raise ValueError(
            f"{type(optimiser).__name__} shows train examples with their answers before the text, "
            f"and task {task.name!r} has none to show there: begin its template with {{prompt}}, "
            "as in '{prompt}{text}' and not in a chat, and give references, or take another method"
        )


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
        tokens: As for `search`.
        hidden: What the model makes of texts (`Objective.hidden`), for what it expects after them;
            None leaves that out of the pool.
        read_keys: What the layers make of soft prompts (`Objective.keys_and_values`), for prefix
            prompts; None asks the model.

    Raises:
        ValueError: No token is allowed, or a start is none in this space; or prefix prompts are
            none for the model or for the task's template.
    """
    if kind == "prefix":
        check_leading(lm, task)
        around = make_space(
            "soft", lm, length, banned, rng, task, start=start, tokens=tokens, hidden=hidden
        )
        assert isinstance(around, SoftSpace)
        return PrefixSpace.around(lm, around, read_keys or lm.keys_and_values)
    if kind == "text":
        return _text_space(lm, Length.of(length), task, checked_starts(start))
    read = [lm.fed(one) if isinstance(one, TextPrompt) else one for one in checked_starts(start)]
    starts = sorted(read, key=lambda one: one == "auto")  # trimmed from the end
    pool, lengths = Pool.of(tokens), Length.of(length)
    own = None if task is None else task.tokens(lm)
    space = TokenSpace.from_lm(lm, lengths.at_most if kind == "soft" else lengths, banned, own)
    known = space.allowed.tolist()
    pooled = known
    if task is not None and pool.kind != "all":
        pooled = ranked_pool(lm, task, known, pool, hidden)
    if kind == "soft":
        if pool.kind == "all" and own is None:
            pooled = commonest(lm, known)
        soft = SoftSpace.from_lm(lm, lengths, rng, pooled)
        if task is None:
            return soft
        return soft_starts(Origin(lm, task, space, frozenset(known), banned, rng), starts, soft)
    if task is None:
        return space
    if pool.kind != "all":
        space = replace(space, allowed=np.array(pooled), ranked=tuple(pooled))
    return token_starts(Origin(lm, task, space, frozenset(known), banned, rng), starts)


def _text_space(
    lm: FrozenLM, length: Length, task: Task | None, starts: Sequence[Start]
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
    return TextSpace.from_lm(lm, min(limits, default=None), text_starts(lm, task, starts))


def check_leading(lm: FrozenLM, task: Task | None) -> None:
    """Refuse prefix prompts in a template that has text before the prompt.

    Tasks without a template are refused when they are asked, if they have such texts.

    Raises:
        ValueError: It has.
    """
    template = getattr(task, "template", None)
    if isinstance(template, Template):
        lm.limits.check_leading(template.query(dict.fromkeys(template.fields, "x"), lm))
