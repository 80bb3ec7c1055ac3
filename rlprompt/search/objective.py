"""The single way to a reward: charges the budget, asks the task, keeps the ledger.

One *row* is one prompt scored on one example, or on another text that the task needs for the prompt
(`Task.extra_rows`); a gradient costs three rows a row (a forward pass and about two for the
backward), and what else the task computes for it (`Task.gradient_rows`). Prompts may be scored on a
part of the examples, a block, and cost that much less; means over parts never stand beside means
over all, so the ledger knows a prompt once all its parts are paid for. A batch is charged before it
is computed and repeats are charged again, so equal budgets mean equal information. Nothing paid for
is lost: where the budget ends inside a batch, the prompts that still fit are scored and travel with
`BudgetExhausted`. Answers that an earlier process paid for are charged all the same: a search that
was killed begins again, is told what it was told before, and so comes to where it was (`Store`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rlprompt.data.examples import balanced
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import EmbeddedPrompt, Prompt, SoftPrompt, TextPrompt, TokenPrompt
from rlprompt.search.blocks import AskedBlock, PartialRewards, checked_places
from rlprompt.search.budget import Budget, Ledger, Scored
from rlprompt.search.evaluation import n_read
from rlprompt.search.memo import Answer, Memo, TrainQuestion
from rlprompt.search.model_queries import ModelQueries
from rlprompt.tasks.base import LARGEST, Task, prompt_rows, tells_answers, unusable
from rlprompt.tasks.completed import as_task
from rlprompt.types import Floats, Loss, Outputs

P = TypeVar("P", bound=Prompt)

# Prompts scored between two looks at the clock and the ledger: enough to fill a forward pass.
CHUNK = 32


@dataclass(frozen=True)
class Evaluation:
    """Prompts with their rewards.

    >>> from rlprompt import TokenPrompt
    >>> prompts = TokenPrompt((5,)), TokenPrompt((6, 7))
    >>> Evaluation(prompts, np.array([[0.0, 1.0], [1.0, 1.0]])).rewards.tolist()
    [0.5, 1.0]

    Attributes:
        prompts: (P,) of them, in the order asked.
        per_example: (P, E) float64, higher is better.
        examples: Places in train of the E examples, in the order asked; None for all in theirs.
        outputs: (P, E) texts that the model wrote, or answered where that was asked for; None
            where a reward is no matter of texts, and beside gradients.
    """

    prompts: tuple[Prompt, ...]
    per_example: Floats
    examples: tuple[int, ...] | None = field(default=None, kw_only=True)
    outputs: Outputs | None = field(default=None, kw_only=True, repr=False)

    @property
    def rewards(self) -> Floats:
        """Mean reward of each prompt on these examples, (P,) float64."""
        return self.per_example.mean(axis=1) if len(self.prompts) else np.zeros(0)


@dataclass(frozen=True)
class GradientEvaluation(Evaluation):
    """Prompts with their rewards and gradients.

    >>> prompts, slopes = (TokenPrompt((5,)),), np.ones((1, 1, 32), np.float32)
    >>> GradientEvaluation(prompts, np.array([[0.0, 1.0]]), slopes).gradients.shape
    (1, 1, 32)

    Attributes:
        gradients: (P, *shape of its vectors) float32: the slope, along its vectors or its tokens'
            embeddings, of each prompt's mean reward on these examples, or of what was asked for.
    """

    gradients: NDArray[np.float32]


class BudgetExhausted(Exception):  # noqa: N818  # not an error: how a search ends
    """The budget does not cover what was asked.

    An optimiser need not catch it: `search` does, and everything paid for is in the ledger.

    >>> from rlprompt import TokenPrompt
    >>> try:
    ...     raise BudgetExhausted(Evaluation((TokenPrompt((5,)),), np.array([[0.0, 1.0]])))
    ... except BudgetExhausted as spent:
    ...     spent.evaluation.rewards.tolist()
    [0.5]

    Attributes:
        evaluation: Answers to the prompts that it still covered, the first ones asked.
    """

    def __init__(self, evaluation: Evaluation) -> None:
        super().__init__(f"budget exhausted; {len(evaluation.prompts)} prompts were still scored")
        self.evaluation = evaluation


class Objective(ModelQueries):
    """Scores prompts on a task's train split, against a budget.

    >>> from rlprompt import Budget, Example, Objective, Splits, TokenPrompt
    >>> class Sevens:
    ...     name = fingerprint = "sevens"
    ...     splits = Splits(*([Example({"text": part}, "yes")] for part in "abc"))
    ...
    ...     def rewards(self, lm, prompts, examples):
    ...         return [[prompt.ids.count(7)] * len(examples) for prompt in prompts]
    >>> objective = Objective(Sevens(), None, Budget(10))  # this task asks no model
    >>> objective.evaluate([TokenPrompt((7, 7)), TokenPrompt((1, 7))]).rewards.tolist()
    [2.0, 1.0]
    >>> objective.remaining, objective.ledger.best_reward
    (8, 2.0)

    A part of the examples costs that part; the ledger knows the prompt once all parts are there:

    >>> sevens = TokenPrompt((7, 7, 7))
    >>> objective = Objective(Sevens(), None, Budget(10))
    >>> objective.evaluate([sevens], examples=[0]).rewards.tolist(), objective.remaining
    ([3.0], 9)

    Args:
        task: What a prompt is worth.
        lm: The frozen model.
        budget: What may be spent.
        on_progress: Called after each chunk of scored prompts.
        memo: Where answers are looked up before the task is asked. They are charged and
            recorded as if they were new, so a search cannot tell them apart.
        stops: Whether there is reason to stop besides the budget; asked when that is.

    Attributes:
        waited: Seconds that this process has waited for answers, new or found, and for `stops`.

    Raises:
        ValueError: The budget does not cover one prompt.
    """

    def __init__(
        self,
        task: Task,
        lm: FrozenLM,
        budget: Budget,
        on_progress: Callable[[Ledger], None] | None = None,
        memo: Memo | None = None,
        stops: Callable[[Ledger], bool] | None = None,
    ) -> None:
        self.task = task = as_task(task)
        self.lm = lm
        self.budget = budget
        self.ledger = Ledger()
        self._examples = task.splits.train
        self.waited = 0.0
        self._on_progress = on_progress
        self._memo = memo
        self._stops = stops
        self._partial = PartialRewards(self.n_examples, not task.scored_together)
        self._generates = task.has("rewards_with_outputs")
        budget.check_covers(task)

    def __deepcopy__(self, memo: dict[int, Any]) -> Objective:
        """Itself: a copy would be a second budget, and a second model in memory.

        Gymnasium copies an environment's arguments at every look at its `spec`.
        """
        return self

    @property
    def n_examples(self) -> int:
        """Train examples, E."""
        return len(self._examples)

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Places of all train examples, in the order in which blocks are cut for all rivals.

        Every beginning has all classes as evenly as can be (`balanced`), by their order in train.
        """
        return tuple(balanced(self._examples, range(self.n_examples)))

    @property
    def remaining(self) -> int:
        """Rows left."""
        return self.budget.rows - self.ledger.used

    def cost(self, *, loss: Loss | None = None, examples: int | None = None) -> int:
        """Rows of one prompt.

        Args:
            loss: What its gradient is taken of; None without one.
            examples: Their number, 1 to E; None for all.

        Raises:
            ValueError: There are not so many examples.
        """
        count = self.n_examples if examples is None else examples
        if not 1 <= count <= self.n_examples:
            raise ValueError(f"a block has 1 to {self.n_examples} examples here, got {examples}")
        return prompt_rows(self.task, count, loss=loss)

    def affordable(self, *, loss: Loss | None = None) -> int:
        """Prompts that the rest of the budget covers, on all examples; `loss` as for `cost`."""
        return self.remaining // self.cost(loss=loss)

    def evaluate(
        self,
        prompts: Sequence[Prompt],
        examples: Sequence[int] | None = None,
        *,
        told: bool = False,
    ) -> Evaluation:
        """Score prompts on every train example, or on some.

        Args:
            prompts: (P,) of them.
            examples: Distinct places in train, in any order; None for all.
            told: Whether `outputs` are to be what the model answers, a class too (`Task.measure`).

        Raises:
            BudgetExhausted: Not all of them were covered; the answers to those that were are in it.
            ValueError: The task gave a reward that is no number, or of the wrong shape; or the
                examples are not places in train, each given once.
        """
        block = self._block(examples)
        covered = self._charge(prompts, block, None)
        parts, written = [np.zeros((0, block.size))], list[Sequence[str]]()
        for start in range(0, len(covered), CHUNK):
            chunk = covered[start : start + CHUNK]
            answer = self._answer(chunk, block, None, told=told)
            self._enter(chunk, block, None, answer, len(covered) - start)
            parts.append(answer.per_example)
            written += answer.outputs or ()
        per_example = block.as_asked(np.concatenate(parts))
        outputs = block.texts_as_asked(written) if len(written) == len(covered) > 0 else None
        evaluation = Evaluation(tuple(covered), per_example, examples=block.asked, outputs=outputs)
        if len(covered) < len(prompts):
            raise BudgetExhausted(evaluation)
        return evaluation

    def evaluate_with_grad(
        self,
        prompts: Sequence[Prompt],
        examples: Sequence[int] | None = None,
        *,
        loss: Loss = "reward",
    ) -> GradientEvaluation:
        """Score prompts and take the gradient of each one's mean reward, or of another mean.

        Args:
            prompts: (P,) of them, of one length. Of token prompts the task is asked as of the soft
                prompts of their embeddings, which earn the same but for rounding; what they earned
                is recorded as theirs.
            examples: As for `evaluate`; the gradient is that of the mean over these.
            loss: What the gradient is of; the rewards are the task's own all the same, from the
                same forward pass. `cross_entropy` where the task has it
                (`Task.cross_entropy_with_grad`).

        Raises:
            BudgetExhausted: As for `evaluate`; what it carries has gradients.
            ValueError: As for `evaluate`, or the task has no such gradient, or the prompts differ
                in length or are empty.
        """
        if loss == "cross_entropy" and not self.task.has("cross_entropy_with_grad"):
            raise ValueError(
                f"task {self.task.name!r} has no gradient of a cross-entropy (no method "
                "cross_entropy_with_grad); leave the loss at `reward`"
            )
        if loss == "reward" and not self.task.has("rewards_with_grad"):
            if self.task.has("cross_entropy_with_grad"):
                raise ValueError(
                    f"the reward of task {self.task.name!r} has no gradient, and its cross-entropy "
                    "has one; set `loss: cross_entropy`"
                )
            raise ValueError(
                f"task {self.task.name!r} has no gradient (no method rewards_with_grad); "
                "use a method that needs rewards only"
            )
        if any(isinstance(prompt, TextPrompt) for prompt in prompts):
            raise ValueError(
                "a text has no gradient; ask for that of its tokens (`FrozenLM.fed`), or of vectors"
            )
        if prompts and (len({len(prompt) for prompt in prompts}) > 1 or not len(prompts[0])):
            raise ValueError(
                "a gradient is taken of prompts of one length, 1 or more, got "
                f"{sorted({len(prompt) for prompt in prompts})}; ask for each length by itself"
            )
        block = self._block(examples)
        covered = self._charge(prompts, block, loss)
        shape = self._soft(prompts[:1])[0].vectors.shape if prompts else (0, 0)
        gradients = np.zeros((0, *shape), np.float32)
        per_example = np.zeros((0, block.size))
        if covered:
            answer = self._answer(covered, block, loss)
            self._enter(covered, block, loss, answer, len(covered))
            assert answer.gradients is not None
            per_example, gradients = block.as_asked(answer.per_example), answer.gradients
        evaluation = GradientEvaluation(
            tuple(covered), per_example, gradients, examples=block.asked
        )
        if len(covered) < len(prompts):
            raise BudgetExhausted(evaluation)
        return evaluation

    def feedback(self, evaluation: Evaluation) -> Outputs | None:
        """What the task says in words of prompts that were scored, for no rows (`Task.feedback`).

        Args:
            evaluation: What `evaluate` gave.

        Returns:
            (P, E) texts in the order of the evaluation; None where the task says nothing.
        """
        places = evaluation.examples
        examples = self._examples if places is None else [self._examples[i] for i in places]
        return self.task.feedback(self.lm, evaluation.prompts, examples, evaluation.outputs)

    def answers(self, prompt: Prompt, examples: Sequence[int]) -> tuple[str, ...] | None:
        """What the model answers under a prompt, for the rows of scoring it there once more.

        Where examples are scored together (`Task.scored_together`) an answer depends on the others,
        so all of train is scored for it.

        Args:
            prompt: The prompt.
            examples: Distinct places in train, in any order.

        Returns:
            (E,) classes, or what it wrote; None where the task does not tell (`Task.measure`), for
            no rows where it has no method that could.

        Raises:
            BudgetExhausted: It does not cover that.
            ValueError: As for `evaluate`.
        """
        if not tells_answers(self.task):
            return None
        whole = self.task.scored_together
        outputs = self.evaluate([prompt], None if whole else examples, told=True).outputs
        if outputs is None:
            return None
        return tuple(outputs[0][place] for place in examples) if whole else tuple(outputs[0])

    def _block(self, examples: Sequence[int] | None) -> AskedBlock:
        asked = None if examples is None else checked_places(examples, self.n_examples)
        return AskedBlock(asked, self._examples)

    def _charge(self, prompts: Sequence[P], block: AskedBlock, loss: Loss | None) -> Sequence[P]:
        """Pay for the prompts that the budget covers, and return those."""
        cost = self.cost(loss=loss, examples=block.size)
        covered = prompts[: 0 if self._stopped() else self.remaining // cost]
        self.ledger.used += len(covered) * cost
        return covered

    def _stopped(self) -> bool:
        """Whether there is reason to stop before the rows are spent."""
        began = time.perf_counter()
        stopped = self.budget.stops(self.ledger)
        stopped = stopped or (self._stops is not None and self._stops(self.ledger))
        self.waited += time.perf_counter() - began
        return stopped

    def _answer(
        self, prompts: Sequence[Prompt], block: AskedBlock, loss: Loss | None, *, told: bool = False
    ) -> Answer:
        """The answer to a batch: what was paid for before, or else the task's."""
        began = time.perf_counter()
        question = TrainQuestion(
            tuple(prompts), loss is not None, block.part, loss or "reward", told, self._text
        )
        answer = self._memo.get(question) if self._memo else None
        if answer is None:
            answer = self._ask(prompts, block, loss, told)
            # What cannot be used ends the search; not again, once the task is mended.
            if self._memo and answer.usable:
                answer = self._memo.put(question, answer)
        self.ledger.lm_seconds += answer.seconds
        self.ledger.judge_tokens += answer.judge_tokens
        self.waited += time.perf_counter() - began
        return answer

    def _text(self, prompt: Prompt) -> str | None:
        """How a person reads a prompt of tokens."""
        return self.lm.decode(prompt.ids) if isinstance(prompt, TokenPrompt) else None

    def _ask(
        self, prompts: Sequence[Prompt], block: AskedBlock, loss: Loss | None, told: bool
    ) -> Answer:
        """Have the task score a batch."""
        began, gradients, outputs = time.perf_counter(), None, None
        if block.part is not None:
            self.task.read_train(self.lm)  # quick, where it was done before
        if loss is not None:
            soft = self._soft(prompts)
            own = loss == "reward"
            hook = self.task.rewards_with_grad if own else self.task.cross_entropy_with_grad
            rewards, gradients = hook(self.lm, soft, block.examples)
        elif told:
            rewards, _, outputs = self.task.measure(self.lm, prompts, block.examples)
        elif self._generates:
            rewards, outputs = self.task.rewards_with_outputs(self.lm, prompts, block.examples)
        else:
            rewards = self.task.rewards(self.lm, prompts, block.examples)
        seconds = time.perf_counter() - began
        # Copies, row by row in memory: the task may use its array again, and the mean of a row
        # must be summed in the same order here and in `Evaluation.rewards`.
        per_example = np.array(rewards, dtype=np.float64, order="C")
        shape = (len(prompts), block.size)
        if per_example.shape != shape:
            raise ValueError(
                f"task {self.task.name!r} gave rewards of shape {per_example.shape} for "
                f"{shape[0]} prompts on {shape[1]} examples; expected {shape}"
            )
        if loss is not None:
            gradients = self._shaped(soft, gradients)
        judged = 0
        if outputs is not None:
            self._check_texts(outputs, shape)
            judged = self.task.judge_tokens(block.examples, outputs)
        return Answer(per_example, gradients, seconds, outputs, judged)

    def _soft(self, prompts: Sequence[Prompt]) -> list[SoftPrompt]:
        """The prompts as vectors: tokens as what the model is fed for them."""
        return [
            EmbeddedPrompt(p.ids, self.lm.embeddings(p.ids)) if isinstance(p, TokenPrompt) else p
            for p in prompts
            if not isinstance(p, TextPrompt)  # refused before
        ]

    def _check_texts(self, outputs: Outputs, shape: tuple[int, int]) -> None:
        if [len(texts) for texts in outputs] != [shape[1]] * shape[0]:
            raise ValueError(
                f"task {self.task.name!r} gave {[len(texts) for texts in outputs]} texts for "
                f"{shape[0]} prompts on {shape[1]} examples; expected one for each example"
            )

    def _shaped(self, prompts: Sequence[SoftPrompt], answer: object) -> NDArray[np.float32]:
        """The gradients that the task gave, if they have the prompts' shape."""
        gradients = np.array(answer, dtype=np.float32)
        shape = (len(prompts), *prompts[0].vectors.shape)
        if gradients.shape != shape:
            raise ValueError(
                f"task {self.task.name!r} gave a gradient of shape {gradients.shape} for "
                f"{shape[0]} prompts of shape {shape[1:]}; expected {shape}"
            )
        return gradients

    def _enter(
        self,
        prompts: Sequence[Prompt],
        block: AskedBlock,
        loss: Loss | None,
        answer: Answer,
        n_pending: int,
    ) -> None:
        """Record rewards; `n_pending` prompts are paid for and not yet recorded."""
        cost = self.cost(loss=loss, examples=block.size)
        # Rows as they stood when this prompt was known: what is pending was charged beforehand.
        rows = self.ledger.used - n_pending * cost
        broken = unusable(answer.per_example)
        for prompt, rewards, bad in zip(prompts, answer.per_example, broken, strict=True):
            rows += cost
            if not bad.any():
                self._record(prompt, block, rewards, rows)
        if self._on_progress is not None:
            self._on_progress(self.ledger)
        if broken.any():
            p, i = np.argwhere(broken)[0]
            e = int(i) if block.part is None else block.part[i]
            raise ValueError(
                f"task {self.task.name!r} gave the reward {answer.per_example[p, i]} for "
                f"{prompts[p]!r} on train example {e} "
                f"({self._examples[e].source or 'in memory'}); a reward must be a finite number of "
                f"{LARGEST:g} at most"
            )
        if not answer.usable:  # and its rewards are
            raise ValueError(
                f"task {self.task.name!r} gave a gradient with NaN or infinity for one of "
                f"{prompts!r}; a gradient must be finite"
            )

    def _record(self, prompt: Prompt, block: AskedBlock, rewards: Floats, rows: int) -> None:
        """Enter a prompt into the ledger, once it has been scored on all examples."""
        reward: float | None
        if block.part is None:
            reward = float(rewards.mean())
        else:
            self.ledger.record_part(prompt)
            reward = self._partial.add(prompt.digest, block.part, rewards)
        if reward is not None:
            self.ledger.record(Scored(prompt, reward, rows), n_read(self.task, self.lm, prompt))
