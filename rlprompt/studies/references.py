"""Training of the same model on the same few examples, for scale: no prompt is searched.

- `logistic-head`: a logistic regression on the frozen model's last hidden state where the answer
  is read, a linear probe.
- `lora`: low-rank updates of all linear layers (Hu et al. 2021, arXiv 2106.09685), by `peft`.
- `lora+soft`: these, trained together with vectors in the place of the prompt (Lester et al. 2021,
  arXiv 2104.08691).
- `fine-tuning`: all weights.

The last three use the task's template, with no prompt but those vectors, and cross-entropy over the
label words: the prompt-based fine-tuning of LM-BFF (Gao et al. 2021, arXiv 2012.15723, section 4)
without demonstrations. What there is to choose is chosen on dev alone, and test is scored once.
"""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from rlprompt._utils.seeding import of_data
from rlprompt.agents.shared.ranges import check_each, check_ranges
from rlprompt.config.registry import make
from rlprompt.data.examples import Example
from rlprompt.models.lm import FrozenLM
from rlprompt.models.merging import merge_obstacle
from rlprompt.models.weights import is_spread, stays_as_loaded
from rlprompt.prompt import SoftPrompt, TokenPrompt
from rlprompt.search.evaluation import each_metric, scores_of
from rlprompt.search.space import SoftSpace
from rlprompt.store.summary import ReferenceEntry
from rlprompt.studies.training import Method, Outcome, Prompted, Schedule, train
from rlprompt.tasks.base import Measured, Task
from rlprompt.tasks.class_scores import REWARDS, accuracy
from rlprompt.tasks.classification import ClassificationTask

# Texts that one forward pass takes where hidden states are read.
TEXTS = 16
# Spreads of the embeddings that vectors move by at a learning rate of 1.
PACE = 100


class Reference(Protocol):
    """A way to train on the examples of a task.

    Attributes:
        kind: What reports call it.
        package: What it needs beyond the library's own dependencies, or "".
        seeded: Whether a seed changes what comes of it.
    """

    kind: ClassVar[str]
    package: ClassVar[str]
    seeded: ClassVar[bool]

    def train(self, task: ClassificationTask, lm: FrozenLM, seed: int) -> Outcome:
        """Train on train, choose on dev, and score every split once."""
        ...


@dataclass(frozen=True)
class LogisticHead:
    """A logistic regression on what the frozen model has understood at the end of the text.

    Args:
        inverse_strengths: scikit-learn's `C` of the L2 penalty; each is tried, on features that
            are standardised on train.

    Raises:
        ValueError: There is none, or one is not above 0.
    """

    kind: ClassVar[str] = "logistic-head"
    package: ClassVar[str] = "sklearn"
    seeded: ClassVar[bool] = False

    inverse_strengths: tuple[float, ...] = (0.0001, 0.001, 0.01, 0.1, 1.0)

    def __post_init__(self) -> None:
        """Check what a user can get wrong."""
        check_each(self, "inverse_strengths")

    def train(self, task: ClassificationTask, lm: FrozenLM, seed: int) -> Outcome:
        """See `Reference.train`; every example is read once."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        splits = task.splits.parts()
        features = {split: _features(task, lm, part) for split, part in splits.items()}
        classes = list(task.verbaliser.words)
        labels = {
            split: torch.tensor([classes.index(example.label) for example in part])
            for split, part in splits.items()
        }
        if set(labels["train"].tolist()) != set(range(len(classes))):
            raise ValueError(
                "train lacks a class, so a logistic head cannot learn it; give more train examples"
            )

        def fit(strength: float) -> Any:
            head = LogisticRegression(C=strength, max_iter=10_000)
            return make_pipeline(StandardScaler(), head).fit(features["train"], labels["train"])

        def on_dev(strength: float) -> tuple[float, float]:
            found = _measured(task, fit(strength), features["dev"], labels["dev"])
            return float(found.metrics.mean()), float(found.rewards.mean())

        # Of equals the first, which is the strongest penalty.
        chosen = max(sorted(self.inverse_strengths), key=on_dev)
        head = fit(chosen)
        return Outcome(
            {split: _measured(task, head, features[split], labels[split]) for split in splits},
            trainable=head[-1].coef_.size + head[-1].intercept_.size,
            rows=sum(map(len, splits.values())),
            chosen=f"C = {chosen:g}",
        )


@dataclass(frozen=True)
class LoRA:
    """Low-rank updates of all linear layers but the output head.

    Args:
        rank: Of each update.
        alpha: An update counts alpha / rank times; equal to the rank by the paper's and peft's
            defaults.
        learning_rates: As for `Schedule`; around the 4e-4 and 5e-4 of the paper's table 9.
        epochs: As for `Schedule`.
        patience: As for `Schedule`.
        batch: As for `Schedule`.

    Raises:
        ValueError: One of them is not above 0, or not whole where it counts something.
    """

    kind: ClassVar[str] = "lora"
    package: ClassVar[str] = "peft"
    seeded: ClassVar[bool] = True

    rank: int = 8
    alpha: int = 8
    learning_rates: tuple[float, ...] = (2e-4, 1e-3)
    epochs: int = 20
    patience: int = 4
    batch: int = 8

    def __post_init__(self) -> None:
        """Check what a user can get wrong."""
        check_ranges(self, {"rank": 1, "alpha": 1})
        self._schedule  # noqa: B018  # which checks the others

    @property
    def _schedule(self) -> Schedule:
        return Schedule(self.learning_rates, self.epochs, self.patience, self.batch)

    def train(self, task: ClassificationTask, lm: FrozenLM, seed: int) -> Outcome:
        """See `Reference.train`."""
        method = Method(self._begun, lambda model: (model.merge_and_unload(), TokenPrompt()))
        return train(task, lm, method, self._schedule, seed)

    def _begun(self, model: PreTrainedModel) -> Any:
        """The model with new updates, which change nothing yet."""
        from peft import LoraConfig, get_peft_model

        settings = LoraConfig(r=self.rank, lora_alpha=self.alpha, target_modules="all-linear")
        with warnings.catch_warnings():
            # That it treats GPT-2's layers rightly, and of transformers 6, which is its affair.
            for message in ("fan_in_fan_out", "`is_gradient_checkpointing`"):
                warnings.filterwarnings("ignore", message=message)
            return get_peft_model(model, settings)


@dataclass(frozen=True)
class LoRASoft(LoRA):
    """`LoRA`, and a soft prompt in the place of the prompt, trained together.

    The vectors start from rows of random common tokens (`SoftSpace.from_lm`), and one rate is
    for both: at the larger one a step moves vectors by a tenth of the embeddings' spread, as it
    does there (`PACE`). `peft` mixes no prompt tuning with LoRA, and puts its vectors before the
    whole text, so these are our own.

    Args:
        rank: As for `LoRA`.
        alpha: As for `LoRA`.
        learning_rates: As for `LoRA`.
        epochs: As for `Schedule`.
        patience: As for `Schedule`.
        batch: As for `Schedule`.
        length: Vectors, as many as a search's prompts have tokens by default.

    Raises:
        ValueError: One of them is not above 0, or not whole where it counts something.
    """

    kind: ClassVar[str] = "lora+soft"

    length: int = 5

    def __post_init__(self) -> None:
        """Check what a user can get wrong."""
        super().__post_init__()
        check_ranges(self, {"length": 1})

    def train(self, task: ClassificationTask, lm: FrozenLM, seed: int) -> Outcome:
        """See `Reference.train`."""
        space = SoftSpace.from_lm(lm, self.length, np.random.default_rng(seed))
        # A model that takes no vectors says so now, and not when it is trained.
        lm.score([SoftPrompt(space.start)], task.queries(lm, task.splits.train[:1]))
        start = torch.tensor(space.start, device=lm.device)

        def begin(model: PreTrainedModel) -> Prompted:
            return Prompted(self._begun(model), start, PACE * space.scale)

        def end(trained: Prompted) -> tuple[PreTrainedModel, SoftPrompt]:
            vectors = trained.vectors.detach().cpu().numpy()
            merged: Any = trained.model
            return merged.merge_and_unload(), SoftPrompt(vectors)

        return train(task, lm, Method(begin, end, self.length), self._schedule, seed)


@dataclass(frozen=True)
class FineTuning(Schedule):
    """All weights.

    Args:
        learning_rates: As for `Schedule`; the ends of LM-BFF's grid (its appendix A.2).
        epochs: As for `Schedule`.
        patience: As for `Schedule`.
        batch: As for `Schedule`.

    Raises:
        ValueError: One of them is not above 0, or not whole where it counts something.
    """

    kind: ClassVar[str] = "fine-tuning"
    package: ClassVar[str] = ""
    seeded: ClassVar[bool] = True

    learning_rates: tuple[float, ...] = (1e-5, 5e-5)
    epochs: int = 20
    patience: int = 4
    batch: int = 8

    def train(self, task: ClassificationTask, lm: FrozenLM, seed: int) -> Outcome:
        """See `Reference.train`."""

        def begin(model: PreTrainedModel) -> Any:
            return model.requires_grad_(True)

        return train(task, lm, Method(begin, lambda model: (model, TokenPrompt())), self, seed)


REFERENCES: Mapping[str, type[LogisticHead] | type[LoRA] | type[FineTuning]] = {
    one.kind: one for one in (LogisticHead, LoRA, LoRASoft, FineTuning)
}


def make_reference(name: str, settings: Mapping[str, Any]) -> Reference:
    """A reference by its name with some of its settings changed.

    Raises:
        ValueError: There is no such setting, or a value is not allowed.
    """
    made: Reference = make(REFERENCES[name], f"reference {name}", settings)
    return made


def check_references(references: Mapping[str, Reference], task: Task, lm: FrozenLM) -> None:
    """See that the references can be trained, before anything is paid for.

    Raises:
        ValueError: They cannot.
    """
    for name, reference in references.items():
        if not task.class_words:
            raise ValueError(
                f"reference {name} needs classes, and task {task.name!r} has none; leave it out of "
                "`references`"
            )
        if lm.kind != "causal":
            raise ValueError(
                f"reference {name} trains causal models only, and {lm.name} is {lm.kind}; leave it "
                "out of `references`"
            )
        if lm.served:
            raise ValueError(
                f"reference {name} trains a copy of the model, and {lm.name} is on a server "
                f"({lm.where}); leave it out of `references`"
            )
        kept = stays_as_loaded(lm.model)
        if kept and (reference.kind == "fine-tuning" or (reference.seeded and is_spread(lm.model))):
            raise ValueError(
                f"reference {name} trains a copy of {lm.name}, and {kept}, so it cannot; leave it "
                "out of `references`"
            )
        if reference.seeded and (obstacle := _merge_obstacle(lm)):
            raise ValueError(
                f"reference {name} trains a copy of {lm.name} with its PEFT adapter merged into "
                f"the weights, and that cannot be: {obstacle}; leave it out of `references`, or "
                "take a model whose adapter is merged already and says the same "
                "(model.merge_and_unload())"
            )
        if reference.package and importlib.util.find_spec(reference.package) is None:
            raise ValueError(
                f"reference {name} needs another package: pip install 'rlprompt[references]'"
            )


# A model with an adapter is copied to see, and every task and split of a grid asks.
_obstacles: WeakKeyDictionary[FrozenLM, str] = WeakKeyDictionary()


def _merge_obstacle(lm: FrozenLM) -> str:
    """Why a model's adapter cannot be merged, or ""; seen once."""
    if lm not in _obstacles:
        _obstacles[lm] = merge_obstacle(lm.model)
    return _obstacles[lm]


def seeds_of(reference: Reference, seeds: Sequence[int]) -> tuple[int, ...]:
    """The seeds that it is trained with: one where none makes a difference."""
    return tuple(seeds) if reference.seeded else tuple(seeds[:1])


def titled(name: str, reference: Reference, seed: int) -> str:
    """What an entry is called: a name of the experiment's, with the seed where there are several.

    One entry a seed, so that the spread is known.
    """
    return f"{name}, seed {seed}" if reference.seeded else name


def train_reference(
    reference: Reference,
    task: ClassificationTask,
    lm: FrozenLM,
    seed: int,
    *,
    name: str,
    task_name: str,
) -> ReferenceEntry:
    """Train a reference, and say what came of it.

    Args:
        reference: What to train.
        task: On what.
        lm: The frozen model, which stays as it is.
        seed: Decides order and new weights.
        name: What the entry is called.
        task_name: What it calls the task.

    Raises:
        ValueError: Train lacks a class.
    """
    began = time.perf_counter()
    (own,) = of_data(seed, task.splits.drawn_digest).generate_state(1)
    found = reference.train(task, lm, int(own))
    parts = task.splits.parts()
    found_scores = {
        split: scores_of(task, one, parts[split])[0] for split, one in found.measured.items()
    }
    metrics = {split: one.metric for split, one in found_scores.items()}
    return ReferenceEntry(
        task=task_name,
        model=lm.name,
        name=name,
        train=metrics["train"],
        dev=metrics["dev"],
        test=metrics["test"],
        rewards={split: one.reward for split, one in found_scores.items()},
        kind=reference.kind,
        trainable=found.trainable,
        rows=found.rows,
        seconds=time.perf_counter() - began,
        note=f"{reference!r}; chosen on dev: {found.chosen}",
        test_metrics=each_metric(task, found.measured["test"], parts["test"]),
    )


def _features(
    task: ClassificationTask, lm: FrozenLM, examples: Sequence[Example]
) -> NDArray[np.float32]:
    """The last hidden state (E, W) float32 where the answer of each example is read."""
    texts = [query.head_ids + query.tail_ids for query in task.queries(lm, examples)]
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # texts of like length together
    parts = [order[i : i + TEXTS] for i in range(0, len(order), TEXTS)]
    found = np.concatenate([lm.last_hidden([texts[i] for i in part]) for part in parts])
    features: NDArray[np.float32] = found[np.argsort(order)]
    return features


def _measured(
    task: ClassificationTask, head: Any, features: NDArray[np.float32], labels: torch.Tensor
) -> Measured:
    """Rewards and accuracies (1, E) of a fitted head."""
    logits = torch.from_numpy(head.predict_log_proba(features))
    rewards, correct = (f(logits, labels) for f in (REWARDS[task.reward], accuracy))
    classes = list(task.verbaliser.words)
    answers = tuple(classes[i] for i in logits.argmax(1).tolist())
    return Measured(rewards.double().numpy()[None], correct.double().numpy()[None], (answers,))
