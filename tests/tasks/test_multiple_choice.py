from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from spellings import spelling_lm
from tiny import CONTEXT, HIDDEN, PACKABLE, TinyKind, tiny_lm

from rlprompt.agents.demonstrations import Demonstrations
from rlprompt.data.examples import Example, OnLongText
from rlprompt.data.load import load_splits
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import PrefixPrompt, SoftPrompt, TokenPrompt
from rlprompt.search.run import search
from rlprompt.tasks.multiple_choice import MultipleChoiceTask

TEMPLATE = "Question: {question} {prompt}\nAnswer:"
OPTIONS = (
    ["ice", "iron", "table salt"],
    ["Venus", "so it was Mercury", "Mars", "the Earth"],
    ["a good six", "eight"],
)
ROWS: list[dict[str, Any]] = [
    {"question": f"{i}: it was the film", "choices": OPTIONS[i % 3], "answer": i % 2}
    for i in range(12)
]


def task(**changes: Any) -> MultipleChoiceTask:
    return MultipleChoiceTask.from_file(ROWS, **{"template": TEMPLATE, "shots": 3, **changes})


def plain_loglik(lm: FrozenLM, context: str, option: str) -> float:
    """As lm-evaluation-harness scores a continuation: ids of the whole, less those of its start."""
    whole = lm.tokenizer(context + " " + option)["input_ids"]
    n_context = len(lm.tokenizer(context)["input_ids"])
    with torch.no_grad():
        logits = lm.model(torch.tensor([whole])).logits[0, n_context - 1 : -1].float()
    logs = logits.log_softmax(-1)
    return float(logs.gather(1, torch.tensor(whole[n_context:])[:, None]).sum())


def expected(
    lm: FrozenLM, examples: Sequence[Example], prompt: str, metric: str
) -> tuple[list[list[float]], list[float]]:
    """Log-likelihoods of all options, and whether the best is right, by the harness's rules."""
    logliks, right = [], []
    for example in examples:
        context = f"Question: {example.fields['question']}{prompt}\nAnswer:"
        own = [plain_loglik(lm, context, option) for option in example.options]
        sizes = [
            float(len({"acc": "x", "acc_norm": o, "acc_bytes": o.encode()}[metric]))
            for o in example.options
        ]
        best = int(np.argmax(np.array(own) / np.array(sizes)))
        logliks.append(own)
        right.append(float(best == example.options.index(example.label)))
    return logliks, right


@pytest.mark.parametrize("kind", [*PACKABLE, "bloom"])
def test_options_are_scored_as_plain_continuations(kind: TinyKind) -> None:
    lm, made = tiny_lm(kind), task()
    prompts = [TokenPrompt(), made.written(lm, "so good")]
    scores = made.scores(lm, prompts, made.splits.test)
    for text, row in zip(("", " so good"), scores, strict=True):
        logliks, right = expected(lm, made.splits.test, text, "acc")
        for own, wanted in zip(row, logliks, strict=True):
            np.testing.assert_allclose(own[: len(wanted)], wanted, atol=1e-4)
            assert own[len(wanted) :].isneginf().all()
        prompt = [made.written(lm, text)]
        assert made.measure(lm, prompt, made.splits.test).metrics.tolist() == [right]


@pytest.mark.parametrize("metric", ["acc", "acc_norm", "acc_bytes"])
def test_the_length_of_an_option_is_of_characters_or_bytes(lm: FrozenLM, metric: str) -> None:
    rows = [row | {"choices": [*row["choices"], "naïve café à la Noël"]} for row in ROWS]
    made = MultipleChoiceTask.from_file(rows, template=TEMPLATE, shots=2, metric=metric)
    _, right = expected(lm, made.splits.test, "", metric)
    measured = made.measure(lm, [TokenPrompt()], made.splits.test)
    assert measured.metrics.tolist() == [right]
    assert measured.answers is not None
    for example, answer in zip(made.splits.test, measured.answers[0], strict=True):
        assert answer in example.options


def test_rewards_are_those_of_classes_over_the_options_of_each_row(lm: FrozenLM) -> None:
    made, prompt = task(), [TokenPrompt((20, 30))]
    examples = made.splits.test
    scores = made.scores(lm, prompt, examples)[0]
    for example, row, found in zip(
        examples, scores, made.rewards(lm, prompt, examples)[0], strict=True
    ):
        own = row[: len(example.options)]
        wanted = own.log_softmax(0)[example.options.index(example.label)]
        assert found == pytest.approx(float(wanted))
    right = replace(made, reward="accuracy")
    assert (right.rewards(lm, prompt, examples) == right.measure(lm, prompt, examples)[1]).all()


@pytest.mark.parametrize("reward", ["cross_entropy", "hinge", "gap"])
def test_a_gradient_is_that_of_differences(lm: FrozenLM, reward: str) -> None:
    made = task(reward=reward, metric="acc_norm")
    rng = np.random.default_rng(0)
    prompt = SoftPrompt(0.3 * rng.standard_normal((2, HIDDEN)))
    rewards, grad = made.rewards_with_grad(lm, [prompt], made.splits.train)
    np.testing.assert_allclose(rewards, made.rewards(lm, [prompt], made.splits.train), atol=1e-3)
    step = 1e-2 * grad[0] / np.linalg.norm(grad[0])
    ends = [SoftPrompt(prompt.vectors + sign * step) for sign in (1, -1)]
    up, down = made.rewards(lm, ends, made.splits.train).mean(1)
    assert up - down == pytest.approx(2e-2 * np.linalg.norm(grad[0]), rel=0.05)


def test_accuracy_has_no_gradient_but_that_of_cross_entropy_beside_it(lm: FrozenLM) -> None:
    made = task(reward="accuracy")
    prompts = [SoftPrompt(np.zeros((1, HIDDEN)))]
    with pytest.raises(ValueError, match="the reward accuracy has no gradient"):
        made.rewards_with_grad(lm, prompts, made.splits.train)
    rewards, grad = made.cross_entropy_with_grad(lm, prompts, made.splits.train)
    assert set(rewards.flatten()) <= {0.0, 1.0}
    assert np.abs(grad).max() > 0


def test_keys_and_values_may_be_the_prompt(lm: FrozenLM) -> None:
    made = task(template="{prompt} {question}\nAnswer:")
    shape = (2, *(lm.limits.position_shape))
    prompt = PrefixPrompt(np.random.default_rng(0).standard_normal(shape))
    rewards, grad = made.rewards_with_grad(lm, [prompt], made.splits.train)
    assert (rewards.shape, grad.shape) == ((1, 3), (1, *shape))


def test_letters_are_answered_where_the_text_shows_them(lm: FrozenLM) -> None:
    made = task(template="{question}\n{choices}\n{prompt} Answer:", answer_by="letter")
    example = made.splits.train[0]
    first = example.options[0]
    assert example.fields["choices"].startswith(f"A. {first}\nB. ")
    (query,) = made.queries(lm, [example])
    assert query.candidates == tuple(lm.encode(f" {one}") for one in "ABCD"[: len(example.options)])
    measured = made.measure(lm, [TokenPrompt()], [example])
    assert measured.answers is not None
    assert measured.answers[0][0] in example.options


@pytest.mark.parametrize("how", ["truncate-start", "truncate-end", "truncate-middle"])
def test_options_that_the_text_shows_are_never_cut(how: OnLongText) -> None:
    lm = tiny_lm()
    options = [letter * 60 for letter in "xyz"]  # longer than the question
    texts = [f"{i} {'x' * 80} {i}" for i in range(12)]
    rows = [
        row | {"question": text, "choices": options} for row, text in zip(ROWS, texts, strict=True)
    ]
    settings: Any = {"template": "{question}\n{choices}\n{prompt}Answer:", "answer_by": "letter"}
    made = MultipleChoiceTask.from_file(rows, shots=2, on_long_text=how, **settings)
    whole = made.splits.train[0].fields["choices"]
    assert min(n for n, _ in made.lengths(lm, made.splits.train)) > CONTEXT
    for part in made.fitted(lm, 4).splits.parts().values():
        assert all(example.fields["choices"] == whole for example in part)
        assert all(0 < len(example.fields["question"]) < 80 for example in part)
        sizes = made.lengths(lm, part)
        assert max(n_text + 4 + n_answer for n_text, n_answer in sizes) <= CONTEXT
    longer = [row | {"choices": [f"{one} {'x' * 80}" for one in options]} for row in rows]
    made = MultipleChoiceTask.from_file(longer, shots=2, on_long_text=how, **settings)
    with pytest.raises(ValueError, match=r"\[\d+\] is too long even without its text.*options"):
        made.fitted(lm, 4)


def test_examples_are_shown_with_the_right_option() -> None:
    made = task()
    shown = made.demonstrations()
    assert shown is not None
    example = made.splits.train[0]
    text = f"Question: {example.fields['question']}\nAnswer: {example.label}\n\n"
    assert shown.rounds[0] == [text]


@pytest.mark.parametrize("by", ["text", "letter"])
def test_demonstrations_show_the_right_options(lm: FrozenLM, by: str) -> None:
    made = task(template="{prompt}{question}\n{choices}\nAnswer:", answer_by=by, shots=4)
    right = "AB" if by == "letter" else ("ice", "iron")
    first = next(i for i, one in enumerate(made.splits.train) if one.options == tuple(OPTIONS[0]))
    one = made.splits.train[first]
    answer = right[OPTIONS[0].index(one.label)]
    asked = f"{one.fields['question']}\nA. ice\nB. iron\nC. table salt\nAnswer:"
    assert made.shown([first]) == f"{asked} {answer}\n\n"
    assert list(made.showable()) == [0, 1, 2, 3]
    result = search(made, lm, Demonstrations(at_most=1), budget=40)
    assert result.best.text.strip() in [made.shown([i]).strip() for i in range(4)]


def test_whatever_decides_a_score_is_in_the_fingerprint() -> None:
    rows = [dict(row) for row in ROWS]
    rows[0]["choices"] = [*rows[0]["choices"], "tin"]
    made = [
        task(),
        task(reward="gap"),
        task(metric="acc_norm"),
        task(answer_by="letter"),
        task(answer_space=""),
        task(select_by="metric"),
        MultipleChoiceTask.from_file(rows, template=TEMPLATE, shots=3),
    ]
    assert len({one.fingerprint for one in made}) == len(made)
    assert task().fingerprint == task().fingerprint


@pytest.mark.parametrize("answer", ["B", 1, "1", "Mercury"])
@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_the_right_option_is_named_in_any_way(tmp_path: Path, answer: object, ending: str) -> None:
    rows = [
        {
            "question": f"q{i}",
            "choices": ["Venus", "Mercury", "Mars"][: 2 + i % 2],
            "answer": answer,
        }
        for i in range(6)
    ]
    path = tmp_path / f"rows.{ending}"
    if ending == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    else:
        quoted = [json.dumps(row["choices"]).replace('"', '""') for row in rows]
        lines = [f'q{i},"{own}",{answer}' for i, own in enumerate(quoted)]
        path.write_text("\n".join(["question,choices,answer", *lines]), "utf-8")
    splits = MultipleChoiceTask.from_file(path, template=TEMPLATE, shots=1).splits
    assert {one.label for part in splits.parts().values() for one in part} == {"Mercury"}


def test_options_may_have_labels_as_in_arc() -> None:
    options = {"text": ["Venus", "Mercury"], "label": ["1", "2"]}
    rows = [{"question": f"q{i}", "choices": options, "answerKey": "1"} for i in range(4)]
    splits = load_splits(
        rows, None, text=["question"], label="answerKey", options="choices", shots=1
    )
    assert splits.train[0].label == "Venus"


def test_the_same_question_with_other_options_is_another_one() -> None:
    rows = [
        {"question": "Which is true?", "choices": [f"a{i}", f"b{i}"], "answer": 0} for i in range(4)
    ]
    splits = MultipleChoiceTask.from_file(rows, template=TEMPLATE, shots=1).splits
    assert [len(part) for part in splits.parts().values()] == [1, 1, 2]


def test_examples_in_memory_keep_their_options() -> None:
    examples = [Example({"question": f"q{i}"}, "b", options=("a", "b")) for i in range(4)]
    splits = MultipleChoiceTask.from_file(examples, template=TEMPLATE, shots=1).splits
    assert splits.train[0].options == ("a", "b")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": 7}, r"rows\[0\] has the answer '7', which is none of its 3 options; give a le"),
        ({"answer": "D"}, "the answer 'D', which is none of its 3 options"),
        ({"answer": None}, "the answer '', which is none of its 3 options"),
        ({"choices": ["one"]}, r"has \['one'\] in choices; give two options or more"),
        ({"choices": []}, r"has \[\] in choices; give two options or more"),
        ({"choices": "one, two"}, "'one, two' in choices, which is no list of options"),
        ({"choices": None}, "None in choices, which is no list of options"),
        ({"choices": ["a", " "]}, "an empty option in choices"),
        ({"choices": ["a", "a "]}, "the option 'a' twice in choices"),
        ({"choices": ["1", "0"], "answer": "1"}, "the text of one option and the letter or place"),
        ({"choices": {"text": ["a", "b"], "label": ["A"]}}, "2 options and 1 labels"),
    ],
)
def test_a_row_that_cannot_be_is_named(changes: dict[str, Any], message: str) -> None:
    rows = [ROWS[0] | changes, *ROWS[1:]]
    with pytest.raises(ValueError, match=message.replace("rows", "examples")):
        MultipleChoiceTask.from_file(rows, template=TEMPLATE, shots=2)
    kept = MultipleChoiceTask.from_file(rows, template=TEMPLATE, shots=2, on_bad_rows="skip")
    assert kept.splits.notes[0].startswith("1 row was left out")


@pytest.mark.parametrize("alike", [["Bad", "bad"], ["☃", "good", "☂"]])
def test_options_that_a_model_cannot_tell_apart_are_a_bad_row(alike: list[str]) -> None:
    lm = spelling_lm("wordpiece")
    settings: Any = {"template": f"{TEMPLATE} {{mask}}", "shots": 3}
    rows = [row | {"choices": ["good", "bad", "great"]} for row in ROWS]
    rows.append({"question": "odd", "choices": alike, "answer": 0})
    told = rf"spells the options '{alike[0]}' and '{alike[-1]}' of examples\[12\] alike"
    made = MultipleChoiceTask.from_file(rows, **settings)
    every = [example for part in made.splits.parts().values() for example in part]
    with pytest.raises(ValueError, match=f"{told}; mend the text, or set on_bad_rows: skip"):
        made.fitted(lm, 2)
    with pytest.raises(ValueError, match=told):
        made.rewards(lm, [TokenPrompt()], [e for e in every if e.source == "examples[12]"])
    skipped = MultipleChoiceTask.from_file(rows, **settings, on_bad_rows="skip").fitted(lm, 2)
    assert sum(map(len, skipped.splits.parts().values())) == 12
    assert "1 row was left out: " in skipped.splits.notes[-1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"choices": "option"}, "no column 'option'; it has"),
        ({"reward": "accurate"}, "reward is 'accurate'; give one of gap"),
        ({"metric": "accuracy"}, "metric is 'accuracy'; give acc or acc_norm"),
        ({"answer_by": "number"}, "answer_by is 'number'; give text or letter"),
        ({"calibration": "batch"}, "here each row has its own options; leave it out"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task(**changes)


def test_a_task_made_of_examples_checks_them_too() -> None:
    made = task()
    bare = replace(made.splits.train[0], options=())
    with pytest.raises(ValueError, match="has 0 options; give two or more"):
        replace(made, splits=replace(made.splits, train=(bare,)))
    other = replace(made.splits.train[0], label="tin")
    with pytest.raises(ValueError, match="the answer 'tin', which is not one of its options"):
        replace(made, splits=replace(made.splits, train=(other,)))


def test_a_masked_model_needs_a_place_for_the_option() -> None:
    made = task()
    with pytest.raises(ValueError, match=r"the template needs a \{mask\}"):
        made.rewards(tiny_lm("bert"), [TokenPrompt()], made.splits.train)
