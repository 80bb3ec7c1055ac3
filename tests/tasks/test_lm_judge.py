from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import fake_splits
from spellings import thinking_lm
from tiny import tiny_lm

from rlprompt.data.examples import Example, Splits
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import TokenPrompt
from rlprompt.search.budget import Budget
from rlprompt.search.objective import Objective
from rlprompt.store.store import Store
from rlprompt.tasks import lm_judge
from rlprompt.tasks.generation import GenerationTask
from rlprompt.tasks.lm_judge import LMJudge, asked, verbalised
from rlprompt.tasks.metrics import metric
from rlprompt.template import Template

ASK = "{text}: was it {output}?"
EXAMPLES = [Example({"text": "the film"}, "good"), Example({"text": "it"}, ["bad", "so bad"])]  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its name, the judge is a tiny model."""
    monkeypatch.setattr(lm_judge, "_loaded", lambda name, device, dtype: tiny_lm(seed=3))


def test_words_are_as_probable_as_behind_the_whole_text() -> None:
    lm, texts = tiny_lm(), ["the film was good", "bad", "it was the film"]
    words = [lm.encode(" great")[0], lm.encode(" terrible")[0]]
    wanted = []
    for text in texts:
        with torch.no_grad():
            found = lm.model(input_ids=torch.tensor([lm.encode(f"{text} It was")])).logits
        wanted.append(float(found[0, -1, words].softmax(-1)[0]))
    fields, template = [{"text": text} for text in texts], Template("{text} It was{prompt}")
    assert verbalised(lm, template, ["great", "terrible"], fields).tolist() == pytest.approx(
        wanted, abs=1e-5
    )


def test_it_is_the_probability_of_the_first_word() -> None:
    judge, lm = LMJudge("tiny", ASK, ("good", "bad")), tiny_lm(seed=3)
    found = judge.of(["great", ""], EXAMPLES)
    query = Template(ASK + "{prompt}").query(
        {"text": "the film", "output": "great"}, lm, [lm.encode(" good"), lm.encode(" bad")]
    )
    wanted = lm.score([TokenPrompt()], [query])[0, 0].softmax(-1)[0]
    assert found == [pytest.approx(float(wanted)), 0.0]  # nothing is worth nothing, unasked


def test_it_is_shown_all_references() -> None:
    judge = LMJudge("tiny")
    assert judge.needs_reference
    assert not LMJudge("tiny", ASK).needs_reference
    (asked,) = judge._questions(["fine"], EXAMPLES[1:])
    assert dict(asked) == {"output": "fine", "reference": "bad or so bad"}


def test_its_tokens_are_those_of_different_questions() -> None:
    lm, judge = tiny_lm(seed=3), LMJudge("tiny", ASK, ("good", "bad"))
    one = len(lm.encode("the film: was it great?"))
    other = len(lm.encode("it: was it great?"))
    assert judge.tokens(["great"], EXAMPLES[:1]) == one
    assert judge.tokens(["great"] * 3, [*EXAMPLES, EXAMPLES[0]]) == one + other
    assert judge.tokens([""], EXAMPLES[:1]) == 0


def test_a_search_counts_them_and_charges_no_rows(lm: FrozenLM) -> None:
    reward = {"name": "judge", "model": "tiny", "template": "So: {output}."}
    task = GenerationTask("judged", fake_splits(), Template("{text} {prompt}"), reward, 3, stop=())
    objective = Objective(task, lm, Budget(6))
    evaluation = objective.evaluate([TokenPrompt((20, 30)), TokenPrompt((40,))])
    assert evaluation.outputs is not None
    assert ((evaluation.per_example >= 0) & (evaluation.per_example <= 1)).all()
    counted = sum(
        LMJudge(**_without_name(reward)).tokens(o, task.splits.train) for o in evaluation.outputs
    )
    assert objective.ledger.judge_tokens == counted > 0
    assert (objective.ledger.used, objective.ledger.own_tokens) == (6, 0)


def test_what_it_reads_is_spelled_once_and_not_in_a_replay(
    lm: FrozenLM, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lm_judge._queries.cache_clear()
    spelled: list[int] = []

    def counting(*given: Any) -> Any:
        spelled.append(len(given[3]))
        return asked(*given)

    monkeypatch.setattr(lm_judge, "asked", counting)
    reward = {"name": "judge", "model": "tiny", "template": "So: {output}."}
    task = GenerationTask("judged", fake_splits(), Template("{text} {prompt}"), reward, 3, stop=())
    counted = list[int]()
    with Store(tmp_path / "study.sqlite") as store:
        store.plan({}, {"a": {}, "b": {}})
        for name in ("a", "b"):
            assert store.claim("me", only={name}, dead=lambda *_: False) == name
            objective = Objective(task, lm, Budget(6), memo=store.record(name, lm, task, "me"))
            objective.evaluate([TokenPrompt((20, 30)), TokenPrompt((40,))])
            counted.append(objective.ledger.judge_tokens)
            lm_judge._queries.cache_clear()
    assert len(spelled) == 2  # a prompt each
    assert counted[0] == counted[1] > 0


def test_it_is_the_model_that_is_searched_on(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(lm_judge, "_loaded", lm_judge._loaded.__wrapped__)
    searched = FrozenLM.load(str(model), device="cpu", dtype="float32")
    assert LMJudge(str(model), device="cpu").lm is searched
    assert LMJudge(str(model), device="cpu", dtype="bfloat16").lm is not searched
    revised = FrozenLM.load(str(model), dtype="float32", revision="main")
    del searched
    gc.collect()
    assert LMJudge(str(model), device="cpu").lm is not revised


def test_it_weighs_beside_other_metrics() -> None:
    judged = {"name": "judge", "model": "tiny", "template": ASK, "weight": 0.5}
    task = GenerationTask(
        "judged", fake_splits(), Template("{text} {prompt}"), [judged, {"name": "exact_match"}]
    )
    (judge, half), (exact, whole) = task._metrics
    assert (judge.name, half, exact.name, whole) == ("judge", 0.5, "exact_match", 1.0)
    other = GenerationTask("judged", fake_splits(), task.template, [judged | {"words": ["a", "b"]}])
    assert other.fingerprint != task.fingerprint


def _without_name(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != "name"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": ""}, r"judge has no model; say which one judges: \{name: judge, model: sm"),
        ({"template": "Is it right?"}, "it needs {output}"),
        ({"template": "{output} {mask}"}, "it needs {output}"),
        ({"template": "{output} {"}, "write a literal brace twice"),
        ({"words": ["yes"]}, "give two or more that differ"),
        ({"words": ["yes", "yes "]}, "give two or more that differ"),
        ({"words": "right"}, "metric judge: words is 'right'; give a list of texts"),
        ({"words": [True, False]}, r"words is \[True, False\]; give a list of texts"),
        ({"words": 1}, "words is 1; give a list of texts"),
        ({"template": ["{output}"]}, r"template is \['{output}'\]; give a text"),
        ({"modle": "x"}, "metric judge has no setting 'modle'; did you mean 'model'"),
    ],
)
def test_a_judge_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metric({"name": "judge", "model": "tiny", **changes})


def test_a_field_that_examples_lack_is_named() -> None:
    reward = {"name": "judge", "model": "tiny", "template": "{question} {output}"}
    with pytest.raises(ValueError, match="no field 'question', which the template of judge needs"):
        GenerationTask("judged", fake_splits(), Template("{text} {prompt}"), reward)


def test_a_masked_model_is_no_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(FrozenLM, "load", lambda name, device, dtype: tiny_lm("bert"))
    with pytest.raises(ValueError, match="the judge tiny-masked is a masked model"):
        LMJudge("tiny-masked").of(["fine"], EXAMPLES[:1])


class TestShortContext:
    TAKES = 40

    @pytest.fixture(autouse=True)
    def _short(self, monkeypatch: pytest.MonkeyPatch) -> None:
        short = tiny_lm(seed=3, max_position_embeddings=self.TAKES)
        monkeypatch.setattr(lm_judge, "_loaded", lambda name, device, dtype: short)
        lm_judge._queries.cache_clear()

    def task(self, n_text: int, n_new: int, **changes: Any) -> GenerationTask:
        """Its longest question, of test, has so many tokens with an output of none."""
        ask = {"name": "judge", "model": "tiny", "template": "{text}{output}"}
        train, dev, test = (
            (Example({"text": text}, "good", f"films.csv:{len(text)}"),)
            for text in ("a", "b", "c" * n_text)
        )
        settings: Any = {"reward": ask, "max_new_tokens": n_new, **changes}
        template = Template("{text} {prompt}")
        return GenerationTask("judged", Splits(train, dev, test), template, **settings)

    def test_a_question_that_just_fits_is_judged(self, lm: FrozenLM) -> None:
        task = self.task(self.TAKES - 5 - 3, 5)  # of ` yes` three tokens are fed
        assert task.fitted(lm, 2) is task
        task.rewards(lm, [TokenPrompt((20, 30))], task.splits.test)

    @pytest.mark.parametrize("reported", [False, True])
    def test_a_longer_one_is_refused_before_anything_is_paid(
        self, lm: FrozenLM, reported: bool
    ) -> None:
        changes: dict[str, Any] = {
            "reward": "log_likelihood",
            "metric": "judge",
            "metric_settings": {"model": "tiny", "template": "{text}{output}"},
        }
        task = self.task(33, 5, **changes if reported else {})
        with pytest.raises(
            ValueError,
            match=r"^the test example films.csv:33 is too long for judge: 33 tokens of question "
            r"\+ 5 of output \+ 3 of answer, and tiny-llama takes 40; shorten or remove it, lower "
            "max_new_tokens, or choose another model as judge$",
        ):
            task.fitted(lm, 2)

    def test_an_output_of_more_tokens_than_that_is_cut_at_its_end(self) -> None:
        judge, example = LMJudge("tiny", "{output}{text}"), Example({"text": "c" * 19}, "good")
        most = self.TAKES - 19 - 3
        whole, longer = judge.of(["ab" * 9, "ab" * 9 + "x" * 90], [example] * 2)
        assert len("ab" * 9) == most
        assert whole == longer != judge.of(["ab" * 8], [example])[0]
        assert judge.tokens(["ab" * 50], [example]) == self.TAKES


class TestControlTokens:
    @pytest.fixture(autouse=True)
    def _thinks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        thinker = thinking_lm(seed=3)
        monkeypatch.setattr(lm_judge, "_loaded", lambda name, device, dtype: thinker)
        lm_judge._queries.cache_clear()

    def test_what_it_cannot_spell_it_does_not_read(self) -> None:
        judge = LMJudge("thinker", "{text}:{output}?")
        marked, plain, twice = judge.of(
            ["so <think>good", "so good", "<think>so <think>good"],
            [Example({"text": "it"}, "a")] * 3,
        )
        assert marked == plain == twice
        # Fields of the example and references are read alike.
        judge = LMJudge("thinker", "{text} {reference}:{output}?")
        one, other = (Example({"text": f"it{mark}"}, f"{mark}a") for mark in ("<think>", ""))
        assert judge.of(["fine"], [one]) == judge.of(["fine"], [other])

    def test_nor_where_the_template_makes_it_up(self) -> None:
        judge, example = LMJudge("thinker", "So <{output}>?"), Example({"text": "it"}, "a")
        (found,) = judge.of(["think"], [example])
        assert 0 < found < 1

    def test_an_answer_of_nothing_else_is_empty(self) -> None:
        assert LMJudge("thinker").of(["", " "], EXAMPLES) == [0.0, 0.0]
        assert LMJudge("thinker").of(["<think> <think>"], EXAMPLES[:1]) == [0.0]
        assert LMJudge("thinker").tokens(["<think>"], EXAMPLES[:1]) == 0
