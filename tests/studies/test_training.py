"""Copies of a model learn; the model itself does not."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import peft
import pytest
import torch
from films import LABELS, films
from quantised import with_layers, with_tensors
from tiny import TinyKind, tiny_lm, tiny_model, tiny_tokenizer
from transformers import PreTrainedModel

from rlprompt._utils.seeding import of_data
from rlprompt.agents.random_search import RandomSearch
from rlprompt.data.examples import Example, Splits
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, SoftPrompt, TokenPrompt
from rlprompt.search.budget import Budget
from rlprompt.search.space import SoftSpace
from rlprompt.studies.experiment import Experiment
from rlprompt.studies.references import (
    REFERENCES,
    FineTuning,
    LogisticHead,
    LoRA,
    LoRASoft,
    check_references,
    train_reference,
)
from rlprompt.studies.training import Prompted, class_scores
from rlprompt.template import Template


def told_apart(prefix: str, n: int) -> tuple[Example, ...]:
    """Examples whose class is plain from a word."""
    return tuple(
        Example({"text": f"{prefix} {i} {('was bad', 'was good')[i % 2]}"}, LABELS[i % 2])
        for i in range(n)
    )


SPLITS = Splits(told_apart("a", 8), told_apart("b", 8), told_apart("c", 10))
TASK = films(splits=SPLITS)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt", "gemma"])
@pytest.mark.parametrize("words", [("bad", "good"), ("not so well", ["good", "great fun"])])
def test_a_copy_scores_as_the_frozen_model_does(kind: TinyKind, words: tuple[str, str]) -> None:
    lm = tiny_lm(kind)
    task = films(
        label_words=dict(zip(LABELS, words, strict=True)),
        template=Template("{prompt} {text} so:"),
        reward="cross_entropy",
        calibration="none",
    )
    with torch.no_grad():
        scores = class_scores(lm.model, task, lm, task.splits.test)
    labels = torch.tensor([LABELS.index(example.label) for example in task.splits.test])
    rewards = scores.log_softmax(-1).gather(1, labels[:, None])[:, 0].numpy()
    expected = task.rewards(lm, [TokenPrompt()], task.splits.test)[0]
    assert rewards == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_texts_of_unlike_length_score_together_as_alone(kind: TinyKind) -> None:
    """And weights are moved alike: passes are cut by length."""
    lm = tiny_lm(kind)
    task = films(label_words=dict(zip(LABELS, ("not so well", "good"), strict=True)))
    texts = [Example({"text": "very " * n + "good"}, LABELS[n % 2]) for n in (3, 40, 0, 11, 12)]
    copied = copy.deepcopy(lm.model).requires_grad_(True)
    moved = []
    for parts in ([texts], [[text] for text in texts]):
        copied.zero_grad()
        scores = torch.cat([class_scores(copied, task, lm, part) for part in parts])
        torch.autograd.backward(scores.log_softmax(-1)[:, 0].sum())
        gradients = [one.grad for one in copied.parameters() if one.grad is not None]
        moved.append((scores.detach(), torch.cat([one.flatten() for one in gradients])))
    (together, slope), (alone, slope_alone) = moved
    assert together.numpy() == pytest.approx(alone.numpy(), abs=1e-4)
    assert torch.linalg.vector_norm(slope_alone) > 0.01
    assert slope.numpy() == pytest.approx(slope_alone.numpy(), abs=1e-4)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt", "gemma"])
@pytest.mark.parametrize("template", ["{prompt} {text} so:", "{text} {prompt} so"])
def test_a_copy_with_vectors_scores_as_the_frozen_model_with_a_soft_prompt(
    kind: TinyKind, template: str
) -> None:
    lm = tiny_lm(kind)
    words = dict(zip(LABELS, ("not so well", "good"), strict=True))
    task = films(
        label_words=words,
        template=Template(template),
        reward="cross_entropy",
        calibration="none",
    )
    start = torch.tensor(lm.embeddings([30, 40, 50]))
    copied = Prompted(lm.model, start, unit=0.5)
    torch.nn.init.ones_(copied.moved)
    virtual = tuple(range(lm.n_vocabulary, lm.n_vocabulary + 3))
    scores = class_scores(copied, task, lm, task.splits.test, virtual)
    labels = torch.tensor([LABELS.index(example.label) for example in task.splits.test])
    rewards = scores.log_softmax(-1).gather(1, labels[:, None])[:, 0]
    soft = SoftPrompt(start.numpy() + 0.5)
    expected, gradients = task.rewards_with_grad(lm, [soft], task.splits.test)
    assert rewards.tolist() == pytest.approx(expected[0], abs=1e-3)
    torch.autograd.backward(rewards.mean())
    assert copied.moved.grad is not None
    found = copied.moved.grad.numpy() / 0.5
    assert found == pytest.approx(gradients[0], abs=2e-2 * float(abs(gradients[0]).max()))


def test_the_vectors_that_were_trained_are_those_that_are_scored(lm: FrozenLM) -> None:
    """At no rate to speak of they are the start, and the model is as it was."""
    still = LoRASoft(learning_rates=(1e-12,), epochs=1, length=3)
    entry = train_reference(still, TASK, lm, 5, name="", task_name="")
    (own,) = of_data(5, TASK.splits.drawn_digest).generate_state(1)
    start = SoftSpace.from_lm(lm, 3, np.random.default_rng(int(own))).start
    plain = replace(TASK, calibration="none")
    for split, examples in TASK.splits.parts().items():
        expected = plain.rewards(lm, [SoftPrompt(start)], examples).mean()
        assert entry.rewards[split] == pytest.approx(expected, rel=1e-3, abs=1e-3)


def adapted(model: PreTrainedModel, **settings: Any) -> Any:
    """A model with a LoRA adapter of its own, which changes what it says."""
    torch.manual_seed(0)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    return peft.get_peft_model(model, replace(config, **settings)).eval()


@pytest.mark.parametrize("whole", [(), ("norm",)])
@pytest.mark.parametrize("kind", [LoRA, LoRASoft, FineTuning])
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_what_is_trained_is_the_model_with_its_own_adapter(
    kind: type[LoRA | FineTuning], whole: Sequence[str]
) -> None:
    """At no rate to speak of it says what the frozen model says, and not what its base does."""
    model = adapted(tiny_model(), modules_to_save=whole or None)
    for name, weight in model.named_parameters():
        if "modules_to_save" in name:
            weight.data.neg_()
    lm = FrozenLM(model, tiny_tokenizer(), "adapted")
    before = (lm.hash_weights(), [name for name, _ in lm.model.named_modules()])
    still = kind(learning_rates=(1e-12,), epochs=1)
    check_references({"still": still}, TASK, lm)
    entry = train_reference(still, TASK, lm, 5, name="", task_name="")
    assert (lm.hash_weights(), [name for name, _ in lm.model.named_modules()]) == before
    (own,) = of_data(5, TASK.splits.drawn_digest).generate_state(1)
    prompt: Prompt = TokenPrompt()
    if isinstance(still, LoRASoft):
        space = SoftSpace.from_lm(lm, still.length, np.random.default_rng(int(own)))
        prompt = SoftPrompt(space.start)
    plain = replace(TASK, calibration="none")
    for split, examples in TASK.splits.parts().items():
        expected, base = (
            plain.rewards(one, [prompt], examples).mean() for one in (lm, tiny_lm("llama"))
        )
        assert entry.rewards[split] == pytest.approx(expected, rel=1e-3, abs=1e-3)
        assert abs(expected - base) > 0.01


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_an_adapter_that_cannot_be_merged_is_refused_before_anything_is_paid() -> None:
    lm = FrozenLM(adapted(with_tensors(tiny_model())), tiny_tokenizer(), "int8")
    with pytest.raises(ValueError, match=r"with its PEFT adapter merged .* weights are quantised"):
        check_references({"lora": LoRA()}, TASK, lm)
    check_references({"logistic-head": LogisticHead()}, TASK, lm)


def test_whether_an_adapter_can_be_merged_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[PreTrainedModel] = []

    def note(model: PreTrainedModel) -> str:
        tried.append(model)
        return ""

    monkeypatch.setattr("rlprompt.studies.references.merge_obstacle", note)
    lms = [FrozenLM(tiny_model(), tiny_tokenizer(), name) for name in ("a", "b")]
    for lm in (*lms, *lms):
        check_references({"lora": LoRA(), "fine-tuning": FineTuning()}, TASK, lm)
    assert tried == [lm.model for lm in lms]


@pytest.mark.parametrize(
    "reference",
    [
        LogisticHead(),
        LoRA(learning_rates=(0.01, 1e-7), epochs=8),
        LoRASoft(learning_rates=(0.01, 1e-7), epochs=8),
        FineTuning(learning_rates=(0.003, 1e-7), epochs=8),
    ],
    ids=REFERENCES,
)
def test_it_learns_and_the_frozen_model_does_not(
    reference: LogisticHead | LoRA | FineTuning,
) -> None:
    lm = tiny_lm()
    before = (lm.hash_weights(), [name for name, _ in lm.model.named_modules()])
    untrained = TASK.measure(lm, [TokenPrompt()], SPLITS.train).metrics.mean()
    entry = train_reference(reference, TASK, lm, 0, name="it", task_name="films")
    assert (lm.hash_weights(), [name for name, _ in lm.model.named_modules()]) == before
    assert not any(parameter.requires_grad for parameter in lm.model.parameters())
    assert entry.train is not None
    assert entry.train == 1.0 > untrained
    assert entry.test == sum(entry.test_metrics) / 10
    assert (entry.kind, entry.name, entry.task, entry.model) == (
        reference.kind,
        "it",
        "films",
        "tiny-llama",
    )


def test_numbers_trained_and_rows_are_counted() -> None:
    lm = tiny_lm()
    every = sum(parameter.numel() for parameter in lm.model.parameters())
    head = train_reference(LogisticHead(), TASK, lm, 0, name="", task_name="")
    assert (head.trainable, head.rows) == (32 + 1, 8 + 8 + 10)
    tuned = FineTuning(learning_rates=(1e-9,), epochs=2, patience=2)
    entry = train_reference(tuned, TASK, lm, 0, name="", task_name="")
    # A gradient is three rows a row; each pass looks at dev; all splits are scored at the end.
    assert (entry.trainable, entry.rows) == (every, 2 * (3 * 8 + 8) + 8 + 8 + 10)
    lora = LoRA(rank=2, learning_rates=(1e-9,), epochs=1)
    shapes = [
        module.weight.shape
        for name, module in lm.model.named_modules()
        if isinstance(module, torch.nn.Linear) and not name.startswith("lm_head")
    ]
    updates = sum(2 * (n_out + n_in) for n_out, n_in in shapes)
    assert train_reference(lora, TASK, lm, 0, name="", task_name="").trainable == updates
    soft = LoRASoft(rank=2, learning_rates=(1e-9,), epochs=1, length=3)
    entry = train_reference(soft, TASK, lm, 0, name="", task_name="")
    assert (entry.trainable, entry.rows) == (updates + 3 * 32, 3 * 8 + 8 + 8 + 8 + 10)


def test_a_rate_is_given_up_where_dev_does_not_get_better() -> None:
    still = FineTuning(learning_rates=(1e-12,), epochs=50, patience=3)
    entry = train_reference(still, TASK, tiny_lm(), 0, name="", task_name="")
    assert entry.rows < 10 * (3 * 8 + 8)


def test_the_same_seed_gives_the_same(lm: FrozenLM) -> None:
    lora = LoRA(learning_rates=(0.01,), epochs=2)
    first, again, other = (
        train_reference(lora, TASK, lm, seed, name="", task_name="") for seed in (1, 1, 2)
    )
    assert first.model_copy(update={"seconds": 0}) == again.model_copy(update={"seconds": 0})
    assert first.rewards != other.rewards


def test_test_decides_nothing(lm: FrozenLM) -> None:
    """A test split with the labels turned around changes the test figure and nothing else."""
    turned = tuple(
        Example(example.fields, LABELS[1 - LABELS.index(example.label)]) for example in SPLITS.test
    )
    other = films(splits=Splits(SPLITS.train, SPLITS.dev, turned))
    for reference in (LogisticHead(), FineTuning(learning_rates=(1e-3, 1e-2), epochs=2)):
        one, two = (
            train_reference(reference, task, lm, 0, name="", task_name="") for task in (TASK, other)
        )
        assert (one.train, one.dev, one.note, one.rows) == (two.train, two.dev, two.note, two.rows)
        assert [1 - value for value in one.test_metrics] == list(two.test_metrics)


def test_vectors_that_no_text_leaves_room_for_are_refused_before_anything_is_paid() -> None:
    with pytest.raises(ValueError, match=r"is too long: .* \+ 300 of prompt .* takes 256"):
        Experiment(
            "short",
            TASK,
            tiny_lm(),
            {"random": RandomSearch()},
            Budget(10_000),
            references={"lora+soft": LoRASoft(length=300)},
        )


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        *(
            (make, {name: value})
            for make in (FineTuning, LoRA, LoRASoft)
            for name in ("epochs", "patience", "batch")
            for value in (0, 2.5, math.nan, True)
        ),
        *((LoRA, {name: value}) for name in ("rank", "alpha") for value in (0, 2.5, math.nan)),
        (LoRASoft, {"length": 2.5}),
        *(
            (make, {name: value})
            for make, name in ((FineTuning, "learning_rates"), (LogisticHead, "inverse_strengths"))
            for value in ((), (0.1, 0), (0.1, math.nan), (math.inf,))
        ),
    ],
)
def test_a_schedule_that_no_training_could_keep_is_refused(
    make: Callable[..., object], settings: dict[str, Any]
) -> None:
    """2.5 passes in vain never come, and of NaN every comparison is false."""
    (name,) = settings
    with pytest.raises(ValueError, match=rf"^{name} (is|are) .* got "):
        make(**settings)


def test_a_head_needs_every_class() -> None:
    lacking = films(splits=Splits(SPLITS.train[::2], SPLITS.dev, SPLITS.test))
    with pytest.raises(ValueError, match="train lacks a class"):
        train_reference(LogisticHead(), lacking, tiny_lm(), 0, name="", task_name="")


def test_a_calibrated_task_is_trained_without() -> None:
    tuned = FineTuning(learning_rates=(1e-3,), epochs=1)
    plain, calibrated = (
        train_reference(tuned, task, tiny_lm(), 0, name="", task_name="")
        for task in (TASK, films(splits=SPLITS, calibration="contextual"))
    )
    assert plain.rewards == calibrated.rewards


def test_quantised_weights_are_not_fine_tuned() -> None:
    lm = FrozenLM(with_layers(tiny_model()), tiny_tokenizer(), "packed")
    with pytest.raises(ValueError, match=r"fine-tuning trains a copy of packed, and its weights"):
        check_references({"fine-tuning": FineTuning()}, TASK, lm)
    check_references({"lora": LoRA(), "logistic-head": LogisticHead()}, TASK, lm)
