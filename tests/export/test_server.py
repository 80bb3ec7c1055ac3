"""Several exported prompts answer side by side on one model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exports import TOKENS, class_task, export, soft, writing_task
from tiny import KINDS, TinyKind, tiny_lm, tiny_model, tiny_tokenizer

from rlprompt.data.examples import Example
from rlprompt.export.folder import ExportedPrompt, load_prompt
from rlprompt.export.server import PromptServer
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt

TEXTS = ("the film was great", "it was terrible", "the film")
THREE = {"a": ("good", "great fun"), "b": ("bad", "so so"), "c": ("it", "was")}
TASKS = {
    "plain": class_task(),
    "first": class_task("{prompt} {text}"),
    "calibrated": class_task(calibration="contextual"),
    "batch": class_task(calibration="batch", calibration_strength=0.7),
    "three": class_task("Film: {text} {prompt} It", THREE),
    "means": class_task("{prompt} {text}", THREE, length="mean", pooling="logsumexp"),
}
REQUESTS = [(name, {"text": text}) for text in TEXTS for name in TASKS]


def prompts(lm: FrozenLM) -> dict[str, Prompt]:
    kinds = (TOKENS, soft(lm), soft(lm, 2, seed=1), TOKENS, TOKENS, soft(lm))
    return dict(zip(TASKS, kinds, strict=True))


@pytest.fixture
def exported(tmp_path: Path, lm: FrozenLM) -> dict[str, ExportedPrompt]:
    given = prompts(lm)
    return {name: export(tmp_path / name, lm, given[name], task) for name, task in TASKS.items()}


def test_a_mixed_batch_is_answered_as_each_text_alone(
    lm: FrozenLM, exported: dict[str, ExportedPrompt]
) -> None:
    server = PromptServer(lm, exported)
    together = server.classify(REQUESTS)
    for request, answer in zip(REQUESTS, together, strict=True):
        (alone,) = server.classify([request])
        assert answer.label == alone.label == max(answer.chances, key=answer.chances.__getitem__)
        assert answer.chances == pytest.approx(alone.chances, abs=1e-5)
        assert sum(answer.chances.values()) == pytest.approx(1)


def test_no_request_has_no_answer(lm: FrozenLM, exported: dict[str, ExportedPrompt]) -> None:
    server = PromptServer(lm, exported)
    assert not server.classify([])
    assert not server.generate([])
    assert not server.answer([])


def test_each_answer_is_what_its_own_task_says(
    lm: FrozenLM, exported: dict[str, ExportedPrompt]
) -> None:
    given, server = prompts(lm), PromptServer(lm, exported)
    for name, task in TASKS.items():
        label = next(iter(task.label_words))
        examples = [Example({"text": text}, label) for text in TEXTS]
        measured = task.measure(lm, [given[name]], examples)
        assert measured.answers is not None
        answers = server.classify([(name, {"text": text}) for text in TEXTS])
        assert tuple(answer.label for answer in answers) == measured.answers[0]
        likelihood = dataclasses.replace(task, reward="cross_entropy")
        rewards = likelihood.rewards(lm, [given[name]], examples)[0]
        for answer, reward in zip(answers, rewards, strict=True):
            assert torch.tensor(answer.chances[label]).log() == pytest.approx(reward, abs=1e-4)


def test_one_model_is_in_memory_and_a_mixed_batch_takes_few_passes(
    tmp_path: Path, lm: FrozenLM, exported: dict[str, ExportedPrompt]
) -> None:
    passes: list[int] = []
    hook = lm.model.base_model.register_forward_hook(lambda *_: passes.append(1))
    three = class_task("{prompt} {text} It", {"a": "good", "b": "bad", "c": "it"})
    more = export(tmp_path / "more", lm, TOKENS, three)
    server = PromptServer(lm, {"first": exported["first"], "more": more})
    assert server.lm.model is lm.model
    passes.clear()
    server.classify([(name, {"text": text}) for text in TEXTS for name in ("first", "more")])
    # Six texts under two prompts, of unequal lengths and unequal numbers of label words.
    assert len(passes) == 1
    server = PromptServer(lm, {name: exported[name] for name in ("first", "means")})
    passes.clear()
    server.classify([request for request in REQUESTS if request[0] in ("first", "means")])
    hook.remove()
    assert len(passes) == 2  # whose words are normalised over the vocabulary, and whose are not


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_in_16_bits_classes_are_as_likely_as_their_task_scores_them(
    kind: TinyKind, dtype: torch.dtype, tmp_path: Path
) -> None:
    model: Any = tiny_model(kind)  # `to` is not annotated for a dtype
    half = FrozenLM(model.to(dtype), tiny_tokenizer(kind), f"tiny-{kind}")
    assert half.fingerprint.dtype == str(dtype).removeprefix("torch.")
    mask = " {mask} ." if half.kind == "masked" else ""
    tasks = {
        "last": class_task("{text} {prompt}" + mask),
        "first": class_task("{prompt} {text}" + mask, calibration="batch"),
        "three": class_task("{text} {prompt} It" + mask, THREE),
    }
    tasks = {name: dataclasses.replace(one, reward="cross_entropy") for name, one in tasks.items()}
    given: dict[str, Prompt] = {"last": TOKENS, "first": soft(half), "three": TOKENS}
    server = PromptServer(
        half, {name: export(tmp_path / name, half, given[name], one) for name, one in tasks.items()}
    )
    asked = [(name, text) for text in TEXTS for name in tasks]
    answers = dict(zip(asked, server.classify(asked), strict=True))
    for (name, text), answer in answers.items():
        for label, chance in answer.chances.items():
            example = Example({"text": text}, label)
            reward = tasks[name].rewards(half, [given[name]], [example]).item()
            assert chance == pytest.approx(np.exp(reward), abs=1e-6)


@pytest.mark.parametrize("calibration", ["none", "batch"])
def test_a_tie_is_no_answer_here_as_in_the_task(tmp_path: Path, calibration: str) -> None:
    model: Any = tiny_model()  # `get_output_embeddings` is not annotated
    tokenizer = tiny_tokenizer()
    bad, good = (tokenizer.encode(f" {word}")[0] for word in ("bad", "good"))
    with torch.no_grad():
        rows = model.get_output_embeddings().weight
        rows[good] = rows[bad]
    lm = FrozenLM(model, tokenizer, "even")
    task = class_task(calibration=calibration)
    server = PromptServer(lm, {"mine": export(tmp_path, lm, TOKENS, task)})
    measured = task.measure(lm, [TOKENS], [Example({"text": text}, "negative") for text in TEXTS])
    answers = server.classify([("mine", text) for text in TEXTS])
    assert measured.answers == (tuple(answer.label for answer in answers),) == (("",) * 3,)
    assert not measured.metrics.any()
    for answer in answers:
        assert answer.chances == {"negative": 0.5, "positive": 0.5}
        assert answer.probability == 0.5


def test_prompts_under_which_the_model_writes_are_served_as_well(
    tmp_path: Path, lm: FrozenLM
) -> None:
    task, other = writing_task(), writing_task("{prompt} {text}")
    server = PromptServer(
        lm,
        {
            "a": export(tmp_path / "a", lm, TOKENS, task),
            "b": export(tmp_path / "b", lm, soft(lm), other),
            "class": export(tmp_path / "c", lm),
        },
    )
    asked = [("a", {"text": "the film"}), ("b", {"text": "it was"}), ("a", {"text": "it"})]
    examples = [Example(fields, "x") for _, fields in asked]
    of_a = task.rewards_with_outputs(lm, [TOKENS], examples)[1][0]
    of_b = other.rewards_with_outputs(lm, [soft(lm)], examples)[1][0]
    assert server.generate(asked) == [of_a[0], of_b[1], of_a[2]]
    with pytest.raises(ValueError, match="'a' has no label words; ask it with `generate`"):
        server.classify(asked[:1])
    with pytest.raises(ValueError, match="'class' tells classes apart; ask it with `classify`"):
        server.generate([("class", {"text": "it"})])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("calibration", ["batch", "contextual"])
def test_a_prior_goes_along_and_needs_no_train(
    kind: TinyKind, calibration: str, tmp_path: Path
) -> None:
    lm = tiny_lm(kind)
    template = "{text} {prompt} {mask} ." if lm.kind == "masked" else "{text} {prompt}"
    task = class_task(template, calibration=calibration, calibration_strength=0.6)
    task = dataclasses.replace(task, reward="cross_entropy")
    export(tmp_path, lm, TOKENS, task)
    read = load_prompt(tmp_path)
    usage = read.facts.task.usage
    assert usage is not None
    assert (usage.prior, usage.calibration_strength) == (task.class_prior(lm, TOKENS), 0.6)
    server = PromptServer(lm, {"mine": read})
    for text in TEXTS:
        (answer,) = server.classify([("mine", {"text": text})])
        for label, chance in answer.chances.items():
            reward = task.rewards(lm, [TOKENS], [Example({"text": text}, label)])
            assert chance == pytest.approx(np.exp(reward.item()), abs=1e-6)


def test_masked_models_and_encoder_decoders_serve(tmp_path: Path) -> None:
    templates: dict[TinyKind, str] = {"bert": "{text} {prompt} {mask} .", "t5": "{text} {prompt}"}
    for kind, template in templates.items():
        lm = tiny_lm(kind)
        task = class_task(template)
        given: dict[str, Any] = {"tokens": TOKENS, "soft": soft(lm)}
        server = PromptServer(
            lm, {name: export(tmp_path / kind / name, lm, p, task) for name, p in given.items()}
        )
        answers = server.classify([(name, {"text": "the film"}) for name in given])
        example = [Example({"text": "the film"}, "positive")]
        for answer, prompt in zip(answers, given.values(), strict=True):
            measured = task.measure(lm, [prompt], example)
            assert measured.answers == ((answer.label,),)


def test_requests_that_cannot_be_answered_are_named(
    tmp_path: Path, lm: FrozenLM, exported: dict[str, ExportedPrompt]
) -> None:
    with pytest.raises(ValueError, match="nothing to serve"):
        PromptServer(lm, {})
    with pytest.raises(ValueError, match="prompt 'plain': tiny-llama is not the model"):
        PromptServer(tiny_lm(seed=1), exported)
    server = PromptServer(lm, exported)
    with pytest.raises(ValueError, match="no prompt is called 'x'; there are: plain, first"):
        server.classify([("x", {"text": "it"})])
    with pytest.raises(ValueError, match="needs the field 'text'; the example has 'body'"):
        server.classify([("plain", {"body": "it"})])
    facts = exported["plain"].facts
    bare = facts.model_copy(update={"task": facts.task.model_copy(update={"usage": None})})
    with pytest.raises(ValueError, match="'y' does not say how it is put to work"):
        PromptServer(lm, {"y": dataclasses.replace(exported["plain"], facts=bare)})
