"""What a search method is: settings, and a `run` on an objective and a space."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from typing import Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np

from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt
from rlprompt.search.blocks import Block
from rlprompt.search.objective import Evaluation, Objective
from rlprompt.search.shown import usable_examples
from rlprompt.search.space import Space, TextSpace
from rlprompt.tasks.base import Task, tells_answers
from rlprompt.types import Loss, PromptKind

SpaceT = TypeVar("SpaceT", bound=Space, contravariant=True)

Proposals = Generator[Sequence[Prompt], Evaluation, None]
"""What `AskTell.ask` gives: it yields prompts, and is sent what they earned."""

LATER: Mapping[str, bool] = {"later": True}
"""`metadata` of a setting that a later version adds to a method: see `recorded`."""


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

    Before anything is paid, a class with `needs_gradient = True` has a task without one refused
    (that of its setting `loss`, if it has such a setting), one with `needs_next_token = True` a
    model that tells none (`FrozenLM.tells_next`), one with `needs_demonstrations = True` a task
    that has no examples to show (`Task.showable`), and one with `needs_answers = True`, which may
    depend on its settings, a task that does not tell what the model answers (`Task.measure`).
    Its `check_task(task)`, if it has one, may refuse the task, too; its `prepare(lm)`, if it has
    one, the model, and fetch what else is needed.
    Its `resolved()`, if it has one, is the method with a value for every setting that stands for
    one, such as those that a preset decides: what results and studies record.

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

    >>> from rlprompt.search.space import TokenSpace
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


def recorded(settings: Any) -> dict[str, Any]:
    """The settings of a dataclass that results and studies record, by name.

    All of them; but of those that came `LATER` only what is not the default, so that a search as it
    was before has the same settings, and by them is the same search: a study that a version without
    the setting began goes on, unless that version told models or tasks by less.

    >>> from dataclasses import dataclass, field
    >>> @dataclass(frozen=True)
    ... class Draw:
    ...     batch: int = 8
    ...     halving: float | None = field(default=None, metadata=LATER)
    >>> recorded(Draw()), recorded(Draw(halving=0.5))
    ({'batch': 8}, {'batch': 8, 'halving': 0.5})
    """
    fields = dataclasses.fields(settings)
    values = {one.name: getattr(settings, one.name) for one in fields}
    usual = {one.name: one.default for one in fields if one.metadata.get("later")}
    return {k: v for k, v in values.items() if k not in usual or v != usual[k]}


def resolved(optimiser: Optimiser[Any]) -> Optimiser[Any]:
    """The method with a value for every setting that stands for one; itself where none does."""
    resolve = getattr(optimiser, "resolved", None)
    return resolve() if callable(resolve) else optimiser


def check_model(optimiser: Optimiser[Any], lm: FrozenLM) -> None:
    """Refuse a method that writes with the model where that tells no next token, or is not ready.

    And one that searches for anything but texts on a model that is on a server, or feeds vectors to
    one that does not take them, or follows a gradient that one does not give.

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
    if optimiser.searches == "soft" and (obstacle := lm.vectors_obstacle):
        raise ValueError(
            f"{type(optimiser).__name__} feeds vectors to the model, and soft prompts cannot be "
            f"scored on {lm.name}: {obstacle}"
        )
    climbs = getattr(optimiser, "needs_gradient", False) and optimiser.searches != "text"
    if climbs and (obstacle := lm.gradient_obstacle):
        raise ValueError(
            f"{type(optimiser).__name__} follows a gradient, and {lm.name} gives none: {obstacle}; "
            "take a method that needs only rewards, such as grow or ppo"
        )
    if (prepare := getattr(optimiser, "prepare", None)) is not None:
        prepare(lm)


def check_task(optimiser: Optimiser[Any], task: Task, name: str = "") -> None:
    """Refuse a method for which a task lacks something: text of vectors, slope, examples, answers.

    Args:
        optimiser: The method.
        task: What it would search on.
        name: What the method is called, if not by its class.

    Raises:
        ValueError: It is such a method, and such a task.
    """
    name = name or type(optimiser).__name__
    if task.tokens_only and optimiser.searches not in ("tokens", "text"):
        raise ValueError(
            f"task {task.name!r} reads the text of a prompt, and the vectors that {name} would "
            "search have none; use methods that search tokens or text"
        )
    if getattr(optimiser, "needs_gradient", False):
        # Of methods without such a setting it is not known; `Objective` asks before it charges.
        _check_slope(task, name, getattr(optimiser, "loss", "cross_entropy"))
    if getattr(optimiser, "needs_demonstrations", False) and not task.showable():
        way = "begin its template with {prompt}, as in '{prompt}{text}' and not in a chat"
        if not task.has("showable"):
            way = "tasks of its kind show none"
        elif getattr(task, "leads", False):
            way = "give references"
        raise ValueError(
            f"{name} shows train examples with their answers before the text, and task "
            f"{task.name!r} has none to show there: {way}, or take another method"
        )
    if getattr(optimiser, "needs_answers", False) and not tells_answers(task):
        raise ValueError(
            f"{name} counts what the model answers, as it is set, and task {task.name!r} does not "
            "tell that (no method measure); leave that setting out, such as `entropy` of genetic, "
            "or take a task of classes"
        )
    if (own := getattr(optimiser, "check_task", None)) is not None:
        try:
            own(task)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error


def check_space(optimiser: Optimiser[Any], lm: FrozenLM, task: Task, space: Space) -> None:
    """Refuse a method whose prompts show train examples where none can be shown in the space.

    Raises:
        ValueError: It is such a method, and such a space (`usable_examples`).
    """
    if getattr(optimiser, "needs_demonstrations", False) and isinstance(space, TextSpace):
        usable_examples(lm, task, space)


def _check_slope(task: Task, name: str, loss: Loss | None) -> None:
    """Refuse a method that climbs where the task has no slope; no loss stands for the reward."""
    if task.has("rewards_with_grad"):
        return
    if not task.has("cross_entropy_with_grad"):
        raise ValueError(
            f"task {task.name!r} has no gradient, which {name} would follow; "
            "use methods that need only rewards, such as grow or ppo"
        )
    if loss != "cross_entropy":
        raise ValueError(
            f"the reward of task {task.name!r} has no gradient, which {name} would follow; set "
            "`loss: cross_entropy` there, or use methods that need only rewards, such as grow or "
            "ppo"
        )
