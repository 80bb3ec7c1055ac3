"""Trains copies of a causal model to answer with label words, and scores the best of them.

The frozen model is never changed: what is trained is a float32 copy of it, one at a time. A PEFT
adapter of its own is merged into the copy's weights first.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlprompt._utils.seeding import seeded
from rlprompt.agents.shared.ranges import check_each, check_ranges
from rlprompt.data.examples import Example
from rlprompt.models.lm import FrozenLM
from rlprompt.models.merging import merged_copy
from rlprompt.models.plain import logits_at
from rlprompt.models.scorer import embed
from rlprompt.prompt import Prompt
from rlprompt.tasks.base import GRADIENT_ROWS, Measured
from rlprompt.tasks.class_scores import accuracy, cross_entropy
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.types import Ids

logger = logging.getLogger(__name__)

# Norm that gradients are cut to, as the `Trainer` of transformers does.
MOST_NORM = 1.0
# Examples that are scored at a time without gradients.
EVALUATED = 16
# Tokens of padding that a pass on a CPU may hold: about what one more pass costs there. Elsewhere
# a pass costs more than any padding.
PADDED = 32


@dataclass(frozen=True)
class Outcome:
    """What came of training on a task.

    Attributes:
        measured: What the chosen one earns, by split.
        trainable: Numbers that were trained.
        rows: Work in the unit of budgets: 3 for an example seen in training, 1 for any other.
        chosen: What was chosen on dev, in words.
    """

    measured: Mapping[str, Measured]
    trainable: int
    rows: int
    chosen: str


@dataclass(frozen=True)
class Schedule:
    """How long and how fast is tried.

    Attributes:
        learning_rates: Of AdamW, constant; each is tried.
        epochs: Passes over train at most.
        patience: Passes without a better dev figure before a rate is given up.
        batch: Examples a step.

    Raises:
        ValueError: One is not above 0, or a number of passes or examples is not whole.
    """

    learning_rates: tuple[float, ...]
    epochs: int
    patience: int
    batch: int

    def __post_init__(self) -> None:
        """Check what a user can get wrong."""
        check_each(self, "learning_rates")
        check_ranges(self, {"epochs": 1, "patience": 1, "batch": 1})


@dataclass(frozen=True)
class Method:
    """What of a copy is trained.

    Attributes:
        begin: Makes a copy ready: what it returns is trained where it requires a gradient.
        end: Gives the model of what was trained, and the prompt that goes with it.
        length: Vectors that are trained with it, in the place of the prompt (`Prompted`).
    """

    begin: Callable[[PreTrainedModel], Any]
    end: Callable[[Any], tuple[PreTrainedModel, Prompt]]
    length: int = 0


class Prompted(nn.Module):
    """A model, and vectors that it is fed for the ids behind its vocabulary.

    Args:
        model: The model.
        start: (L, H) vectors to begin with.
        unit: What a step of the learning rate moves them by.
    """

    def __init__(self, model: PreTrainedModel, start: Tensor, unit: float) -> None:
        super().__init__()
        self.model, self._unit = model, unit
        self._start: Tensor
        self.register_buffer("_start", start, persistent=False)
        self.moved = nn.Parameter(torch.zeros_like(start))

    @property
    def vectors(self) -> Tensor:
        """(L, H), as they are now."""
        return self._start + self._unit * self.moved

    def get_output_embeddings(self) -> Any:
        """The model's output head."""
        model: Any = self.model  # transformers leaves the method untyped
        return model.get_output_embeddings()

    def forward(self, input_ids: Tensor, **given: Any) -> Any:
        """What the model makes of it."""
        return self.model(inputs_embeds=embed(self.model, input_ids, self.vectors), **given)


@dataclass(frozen=True)
class _Best:
    """The best so far on dev: accuracy, then the mean log-probability of the classes."""

    dev: tuple[float, float]
    rate: float
    epoch: int
    weights: dict[str, Tensor]


def train(
    task: ClassificationTask, lm: FrozenLM, method: Method, schedule: Schedule, seed: int
) -> Outcome:
    """Train copies with each learning rate, and score the best on dev, once.

    Args:
        task: Its train split is trained on with cross-entropy over the label words, its dev split
            chooses learning rate and pass, and its test split is scored at the end.
        lm: The frozen causal model.
        method: What of a copy is trained.
        schedule: How long and how fast.
        seed: Decides the order of the examples, and new weights.
    """
    if task.calibration != "none":  # there is nothing to take out of what was trained
        task = replace(task, calibration="none")
    prompt = tuple(range(lm.n_vocabulary, lm.n_vocabulary + method.length))
    best: _Best | None = None
    rows = 0
    for rate in schedule.learning_rates:
        trained = _copy(lm, method, seed)
        since = 0
        own = (-1.0, 0.0)
        for epoch, _ in enumerate(_epochs(trained, task, lm, prompt, rate, schedule, seed), 1):
            rows += GRADIENT_ROWS * len(task.splits.train) + len(task.splits.dev)
            dev = _figures(trained, task, lm, prompt, task.splits.dev)
            since = 0 if dev > own else since + 1
            own = max(own, dev)
            if best is None or dev > best.dev:
                best = _Best(dev, rate, epoch, _weights(trained))
            if since == schedule.patience:
                break
        logger.info("learning rate %g: dev accuracy %.3f after %d passes", rate, own[0], epoch)
        del trained  # before the next copy: two may not fit
    assert best is not None
    trained = _copy(lm, method, seed)
    trainable = sum(parameter.numel() for parameter in _trainable(trained).values())
    with torch.no_grad():
        for name, parameter in _trainable(trained).items():
            parameter.copy_(best.weights[name])
    model, searched = method.end(trained)
    scorer = FrozenLM(model, lm.tokenizer, f"{lm.name}, trained")
    parts = task.splits.parts()
    measured = {split: task.measure(scorer, [searched], part) for split, part in parts.items()}
    rows += sum(map(len, parts.values()))
    chosen = f"learning rate {best.rate:g}, {best.epoch} passes over train"
    return Outcome(measured, trainable, rows, chosen)


def class_scores(
    model: Any,
    task: ClassificationTask,
    lm: FrozenLM,
    examples: Sequence[Example],
    prompt: Ids = (),
) -> Tensor:
    """Scores of the classes (E, C) float32, nats, by a model or a trained copy.

    What `ClassificationTask` computes with `FrozenLM`, with gradients for weights.

    Args:
        model: It is given ids and a mask.
        task: What is asked.
        lm: The frozen model.
        examples: (E,) of them.
        prompt: Ids that stand in the place of the prompt.
    """
    queries = task.queries(lm, examples)
    fed: dict[tuple[int, Ids], int] = {}
    reads: list[tuple[int, int, int]] = []
    counts: list[int] = []
    for e, query in enumerate(queries):
        n_text = query.n_text + len(prompt)
        for candidate in query.candidates:
            # Candidates that are fed the same tokens (none, for single-token ones) share a row.
            row = fed.setdefault((e, candidate[:-1]), len(fed))
            reads += [(row, n_text - 1 + i, target) for i, target in enumerate(candidate)]
            counts.append(len(candidate))
    around = [query.head_ids + prompt + query.tail_ids for query in queries]
    texts = [around[e] + stem for e, stem in fed]
    logs = torch.zeros(len(reads), device=lm.device)
    padded = PADDED if lm.device.type == "cpu" else None
    for rows in _passes([len(text) for text in texts], padded, lm.rope_limits):
        of_row = {row: i for i, row in enumerate(rows)}
        which = [i for i, (row, _, _) in enumerate(reads) if row in of_row]
        asked = [(of_row[reads[i][0]], *reads[i][1:]) for i in which]
        found = _log_likelihoods(model, [texts[row] for row in rows], asked, lm.device)
        logs = logs.index_add(0, torch.tensor(which, device=lm.device), found)
    owner = torch.repeat_interleave(torch.tensor(counts, device=lm.device))
    words = torch.zeros(len(counts), device=lm.device).index_add(0, owner, logs)
    candidates = queries[0].candidates
    return task.verbaliser.class_scores(words.view(len(queries), -1), candidates)


def _passes(
    lengths: Sequence[int], padded: int | None, rope_limits: Sequence[int] = ()
) -> Iterator[list[int]]:
    """Rows that go together, longest first, with at most that much padding where it is told.

    None goes with one on the other side of a limit.
    """
    part: list[int] = []
    padding = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        more = lengths[part[0]] - lengths[row] if part else 0
        sides = {bisect_left(rope_limits, lengths[one]) for one in (*part[:1], row)}
        if len(sides) > 1 or (padded is not None and padding + more > padded):
            yield part
            part, padding, more = [], 0, 0
        part.append(row)
        padding += more
    yield part


def _log_likelihoods(
    model: Any, texts: Sequence[Ids], reads: Sequence[tuple[int, int, int]], device: torch.device
) -> Tensor:
    """Of each (row, position, token) of `reads`, (R,) float32, in one pass."""
    longest = max(map(len, texts))
    ids = torch.tensor([text + (0,) * (longest - len(text)) for text in texts], device=device)
    mask = torch.tensor([[1] * len(t) + [0] * (longest - len(t)) for t in texts], device=device)
    places = [sorted({place for row, place, _ in reads if row == r}) for r in range(len(texts))]
    most = max(map(len, places))
    where = torch.tensor([own + own[-1:] * (most - len(own)) for own in places], device=device)
    logits = logits_at(model, where, input_ids=ids, attention_mask=mask, use_cache=False)
    columns = [(row, places[row].index(place), target) for row, place, target in reads]
    rows, read, targets = (torch.tensor(one, device=device) for one in zip(*columns, strict=True))
    found: Tensor = logits[rows, read].float().log_softmax(-1).gather(1, targets[:, None])[:, 0]
    return found


def _epochs(
    model: Any,
    task: ClassificationTask,
    lm: FrozenLM,
    prompt: Ids,
    rate: float,
    schedule: Schedule,
    seed: int,
) -> Iterator[None]:
    """Train for a pass over train at a time."""
    weights = list(_trainable(model).values())
    optimiser = torch.optim.AdamW(weights, lr=rate)
    rng = np.random.default_rng(seed)
    for _ in range(schedule.epochs):
        order = rng.permutation(len(task.splits.train))
        for start in range(0, len(order), schedule.batch):
            batch = [task.splits.train[i] for i in order[start : start + schedule.batch]]
            scores = class_scores(model, task, lm, batch, prompt)
            loss = -cross_entropy(scores, _labels(task, batch).to(scores.device)).mean()
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(weights, MOST_NORM)
            optimiser.step()
        yield


@torch.no_grad()
def _figures(
    model: Any, task: ClassificationTask, lm: FrozenLM, prompt: Ids, examples: Sequence[Example]
) -> tuple[float, float]:
    """Accuracy, and mean log-probability of the class."""
    parts = [examples[i : i + EVALUATED] for i in range(0, len(examples), EVALUATED)]
    scores = torch.cat([class_scores(model, task, lm, part, prompt).cpu() for part in parts])
    labels = _labels(task, examples)
    figures = (float(f(scores, labels).mean()) for f in (accuracy, cross_entropy))
    return next(figures), next(figures)


def _copy(lm: FrozenLM, method: Method, seed: int) -> Any:
    # In evaluation mode, as it is frozen: dropout would be one more thing to choose. With its
    # adapter in its weights, which a new one would take the place of.
    model = merged_copy(lm.model)
    with seeded(seed):
        return method.begin(model)


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: one for name, one in model.named_parameters() if one.requires_grad}


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: one.detach().clone() for name, one in _trainable(model).items()}


def _labels(task: ClassificationTask, examples: Sequence[Example]) -> Tensor:
    classes = list(task.verbaliser.words)
    return torch.tensor([classes.index(example.label) for example in examples])
