"""Chats as the tokenizer's own template writes them, by transformers alone."""

from __future__ import annotations

import copy
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exports import export
from spellings import CHAT_TEMPLATE, plain_loglik, spelling_tokenizer
from tiny import tiny_model

from rlprompt.data.examples import Example, Splits
from rlprompt.export.server import PromptServer
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import SoftPrompt, TokenPrompt
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.tasks.generation import GenerationTask
from rlprompt.template import Template, TemplateText

CHAT = {"system": "{prompt}", "user": "{text}"}
WORDS = {"negative": "bad", "positive": "good"}
TURNS: list[dict[str, str]] = [
    {"system": "Say {{good}} or bad. {prompt}"},
    {"user": "the film"},
    {"assistant": "bad"},
    {"user": "It was {text}"},
]


@lru_cache
def chat_lm(name: str = "no prefix") -> FrozenLM:
    own: Any = copy.deepcopy(spelling_tokenizer(name))  # what is cached stays as it is
    own.chat_template = CHAT_TEMPLATE
    return FrozenLM(tiny_model("llama", vocab_size=len(own)), own, f"chat {name}")


def parts(*labels: str) -> Splits:
    train, dev, test = (
        tuple(Example({"text": f"{split} {i} was good"}, label) for i, label in enumerate(labels))
        for split in ("train", "dev", "test")
    )
    return Splits(train, dev, test)


def task(template: TemplateText = CHAT, **settings: Any) -> ClassificationTask:
    made = Template.of(template)
    settings = {"calibration": "none", **settings}
    return ClassificationTask("chats", parts(*WORDS), made, WORDS, **settings)


def rendered(lm: FrozenLM, template: Any, text: str, prompt: str, **options: Any) -> Any:
    """The chat by transformers alone."""
    chat = messages(template, text, prompt)
    own: Any = lm.tokenizer
    return own.apply_chat_template(chat, add_generation_prompt=True, **options)


def messages(template: Any, text: str, prompt: str) -> list[dict[str, str]]:
    listed = [template] if isinstance(template, dict) else template
    return [
        {"role": role, "content": content.format(text=text, prompt=prompt)}
        for one in listed
        for role, content in one.items()
    ]


@pytest.mark.parametrize("name", ["no prefix", "bytes", "prepend", "metaspace first", "tiktoken"])
@pytest.mark.parametrize("template", [CHAT, TURNS, {"user": "{text}\n{prompt}"}])
def test_scores_are_those_of_the_rendered_chat(name: str, template: Any) -> None:
    lm, made = chat_lm(name), task(template)
    prompt = made.written(lm, "It was")
    query = made.queries(lm, made.splits.train[:1])[0]
    text = made.splits.train[0].fields["text"]
    right = rendered(lm, template, text, "It was")["input_ids"]
    assert list(query.head_ids + prompt.ids + query.tail_ids) == right
    assert right.count(lm.tokenizer.bos_token_id) == 1
    ours = lm.score([prompt], [query])[0, 0].tolist()
    plain = [plain_loglik(lm, right, answer) for answer in query.candidates]
    assert ours == pytest.approx(plain, abs=1e-4)


def test_an_answers_beginning_is_gone_on_with() -> None:
    lm = chat_lm()
    template = [{"system": "{prompt}"}, {"user": "{text}"}, {"assistant": "Mood:"}]
    made = task(template)
    query = made.queries(lm, made.splits.train[:1])[0]
    assert lm.decode(query.tail_ids).endswith("<|im_start|>assistant\nMood:")
    (spelt, *_) = made.label_word_report(lm).words
    assert spelt.text == " bad"  # after a word, not after a header
    assert task().label_word_report(lm).words[0].text == "bad"


def test_vectors_and_writing_work_as_well() -> None:
    lm = chat_lm()
    made = task()
    tokens = made.written(lm, "It was very good")
    vectors = SoftPrompt(lm.embeddings()[list(tokens.ids)])
    found = [made.rewards(lm, [prompt], made.splits.dev) for prompt in (tokens, vectors)]
    np.testing.assert_allclose(found[0], found[1], atol=1e-3)
    writing = GenerationTask("w", parts("x", "y"), Template.of(CHAT), "contains", max_new_tokens=3)
    _, outputs = writing.rewards_with_outputs(lm, [tokens], writing.splits.train)
    text = writing.splits.train[0].fields["text"]
    chat = rendered(lm, CHAT, text, "It was very good", return_tensors="pt")
    model: Any = lm.model
    written = model.generate(**chat, max_new_tokens=3, do_sample=False)[0]
    answer = lm.decode(written[chat["input_ids"].shape[1] :].tolist())
    assert outputs[0][0] == answer.partition("\n")[0].strip()


def test_a_prompt_in_a_chat_is_typed_again() -> None:
    lm, made = chat_lm("bytes"), task()
    prompt = made.written(lm, "It was very good")
    assert made.described(lm, prompt) == ("It was very good", True)
    assert made.described(lm, TokenPrompt(lm.encode(" It was")))[1] is False  # trimmed


def test_it_is_exported_and_served(tmp_path: Path) -> None:
    lm = chat_lm("bytes")
    made = task()
    prompt = made.written(lm, "It was very good")
    exported = export(tmp_path, lm, prompt, made)
    assert exported.facts.before_ids == made.queries(lm, made.splits.test)[0].head_ids
    (answer,) = PromptServer(lm, {"mine": exported}).classify(
        [("mine", made.splits.test[0].fields)]
    )
    loglik = lm.score([prompt], made.queries(lm, made.splits.test[:1]))[0, 0].double()
    assert list(answer.chances.values()) == pytest.approx(loglik.softmax(-1).tolist(), abs=1e-6)
    page = (tmp_path / "README.md").read_text("utf-8")
    start, end = "<s><|im_start|>system\\n", "<|im_end|>\\n<|im_start|>user\\n{text}<|im_end|>\\n"
    assert f"before = ids('{start}')" in page
    assert f"after = ids('{end}<|im_start|>assistant\\n', inside=True)" in page


def test_it_is_a_text_in_files_and_hashes() -> None:
    made = Template.of(CHAT)
    again = Template(made.text)
    assert made == again
    assert again.messages == made.messages
    assert again.fields == ("text",)
    assert task().fingerprint != task({"system": "{text}", "user": "{prompt}"}).fingerprint
    listed = [{"role": "system", "content": "{prompt}"}, {"role": "user", "content": "{text}"}]
    assert Template.of(listed) == made


def test_a_pasted_beginning_stands_once_and_is_said() -> None:
    lm = chat_lm()
    pasted = rendered(lm, CHAT, "{text}", "{prompt}", tokenize=False)
    made, as_chat = task(pasted), task()
    example = made.splits.train[:1]
    assert made.queries(lm, example) == as_chat.queries(lm, example)
    (warning, *_) = made.spelling_warnings(lm)
    assert "the template writes <s>, which the tokenizer of chat no prefix adds" in warning
    assert not list(as_chat.spelling_warnings(lm))


@pytest.mark.parametrize(
    ("written", "is_dated"),
    [
        ("{{ strftime_now('%d %b %Y') }} ", True),
        ("{% set day = strftime_now('%Y') if messages[0].role != 'system' else 'x' %}{{ day }}", 0),
        ("{{ strftime_now('a')[:1] }}", False),
        ("{{ strftime_now('%d %b').split()[1] }} ", True),
    ],
)
def test_a_template_that_writes_the_date_is_said(written: str, is_dated: bool) -> None:
    own: Any = copy.deepcopy(spelling_tokenizer("no prefix"))
    own.chat_template = written + CHAT_TEMPLATE
    lm = FrozenLM(tiny_model("llama", vocab_size=len(own)), own, "dated")
    said = [one for one in task().spelling_warnings(lm) if "writes today's date" in one]
    assert len(said) == is_dated
    assert not list(task("{text} {prompt}").spelling_warnings(lm))  # no chat


class TestMistakes:
    def test_a_model_without_a_chat_template_is_told(self) -> None:
        own = spelling_tokenizer("bytes")
        lm = FrozenLM(tiny_model("llama", vocab_size=len(own)), own, "plain")
        with pytest.raises(ValueError, match="this model's tokenizer has no chat template: take"):
            task().queries(lm, task().splits.train)

    def test_a_role_that_the_chat_template_refuses_is_told(self) -> None:
        with pytest.raises(ValueError, match="refuses messages of tool, user: no role tool"):
            task({"tool": "{prompt}", "user": "{text}"}).written(chat_lm(), "x")

    @pytest.mark.parametrize(
        ("template", "message"),
        [
            ({}, "has no messages"),
            ({"user": 3}, "a message of the template is"),
            ({"user": "{text}"}, "has 0 {prompt}"),
            ({"system": "{prompt}", "user": "{text.x}"}, "a field is a plain name"),
        ],
    )
    def test_a_broken_chat_is_named(self, template: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message.replace("{", r"\{")):
            Template.of(template)


def test_the_default_models_chats_are_scored_as_by_transformers(
    real_tokenizer: FrozenLM,
) -> None:
    template = {"system": "{prompt}", "user": "{text}\nIs this bad or good?"}
    made, prompt = task(template), "Answer with one word."
    (query,) = made.queries(real_tokenizer, made.splits.train[:1])
    tokens = made.written(real_tokenizer, prompt)
    text = made.splits.train[0].fields["text"]
    right = rendered(real_tokenizer, template, text, prompt)["input_ids"]
    assert list(query.head_ids + tokens.ids + query.tail_ids) == right
    words = [list(real_tokenizer.encode(word)) for word in ("bad", "good")]
    assert list(map(list, query.candidates)) == words
    plain = [plain_loglik(real_tokenizer, right, word) for word in words]
    ours = real_tokenizer.score([tokens], [query])[0, 0].tolist()
    assert ours == pytest.approx(plain, abs=1e-4)


def test_an_experiment_file_takes_a_chat(tmp_path: Path) -> None:
    from rlprompt.config.tasks import ClassificationConfig

    section = {"data": "a.csv", "template": CHAT, "label_words": WORDS}
    config = ClassificationConfig.model_validate(section)
    assert Template(config.template) == Template.of(CHAT)
    assert ClassificationConfig.model_validate(config.model_dump(mode="json")) == config
