"""Found prompts answer texts, rows and frames as plain transformers do."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exports import TOKENS, WORDS, class_task, export, soft, splits, writing_task
from numpy.typing import NDArray
from tiny import tiny_lm, tiny_model, tiny_tokenizer

from rlprompt.agents.random_search import RandomSearch
from rlprompt.agents.soft_prompt import SoftPromptTuning
from rlprompt.data.examples import Columns, Splits
from rlprompt.data.rows_to_answer import Rows
from rlprompt.export.export import export_prompt
from rlprompt.export.folder import ExportedPrompt, load_prompt
from rlprompt.export.prediction import BATCH, BadRowsError, Prediction
from rlprompt.export.server import Classified, PromptServer
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt, SoftPrompt
from rlprompt.search.optimiser import Optimiser
from rlprompt.search.run import search
from rlprompt.tasks.classification import ClassificationTask

TEXTS = ["the film was great", "it was terrible", "the film"]


def plain_log_probabilities(lm: FrozenLM, prompt: Prompt, text: str) -> list[float]:
    """Log p(" bad"), log p(" good") after "TEXT PROMPT", by transformers alone."""
    embed, prompt = lm.model.get_input_embeddings(), lm.fed(prompt)
    head = embed(torch.tensor(lm.tokenizer(text, add_special_tokens=False).input_ids))
    if isinstance(prompt, SoftPrompt):
        middle = torch.tensor(prompt.vectors)
    else:
        middle = embed(torch.tensor(prompt.ids))
    logits = lm.model(inputs_embeds=torch.cat([head, middle])[None]).logits[0, -1].double()
    words = [lm.tokenizer(word, add_special_tokens=False).input_ids for word in (" bad", " good")]
    assert [len(word) for word in words] == [1, 1]
    return [(logits[word[0]] - logits.exp().sum().log()).item() for word in words]


def softmax(scores: Sequence[float]) -> NDArray[np.float64]:
    return np.array(np.exp(scores) / np.exp(scores).sum())


def prior_on_train(task: ClassificationTask, lm: FrozenLM, prompt: Prompt) -> NDArray[np.float64]:
    # A template puts no space before the prompt.
    train = [example.fields["text"].rstrip() for example in task.splits.train]
    each = [softmax(plain_log_probabilities(lm, prompt, text)) for text in train]
    return np.array(np.mean(each, axis=0))


@pytest.mark.parametrize("kind", ["tokens", "soft"])
def test_calibrated_probabilities_are_those_of_plain_transformers(
    kind: str, tmp_path: Path, lm: FrozenLM
) -> None:
    prompt = TOKENS if kind == "tokens" else soft(lm)
    task = class_task(calibration="batch", calibration_strength=0.7)
    export(tmp_path, lm, prompt, task)
    answers = load_prompt(tmp_path).predict(TEXTS, lm)

    prior = prior_on_train(task, lm, prompt)
    for text, answer in zip(TEXTS, answers, strict=True):
        assert isinstance(answer, Classified)
        among = softmax(plain_log_probabilities(lm, prompt, text))
        weighed = among / prior**0.7
        expected = weighed / weighed.sum()
        assert [answer.chances[c] for c in ("negative", "positive")] == pytest.approx(
            expected.tolist(), abs=1e-5
        )
        assert answer.probability == max(answer.chances.values())
        assert answer.label == ("negative", "positive")[int(expected.argmax())]
        assert expected.tolist() != pytest.approx(among.tolist(), abs=1e-3)  # the prior counts


@pytest.mark.parametrize("method", [RandomSearch(batch=4), SoftPromptTuning()])
def test_what_a_search_found_is_exported_with_its_own_prior(
    method: Optimiser[Any], tmp_path: Path, lm: FrozenLM
) -> None:
    task = class_task(calibration="batch")
    found = search(task, lm, method, budget=48, length=3)
    usage = export_prompt(found, tmp_path, lm, task).facts.task.usage
    assert usage is not None
    assert usage.prior is not None
    assert usage.prior == task.class_prior(lm, found.best.prompt)
    assert found.best.prior == {c: np.exp(nats) for c, nats in usage.prior.items()}
    expected = prior_on_train(task, lm, found.best.prompt)
    assert np.exp([usage.prior[c] for c in WORDS]) == pytest.approx(expected, abs=1e-5)
    # Another prompt, such as one that was scored along with it, has another.
    assert expected != pytest.approx(prior_on_train(task, lm, TOKENS), abs=1e-4)


def test_the_model_writes_what_transformers_writes(tmp_path: Path, lm: FrozenLM) -> None:
    found = export(tmp_path, lm, TOKENS, writing_task())
    ids = lm.tokenizer(TEXTS[0]).input_ids + list(TOKENS.ids)
    greedy = lm.model.generate(  # type: ignore[operator]
        torch.tensor([ids]), max_new_tokens=4, do_sample=False, pad_token_id=0
    )
    end = [i for i in greedy[0, len(ids) :].tolist()]
    until = end.index(2) if 2 in end else len(end)
    assert found.predict(TEXTS[:1], lm) == [lm.decode(end[:until]).strip()]


def _labels(answers: Sequence[object]) -> list[str]:
    return [answer.label for answer in answers if isinstance(answer, Classified)]


def test_texts_rows_and_frames_are_the_same(tmp_path: Path, lm: FrozenLM) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    task = class_task()
    read = dataclasses.replace(task.splits, columns=Columns({"text": "body"}, "queue"))
    found = export(tmp_path, lm, TOKENS, dataclasses.replace(task, splits=read))
    texts = found.predict(TEXTS, lm)
    rows = [{"id": i, "body": text} for i, text in enumerate(TEXTS)]
    frame = pyarrow.table({"body": TEXTS})
    other = pyarrow.table({"said": TEXTS, "body": ["x"] * 3})
    alike = [
        found.predict(rows, lm),
        found.predict(frame, lm),
        found.predict([{"text": text} for text in TEXTS], lm),  # the template's field will do
        found.predict(other, lm, text="said"),
    ]
    assert len(_labels(texts)) == 3
    assert all(one == texts for one in alike)
    assert found.predict([], lm) == []


def test_pandas_frames_are_read(tmp_path: Path, lm: FrozenLM) -> None:
    pandas = pytest.importorskip("pandas")
    found = export(tmp_path, lm)
    frame = pandas.DataFrame({"text": TEXTS, "n": [1, 2, 3]}, index=[7, 8, 9])
    assert found.predict(frame, lm) == found.predict(TEXTS, lm)
    frame.loc[8, "text"] = None
    with pytest.raises(BadRowsError, match=r"rows\[1\] has .*text.*; mend the data"):
        found.predict(frame, lm)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("the film", "one text, 'the film', is given; give a list of texts"),
        (7, "rows are a int; give a list of texts or of mappings, or a frame"),
        ([{"txt": "it"}], r"rows has no column 'text'; it has 'txt' \(did you mean 'txt'\?\)"),
        (["it", " "], r"rows\[1\] has an empty text; mend the data"),
        (["", "it", ""], r"rows\[0\] has an empty text, and 1 more rows cannot be answered"),
        (["it " * 400], r"rows\[0\]: the text is too long: with prompt and answer \d+ tokens, and"),
    ],
)
def test_what_cannot_be_answered_is_named_before_anything_is_computed(
    data: Any, message: str, tmp_path: Path, lm: FrozenLM
) -> None:
    found = export(tmp_path, lm)
    passes = []
    hook = lm.model.base_model.register_forward_hook(lambda *_: passes.append(1))
    try:
        with pytest.raises(ValueError, match=message):
            found.predict(data, lm)
    finally:
        hook.remove()
    assert not passes


def test_texts_alone_take_a_template_of_one_field(tmp_path: Path, lm: FrozenLM) -> None:
    two = class_task("{text} {prompt} {more}")
    train, dev, test = (
        tuple(dataclasses.replace(e, fields={**e.fields, "more": "it"}) for e in part)
        for part in splits().parts().values()
    )
    two = dataclasses.replace(two, splits=Splits(train, dev, test))
    found = {
        "one": export(tmp_path / "one", lm),
        "two": export(tmp_path / "two", lm, TOKENS, two),
        "writes": export(tmp_path / "writes", lm, TOKENS, writing_task()),
    }
    server = PromptServer(lm, found)
    assert server.classify([("one", "it")]) == server.classify([("one", {"text": "it"})])
    assert server.generate([("writes", "it")]) == server.generate([("writes", {"text": "it"})])
    asked = [("writes", "it"), ("one", "it"), ("two", {"text": "it", "more": "so"})]
    mixed = server.answer(asked)  # type: ignore[arg-type]
    assert [mixed[0]] == server.generate([("writes", "it")])
    assert [type(one) for one in mixed] == [str, Classified, Classified]
    with pytest.raises(ValueError, match="'two' has a template with the fields text, more, so"):
        server.classify([("two", "it")])
    with pytest.raises(ValueError, match="the template has the fields text, more, so texts alone"):
        found["two"].predict(["it"], lm)
    with pytest.raises(ValueError, match="one column of text, 'text', does not do"):
        found["two"].predict([{"text": "it", "more": "so"}], lm, text="text")


def test_long_texts_are_cut_where_the_task_cut_them(tmp_path: Path, lm: FrozenLM) -> None:
    task = class_task()
    cut = dataclasses.replace(task.splits, on_long_text="truncate-end")
    found = export(tmp_path, lm, TOKENS, dataclasses.replace(task, splits=cut))
    text = "it was " * 300
    room = 256 - len(TOKENS)
    shortest = next(n for n in range(len(text), 0, -1) if len(lm.encode(text[:n].strip())) <= room)
    assert found.predict([text], lm) == found.predict([text[:shortest]], lm)


class Endless:
    """Rows that count how many there are at a time."""

    def __init__(self, n: int) -> None:
        self.n, self.held, self.most = n, 0, 0

    def rows(self) -> Any:
        for i in range(self.n):
            row = _Counted(self, text=f"the film {i}")
            yield f"many:{i + 1}", row


class _Counted(dict[str, Any]):
    """A row that says when it is gone."""

    def __init__(self, owner: Endless, **values: Any) -> None:
        super().__init__(values)
        self.owner = owner
        owner.held += 1
        owner.most = max(owner.most, owner.held)

    def __del__(self) -> None:
        self.owner.held -= 1


def test_no_more_than_a_few_batches_are_in_memory(
    tmp_path: Path, lm: FrozenLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlprompt.data.row_table import RowTable

    found = export(tmp_path, lm)
    usage = found.facts.task.usage
    assert usage is not None
    source = Endless(5 * BATCH + 3)
    rows = Rows("many", ("text",), lambda: RowTable("many", source.rows(), uniform=True))
    server = PromptServer(lm, {"mine": found})
    sizes = []

    def quickly(requests: Sequence[Any]) -> list[Any]:
        sizes.append(len(requests))
        return ["an answer"] * len(requests)

    monkeypatch.setattr(server, "answer", quickly)
    asked = Prediction(rows, {"mine": usage})
    assert asked.survey() == 5 * BATCH + 3
    done = 0
    for batch in asked.answers(server):
        done += len(batch)
        del batch
    assert (done, sizes) == (5 * BATCH + 3, [BATCH] * 5 + [3])
    assert source.most <= 3 * BATCH


def test_nothing_is_kept_of_texts_that_were_answered(tmp_path: Path) -> None:
    lm = FrozenLM(tiny_model(), tiny_tokenizer(), "own")
    found = export(tmp_path, lm)
    assert lm._engine.packed is not None
    found.predict([f"the film {i}" for i in range(20)], lm)
    kept = lm._engine.packed.packed.kept
    assert all(kept.get(lm.encode(f"the film {i}")) is None for i in range(20))


def test_labels_are_counted_where_they_are_known(tmp_path: Path, lm: FrozenLM) -> None:
    found = export(tmp_path, lm)
    usage = found.facts.task.usage
    assert usage is not None
    right = _labels(found.predict(TEXTS, lm))
    wrong = {"negative": "positive", "positive": "negative"}
    labels = [right[0], wrong[right[1]], "mixed"]
    rows = [{"text": t, "label": label} for t, label in zip(TEXTS, labels, strict=True)]
    rows.append({"text": TEXTS[0], "label": ""})
    asked = Prediction(Rows.of_memory(rows), {"mine": usage})
    answered = [one for batch in asked.answers(PromptServer(lm, {"mine": found})) for one in batch]
    assert [one.row for one in answered] == rows
    tally = asked.tallies["mine"]
    assert (tally.right, tally.known, tally.unknown) == (1, 2, 1)
    assert tally.first.startswith("rows[2] has the unknown label 'mixed' (known: negative, positiv")


def test_labels_are_read_as_the_task_read_them(tmp_path: Path, lm: FrozenLM) -> None:
    task = class_task()
    columns = Columns({"text": "text"}, "stars", {"1": "negative", "5": "positive"})
    read = dataclasses.replace(task.splits, columns=columns)
    found = export(tmp_path, lm, TOKENS, dataclasses.replace(task, splits=read))
    usage = found.facts.task.usage
    assert usage is not None
    assert (usage.label, usage.labels) == ("stars", {"1": "negative", "5": "positive"})
    (label,) = _labels(found.predict(["it"], lm))
    rows = Rows.of_memory([{"text": "it", "stars": {"negative": 1, "positive": 5}[label]}])
    asked = Prediction(rows, {"mine": usage})
    list(asked.answers(PromptServer(lm, {"mine": found})))
    assert (asked.tallies["mine"].right, asked.tallies["mine"].known) == (1, 1)


class TestTheModel:
    """That a folder names."""

    @pytest.fixture
    def found(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ExportedPrompt:
        """A prompt on a model that was given by a relative path."""
        monkeypatch.chdir(tmp_path)
        tiny_model().save_pretrained("models/tiny")
        tiny_tokenizer().save_pretrained("models/tiny")
        lm = FrozenLM.load("models/tiny", dtype="float32", device="cpu")
        return export(Path("prompts/found"), lm)

    def test_a_relative_path_is_found_from_the_folder(
        self, found: ExportedPrompt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert found.facts.model.place == "../../models/tiny"
        adapter = json.loads(Path("prompts/found/adapter_config.json").read_text())
        assert adapter["base_model_name_or_path"] == "../../models/tiny"
        monkeypatch.chdir("/")
        again = load_prompt(tmp_path / "prompts" / "found")
        assert again.predict(TEXTS) == again.predict(TEXTS, tiny_lm())

    def test_the_cards_code_runs_in_the_folder(
        self, found: ExportedPrompt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        card = Path("prompts/found/README.md").read_text()
        blocks = [part.partition("```")[0] for part in card.split("```python\n")[1:]]
        monkeypatch.chdir("prompts/found")
        named = [block for block in blocks if "../../models/tiny" in block]
        assert len(named) == 3
        for block in named[:2]:  # the third needs PEFT, see test_card
            exec(block, {})

    def test_a_model_that_lies_elsewhere_is_said(self, found: ExportedPrompt) -> None:
        shutil.move("models/tiny", "elsewhere")
        with pytest.raises(ValueError, match="model 'models/tiny' cannot be loaded"):
            found.load_model()
        lm = found.load_model("elsewhere")
        assert found.predict(TEXTS, lm) == found.predict(TEXTS, tiny_lm())
        with pytest.raises(ValueError, match="is not the model that this prompt belongs to"):
            found.predict(TEXTS, tiny_lm(seed=1))
