from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from class_tasks import (
    CAUSAL,
    LONG,
    MASKED,
    PROMPTS,
    SPLITS,
    TRAIN,
    WORDS,
    check_slopes,
    example,
    soft,
    task,
)
from numpy.typing import NDArray
from tiny import TinyKind, tiny_lm

from rlprompt.agents.gcg import GCG
from rlprompt.agents.soft_prompt import SoftPromptTuning
from rlprompt.data.examples import Splits
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, SoftPrompt, TokenPrompt
from rlprompt.search.budget import Budget
from rlprompt.search.objective import Objective
from rlprompt.search.space import SoftSpace
from rlprompt.studies.experiment import Experiment
from rlprompt.tasks.class_scores import REWARDS
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.template import Template


def by_hand(
    lm: FrozenLM, prompt: Prompt, text: str, words: Sequence[str], after: str = ""
) -> NDArray[np.float64]:
    """Probabilities of the answers, one plain forward pass of transformers each: no packing.

    Args:
        lm: Any causal model.
        prompt: The prompt.
        text: What stands before it.
        words: The answers, with the space before them.
        after: What stands between prompt and answer.
    """
    tokenizer, model, prompt = lm.tokenizer, lm.model, lm.fed(prompt)
    start = list(tokenizer(text)["input_ids"])
    middle = tokenizer(after, add_special_tokens=False)["input_ids"] if after else []
    logliks = []
    for word in words:
        answer = tokenizer(word, add_special_tokens=False)["input_ids"]
        table = model.get_input_embeddings()
        pieces = [table(torch.tensor(start, dtype=torch.long))]
        if isinstance(prompt, SoftPrompt):
            pieces.append(torch.tensor(prompt.vectors))
        else:
            pieces.append(table(torch.tensor(prompt.ids, dtype=torch.long)))
        pieces.append(table(torch.tensor([*middle, *answer], dtype=torch.long)))
        with torch.no_grad():
            logits = model(inputs_embeds=torch.cat(pieces)[None]).logits[0].double()
        places = torch.arange(len(answer)) + len(logits) - len(answer) - 1
        logs = logits.log_softmax(-1)[places, torch.tensor(answer)]
        logliks.append(float(logs.sum()))
    weights = np.exp(np.array(logliks) - max(logliks))
    probabilities: NDArray[np.float64] = weights / weights.sum()
    return probabilities


class TestParity:
    @pytest.mark.parametrize("kind", ["llama", "gpt2", "bloom"])
    @pytest.mark.parametrize("words", [WORDS, LONG], ids=["one token", "several tokens"])
    @pytest.mark.parametrize("prompts", [PROMPTS, soft()], ids=["tokens", "soft"])
    def test_rewards_are_those_of_a_plain_forward_pass(
        self, kind: TinyKind, words: dict[str, str], prompts: list[Prompt]
    ) -> None:
        lm = tiny_lm(kind)
        rewards = task(label_words=words).rewards(lm, prompts, TRAIN)
        for p, prompt in enumerate(prompts):
            for e, one in enumerate(TRAIN):
                answers = [f" {word}" for word in words.values()]
                probabilities = by_hand(lm, prompt, one.fields["text"], answers)
                expected = np.log(probabilities[list(words).index(one.label)])
                assert rewards[p, e] == pytest.approx(expected, abs=2e-4)

    def test_words_of_several_tokens_are_scored_whole(self) -> None:
        lm = tiny_lm()
        assert list(map(len, task(label_words=LONG).candidates(lm))) == [2, 1, 8]
        other = LONG | {"neg": "bad it"}  # the first token is the same
        first, second = (
            task(label_words=words).rewards(lm, PROMPTS, TRAIN) for words in (LONG, other)
        )
        assert np.abs(first - second).max() > 1

    def test_an_answer_on_a_line_of_its_own_follows_the_line_break(self) -> None:
        lm = tiny_lm()
        rewards = task(template=Template("{text} {prompt}\n")).rewards(lm, PROMPTS[:2], TRAIN[:1])
        for reward, prompt in zip(rewards[:, 0], PROMPTS, strict=False):
            probabilities = by_hand(lm, prompt, "the film was good", list(WORDS.values()), "\n")
            assert reward == pytest.approx(np.log(probabilities[1]), abs=2e-4)

    @pytest.mark.parametrize("kind", ["bert", "roberta"])
    def test_a_masked_model_answers_at_its_mask(self, kind: TinyKind) -> None:
        lm = tiny_lm(kind)
        rewards = task(template=Template(MASKED)).rewards(lm, PROMPTS[:2], TRAIN[:2])
        for p, prompt in enumerate(PROMPTS[:2]):
            assert isinstance(prompt, TokenPrompt)
            for e, one in enumerate(TRAIN[:2]):
                ids = [
                    *lm.tokenizer(one.fields["text"])["input_ids"][:-1],
                    *prompt.ids,
                    lm.mask_id,
                    *lm.encode(" ."),
                    lm.tokenizer.eos_token_id,
                ]
                with torch.no_grad():
                    logits = lm.model(input_ids=torch.tensor([ids])).logits[
                        0, ids.index(lm.mask_id)
                    ]
                answers = [lm.encode(f" {word}")[0] for word in WORDS.values()]
                logs = logits[answers].double().log_softmax(-1)
                expected = float(logs[list(WORDS).index(one.label)])
                assert rewards[p, e] == pytest.approx(expected, abs=2e-4)

    @pytest.mark.parametrize("name", list(REWARDS))
    def test_every_reward_is_its_function_of_the_same_probabilities(self, name: str) -> None:
        lm = tiny_lm()
        words = ["terrible", "great", "good"]
        labels = dict(zip(("neg", "pos", "mid"), words, strict=True))
        rewards, metric, _ = task(label_words=labels, reward=name).measure(lm, PROMPTS, TRAIN)
        for p, prompt in enumerate(PROMPTS):
            for e, one in enumerate(TRAIN):
                probabilities = by_hand(lm, prompt, one.fields["text"], [f" {w}" for w in words])
                label = list(labels).index(one.label)
                margin = probabilities[label] - np.delete(probabilities, label).max()
                behind = np.log(np.delete(probabilities, label) / probabilities[label])
                expected = {
                    "gap": margin * (200 if margin > 0 else 180),
                    "cross_entropy": np.log(probabilities[label]),
                    "hinge": -np.maximum(0, 2 + behind).sum(),
                    "accuracy": float(margin > 0),
                }[name]
                assert rewards[p, e] == pytest.approx(expected, abs=5e-3)
                assert metric[p, e] == (margin > 0)

    def test_the_task_reports_accuracy_beside_its_reward(self) -> None:
        lm = tiny_lm()
        rewards, metric, _ = task(reward="gap").measure(lm, PROMPTS, TRAIN)
        assert np.array_equal(rewards, task(reward="gap").rewards(lm, PROMPTS, TRAIN))
        assert np.array_equal(metric, task(reward="accuracy").rewards(lm, PROMPTS, TRAIN))
        assert np.array_equal(metric == 1, rewards > 0)


class TestGradient:
    @pytest.mark.parametrize("name", ["gap", "cross_entropy", "hinge"])
    @pytest.mark.parametrize("template", [CAUSAL, "{prompt} {text}", "{text} {prompt} it was"])
    def test_it_is_that_of_finite_differences(self, name: str, template: str) -> None:
        made = task(reward=name, template=Template(template), label_words=LONG)
        check_slopes(made, tiny_lm(), seed=0, step=1e-3, within=0.02)

    def test_prompts_do_not_mix(self) -> None:
        lm, made, prompts = tiny_lm(), task(), soft(3)
        _, together = made.rewards_with_grad(lm, prompts, TRAIN)
        for prompt, gradient in zip(prompts, together, strict=True):
            _, alone = made.rewards_with_grad(lm, [prompt], TRAIN)
            np.testing.assert_allclose(alone[0], gradient, rtol=1e-3, atol=1e-4)

    def test_equal_prompts_have_equal_gradients(self) -> None:
        lm, made, (prompt,) = tiny_lm(), task(), soft(1)
        _, gradients = made.rewards_with_grad(lm, [prompt, prompt], TRAIN)
        np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-3, atol=1e-5)

    @pytest.mark.parametrize("name", ["gap", "accuracy"])
    def test_that_of_cross_entropy_comes_with_the_rewards_of_the_task(self, name: str) -> None:
        lm, prompts = tiny_lm(), soft()
        made, other = task(reward=name), task(reward="cross_entropy")
        rewards, gradients = made.cross_entropy_with_grad(lm, prompts, TRAIN)
        np.testing.assert_allclose(rewards, made.rewards(lm, prompts, TRAIN), atol=1e-2)
        assert np.array_equal(gradients, other.rewards_with_grad(lm, prompts, TRAIN)[1])

    def test_that_of_cross_entropy_is_that_of_plain_torch(self) -> None:
        """Of the mean over two examples, each with one forward pass of transformers."""
        lm, (prompt,), examples = tiny_lm(), soft(1), TRAIN[:2]
        _, (gradient,) = task(reward="gap").cross_entropy_with_grad(lm, [prompt], examples)
        vectors = torch.tensor(prompt.vectors, requires_grad=True)
        table, answers = lm.embeddings(), [lm.encode(f" {word}")[0] for word in WORDS.values()]
        total = torch.zeros(())
        for one in examples:
            text = torch.tensor(table[lm.tokenizer(one.fields["text"])["input_ids"]])
            logits = lm.model(inputs_embeds=torch.cat([text, vectors])[None]).logits[0, -1]
            total = total + logits[answers].log_softmax(-1)[list(WORDS).index(one.label)] / 2
        (expected,) = torch.autograd.grad(total, vectors)
        scale = float(expected.abs().max())
        np.testing.assert_allclose(gradient, expected.numpy(), atol=1e-4 * scale)

    def test_accuracy_has_none_and_says_what_has(self) -> None:
        with pytest.raises(ValueError, match=r"no gradient.*gap, cross_entropy, hinge"):
            task(reward="accuracy").rewards_with_grad(tiny_lm(), soft(), TRAIN)

    def test_who_would_climb_accuracy_is_told_before_anything_is_paid(self) -> None:
        lm, made = tiny_lm(), task(reward="accuracy")
        assert not made.has("rewards_with_grad")
        assert made.has("cross_entropy_with_grad")
        for method in (SoftPromptTuning(), GCG()):  # of the cross-entropy beside it
            Experiment("one", made, lm, {"climbs": method}, Budget(60), length=2)
        for method in (SoftPromptTuning(loss="reward"), SoftPromptTuning(loss=None)):
            told = "reward of task 'film' has no gradient, which climbs would follow; set `loss: "
            with pytest.raises(ValueError, match=told):
                Experiment("one", made, lm, {"climbs": method}, Budget(60), length=2)
            objective = Objective(made, lm, Budget(60))
            space = SoftSpace.from_lm(lm, 2, np.random.default_rng(0))
            with pytest.raises(ValueError, match=r"has no gradient.*set `loss: cross_entropy`"):
                method.run(objective, space, np.random.default_rng(0))
            assert objective.ledger.used == 0


class TestWriting:
    @pytest.mark.parametrize(
        ("template", "text", "spelt"),
        [
            (CAUSAL, "it was", " it was"),
            (CAUSAL, " it was ", " it was"),
            (CAUSAL, "", ""),
            (CAUSAL, "  ", ""),
            ("{prompt} {text}", "it was", "it was"),
            ("{text}{prompt}", " it was", " it was"),
            ("{text}\n{prompt}", "it was", "it was"),
        ],
    )
    def test_a_text_is_the_prompt_it_makes_in_the_template(
        self, template: str, text: str, spelt: str
    ) -> None:
        lm = tiny_lm()
        written = task(template=Template(template)).written(lm, text)
        assert written == TokenPrompt(lm.encode(spelt))

    def test_the_reward_of_a_written_prompt_is_that_of_the_whole_text(self) -> None:
        lm = tiny_lm()
        made = task(hand_prompt="it was")
        reward = made.rewards(lm, [made.written(lm, made.hand_prompt)], TRAIN[:1])
        whole = by_hand(lm, TokenPrompt(()), "the film was good it was", [" terrible", " great"])
        assert reward[0, 0] == pytest.approx(np.log(whole[1]), abs=2e-4)

    @pytest.mark.parametrize(
        ("word", "spelt"),
        [("great", " great"), (" great", " great"), ("great ", " great"), ("\ngreat", "\ngreat")],
    )
    def test_a_label_word_follows_one_space_unless_it_brings_its_own(
        self, word: str, spelt: str
    ) -> None:
        lm = tiny_lm()
        made = task(label_words={"neg": "terrible", "pos": word})
        assert made.candidates(lm)[1] == lm.encode(spelt)


class TestFingerprint:
    def test_it_changes_with_all_that_decides_a_reward(self) -> None:
        others = [
            task(),
            task(reward="gap"),
            task(template=Template("{prompt} {text}")),
            task(label_words={"neg": "bad", "pos": "great"}),
            task(label_words={"neg": "great", "pos": "terrible"}),
            ClassificationTask(
                "film", Splits(TRAIN[:4], SPLITS.dev, SPLITS.test), Template(CAUSAL), WORDS
            ),
        ]
        assert len({other.fingerprint for other in others}) == len(others)

    def test_and_with_nothing_else(self) -> None:
        fingerprint = task(hand_prompt="it was").fingerprint
        own = Template(CAUSAL), dict(reversed(WORDS.items())), "cross_entropy"
        renamed = ClassificationTask("other name", SPLITS, *own, calibration="none")
        assert task().fingerprint == fingerprint == renamed.fingerprint


class TestMistakes:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"label_words": {"pos": "great"}}, "two classes or more, got {'pos': 'great'}"),
            ({"label_words": WORDS | {"pos": ""}}, "label word of 'pos' is empty"),
            ({"label_words": WORDS | {"pos": "  "}}, "label word of 'pos' is empty"),
            ({"label_words": WORDS | {"pos": " terrible"}}, "'neg' and 'pos' share the label word"),
            ({"reward": "acuracy"}, "reward is 'acuracy'; give one of gap, cross_entropy"),
            (
                {"label_words": {"neg": "bad", "good": "great"}},
                r"reviews.csv:17 has the label 'pos', which has no label word; known: neg",
            ),
        ],
    )
    def test_a_wrong_setting_is_named(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            task(**changes)

    @pytest.mark.parametrize("split", ["dev", "test"])
    def test_an_unknown_label_is_found_before_the_search(self, split: str) -> None:
        parts = SPLITS.parts() | {split: (example("?", "unclear"),)}
        with pytest.raises(ValueError, match=r"reviews.csv:1 has the label 'unclear'"):
            ClassificationTask(
                "film",
                Splits(parts["train"], parts["dev"], parts["test"]),
                Template(CAUSAL),
                WORDS,
            )

    def test_words_that_a_tokenizer_spells_alike_are_refused(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lm = tiny_lm("llama", seed=5)
        monkeypatch.setattr(
            lm,
            "spell",
            lambda pieces, after, **_: tuple(map(ord, "".join(p.text for p in pieces).lower())),
        )
        made = task(label_words={"neg": "Great", "pos": "great"})
        with pytest.raises(
            ValueError, match="tiny-llama spells the label words ' Great' and ' gre"
        ):
            made.label_word_report(lm)

    def test_a_masked_model_needs_a_mask(self) -> None:
        with pytest.raises(
            ValueError, match=r"is a masked model: .*'\{text\} \{prompt\} \{mask\} \.'"
        ):
            task().rewards(tiny_lm("bert"), PROMPTS, TRAIN)

    def test_another_model_has_no_mask(self) -> None:
        with pytest.raises(ValueError, match=r"has a \{mask\} but this model's tokenizer"):
            task(template=Template(MASKED)).rewards(tiny_lm(), PROMPTS, TRAIN)

    def test_a_field_that_the_examples_lack_is_named(self) -> None:
        made = task(template=Template("{sentence} {prompt}"))
        with pytest.raises(ValueError, match="needs the field 'sentence'; the example has 'text'"):
            made.rewards(tiny_lm(), PROMPTS, TRAIN)

    def test_a_text_longer_than_the_context_is_named(self) -> None:
        long = example("x" * 300, "pos")
        with pytest.raises(ValueError, match="example 1 is too long: text 300"):
            task().rewards(tiny_lm(), PROMPTS, [TRAIN[0], long])

    def test_a_label_without_a_word_is_named_wherever_it_comes_from(self) -> None:
        with pytest.raises(
            ValueError, match=r"reviews.csv:1 has the label 'unclear', which has no label word"
        ):
            task().rewards(tiny_lm(), PROMPTS, [example("?", "unclear")])


@pytest.mark.parametrize("reverse", [False, True])
def test_a_tie_is_no_answer_whatever_the_order_of_the_classes(
    reverse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So confusion and macro F1 say what accuracy says."""
    lm = tiny_lm()
    words = dict(reversed(WORDS.items())) if reverse else WORDS
    made = task(label_words=words, calibration="none", metric="macro_f1")
    pair = [example("good", "pos"), example("bad", "neg"), example("so", "neg")]
    ahead = {"pos": [0.0, 0.0, 0.0], "neg": [0.0, 1.0, 0.0]}  # only the second is told apart
    loglik = torch.tensor([ahead[label] for label in words]).T[None]
    monkeypatch.setattr(lm, "score", lambda *asked, **settings: loglik)
    found = made.measure(lm, PROMPTS[:1], pair)
    assert found.answers == (("", "neg", ""),)
    assert found.metrics.tolist() == [[0.0, 1.0, 0.0]]
    macro = made.set_metric(found, pair)
    assert macro is not None
    assert macro.tolist() == pytest.approx([2 / 3 / 2])  # of neg 2 / (2 + 1), of pos 0
