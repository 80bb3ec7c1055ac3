from __future__ import annotations

import inspect
import tomllib
import typing
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import datasets
import pytest
from tiny import TinyKind, tiny_lm

from rlprompt.config.registry import settings_of, summary_of
from rlprompt.data.hub import HubName
from rlprompt.tasks import benchmarks
from rlprompt.tasks.benchmarks import Benchmark
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.template import Template

KNOWN = {one.name: one for one in vars(benchmarks).values() if isinstance(one, Benchmark)}
OFFLINE = [name for name in KNOWN if name != "movie-reviews"]


def preset(name: str) -> Callable[..., ClassificationTask]:
    made: Callable[..., ClassificationTask] = getattr(benchmarks, name.replace("-", "_"))
    return made


def row(known: Benchmark, split: str, i: int) -> list[str]:
    return [f"{field} {split} {i}" for field in known.columns]


def few_shot_folder(folder: Path, known: Benchmark, *, numbers: bool, n: int = 2) -> str:
    """A folder with `n` examples a class in each split."""
    folder.mkdir()
    for split in ("train", "dev", "test"):
        lines = ["\t".join([*known.columns, "label"])]
        for i, label in enumerate(known.label_words):
            for j in range(n):
                cells = row(known, f"{split} {j}", i)
                lines.append("\t".join([*cells, str(i) if numbers else label]))
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return str(folder)


def hub_copy(folder: Path, known: Benchmark, n: int = 4) -> str:
    """What `datasets` saves of the hub's data set: its columns, and its names of the classes."""
    names = list(known.spellings or known.label_words)
    label: Any = datasets.Value("string")
    if known.label in ("label", "topic"):
        label = datasets.ClassLabel(names=names)
    features = {column: datasets.Value("string") for column in known.columns.values()}
    parts = {}
    for split in ("train", "test"):
        cells = [row(known, f"{split} {j}", i) for i in range(len(names)) for j in range(n)]
        columns = dict(zip(known.columns.values(), zip(*cells, strict=True), strict=True))
        labels = [name for name in names for _ in range(n)]
        parts[split] = datasets.Dataset.from_dict(
            {**columns, known.label: labels},
            features=datasets.Features({**features, known.label: label}),
        )
    datasets.disable_progress_bars()
    datasets.DatasetDict(parts).save_to_disk(str(folder))
    return str(folder)


def labelled_right(task: ClassificationTask, known: Benchmark) -> bool:
    """Whether each example still has the class whose number its text ends in."""
    classes = list(known.label_words)
    return all(
        example.label == classes[int(text.split()[-1])]
        for examples in task.splits.parts().values()
        for example in examples
        for text in example.fields.values()
    )


class TestBenchmarks:
    @pytest.mark.parametrize("known", KNOWN.values(), ids=KNOWN)
    def test_templates_words_and_names_fit_together(self, known: Benchmark) -> None:
        causal, masked = Template(known.causal), Template(known.masked)
        assert not causal.masked
        assert masked.masked
        assert set(causal.fields) == set(masked.fields) == set(known.columns)
        assert len({word.casefold() for word in known.label_words.values()}) == len(
            known.label_words
        )
        assert len(known.spellings) in (0, len(known.label_words))
        if known.source != "movie-reviews":
            assert HubName.parse(known.source).revision == "main"

    def test_they_are_those_of_the_papers(self) -> None:
        """RLPrompt, Table 7 (words in order of the files' numbers); LM-BFF, Table 1."""
        words = {name: " ".join(known.label_words.values()) for name, known in KNOWN.items()}
        binary, five = "terrible great", "terrible bad okay good great"
        assert words == {
            **dict.fromkeys(("sst2", "mr", "cr", "yelp-polarity", "movie-reviews"), binary),
            **dict.fromkeys(("sst5", "yelp5"), five),
            "subj": "subjective objective",
            "trec": "Description Entity Expression Human Location Number",
            "agnews": "World Sports Business Tech",
            "yahoo": "culture science health education computer sports business music family "
            "politics",
            "dbpedia": "Company Education Artist Sports Office Transportation Building Natural "
            "Village Animal Plant Album Film Written",
            "rte": "Yes No",
            **dict.fromkeys(("snli", "mnli"), "Yes Maybe No"),
        }

    @pytest.mark.parametrize(
        ("name", "manual"),
        [
            ("sst2", "S It was [MASK] ."),
            ("subj", "S This is [MASK] ."),
            ("agnews", "[MASK] News: S"),
            ("trec", "[MASK] : S"),
            ("yahoo", "Topic [MASK]: S"),
            ("dbpedia", "[Category: [MASK]] S"),
            ("mnli", "S ?  [MASK] , H"),
        ],
    )
    def test_the_hand_written_prompt_makes_the_manual_template(
        self, name: str, manual: str
    ) -> None:
        known = KNOWN[name]
        texts = {"text": "S", "premise": "S", "hypothesis": "H"}
        assert known.masked.format(prompt=known.hand_masked, mask="[MASK]", **texts) == manual


class TestPresets:
    def test_a_calibration_is_passed_on(self, tmp_path: Path) -> None:
        folder = few_shot_folder(tmp_path / "k", KNOWN["sst2"], numbers=False)
        made = preset("sst2")(data=folder, calibration="batch", calibration_strength=0.5)
        assert (made.calibration, made.calibration_strength) == ("batch", 0.5)

    @pytest.mark.parametrize("name", OFFLINE)
    @pytest.mark.parametrize("numbers", [True, False])
    def test_a_few_shot_folder_may_have_numbers_or_names(
        self, tmp_path: Path, name: str, numbers: bool
    ) -> None:
        known = KNOWN[name]
        task = preset(name)(data=few_shot_folder(tmp_path / "k", known, numbers=numbers))
        assert task.name == name
        assert labelled_right(task, known)
        assert len(task.splits.notes) == numbers
        assert (task.label_words, task.template.text) == (known.label_words, known.causal)
        assert task.hand_prompt == known.hand_causal

    @pytest.mark.parametrize("name", OFFLINE)
    def test_a_copy_of_the_hubs_data_set_has_its_columns_and_names(
        self, tmp_path: Path, name: str
    ) -> None:
        known = KNOWN[name]
        task = preset(name)(data=hub_copy(tmp_path / "hub", known), shots=2, masked=True)
        assert labelled_right(task, known)
        n = len(known.label_words)
        assert [len(part) for part in task.splits.parts().values()] == [2 * n, 2 * n, 4 * n]
        assert set(task.splits.train[0].fields) == set(known.columns)
        assert (task.template.text, task.hand_prompt) == (known.masked, known.hand_masked)

    def test_settings_change_what_they_say(self, tmp_path: Path) -> None:
        data = few_shot_folder(tmp_path / "k", KNOWN["sst2"], numbers=True)
        task = benchmarks.sst2(
            data,
            test=1,
            template="{prompt} {text}",
            label_words={"positive": "good", "negative": "bad"},
            reward="accuracy",
            hand_prompt="Say:",
        )
        assert len(task.splits.test) == 1
        assert task.template.text == "{prompt} {text}"
        assert task.label_words == {"positive": "good", "negative": "bad"}
        assert (task.reward, task.hand_prompt) == ("accuracy", "Say:")

    def test_defects_are_left_out_and_noted_unless_refused(self, tmp_path: Path) -> None:
        data = few_shot_folder(tmp_path / "k", KNOWN["cr"], numbers=True)
        with (tmp_path / "k" / "test.tsv").open("a") as file:
            file.write(" \t1\ntext train 0 0\t0\n")
        assert benchmarks.cr(data).splits.notes[0] == (
            "2 rows were left out, the first: test.tsv:6 has an empty text; "
            "test.tsv:7 repeats train.tsv:2"
        )
        with pytest.raises(ValueError, match=r"test.tsv:6 has an empty text"):
            benchmarks.cr(data, on_bad_rows="error")
        assert len(benchmarks.cr(data, on_leak="allow").splits.test) == 5

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (
                {"label_words": {"negative": "bad"}},
                "sst2 has the classes negative; give a word for each of negative, positive",
            ),
            ({"template": "{title} {prompt}"}, "field 'title'; the fields of sst2 are text"),
            ({"reward": "f1"}, "reward is 'f1'; give one of"),
        ],
    )
    def test_a_setting_that_does_not_fit_is_refused(
        self, tmp_path: Path, settings: dict[str, Any], message: str
    ) -> None:
        data = few_shot_folder(tmp_path / "k", KNOWN["sst2"], numbers=True)
        with pytest.raises(ValueError, match=message):
            benchmarks.sst2(data, **settings)

    def test_numbers_are_told_with_an_example_of_each_and_labels_settle_them(self) -> None:
        parts = {
            name: [{"text": f"{name} {i}", "label": i % 2} for i in range(4)]
            for name in ("train", "dev", "test")
        }
        by_position = benchmarks.subj(parts)
        assert [e.label for e in by_position.splits.dev[:2]] == ["subjective", "objective"]
        assert by_position.splits.notes == (
            "labels are numbers: 0 is read as subjective, such as 'train 0' (train[0]); 1 is read "
            "as objective, such as 'train 1' (train[1]). They were read by their position, as the "
            "data have no names; if that is wrong, set labels: {0: objective, 1: subjective}",
        )
        for labels in ({0: "objective", 1: "subjective"}, {"0": "objective", "1": "subjective"}):
            settled = benchmarks.subj(parts, labels=labels)
            assert [e.label for e in settled.splits.dev[:2]] == ["objective", "subjective"]
            assert "position" not in settled.splits.notes[0]
        with pytest.raises(ValueError, match="unknown class 'objectiv'"):
            benchmarks.subj(parts, labels={0: "objectiv"})

    @pytest.mark.parametrize("column", ["label_text", "label_name"])
    def test_names_beside_numbers_win(self, tmp_path: Path, column: str) -> None:
        """As in the public files of Subj, where 0 is objective."""
        names = ("objective", "subjective")
        lines = [f"t {i}\t{i % 2}\t{names[i % 2]}" for i in range(8)]
        content = "\n".join([f"text\tlabel\t{column}", *lines])
        (tmp_path / "a.tsv").write_text(content)
        task = benchmarks.subj(str(tmp_path / "a.tsv"), shots=1)
        examples = [e for part in task.splits.parts().values() for e in part]
        assert {(int(e.fields["text"][2:]) % 2, e.label) for e in examples} == set(enumerate(names))
        assert task.splits.notes == ()
        (tmp_path / "a.tsv").write_text(content.replace("subjective", "opinion"))
        with pytest.raises(ValueError, match=r"a.tsv:3 has the unknown label 'opinion'"):
            benchmarks.subj(str(tmp_path / "a.tsv"), shots=1, on_bad_rows="error")

    def test_names_of_a_columns_numbers_win(self, tmp_path: Path) -> None:
        features = datasets.Features(
            text=datasets.Value("string"),
            label=datasets.ClassLabel(names=["objective", "subjective"]),
        )
        rows = {"text": [f"t {i}" for i in range(12)], "label": [i % 2 for i in range(12)]}
        part = datasets.Dataset.from_dict(rows, features=features)
        part.to_parquet(tmp_path / "a.parquet")
        both = datasets.DatasetDict(train=part)
        for data in (part, both, str(tmp_path / "a.parquet")):
            splits = benchmarks.subj(data, shots=2).splits
            examples = [e for part in splits.parts().values() for e in part]
            assert len(examples) == 12
            assert {(int(e.fields["text"][2:]) % 2, e.label) for e in examples} == {
                (0, "objective"),
                (1, "subjective"),
            }
            assert not any("position" in note for note in splits.notes)

    def test_movie_reviews_need_no_hub(self) -> None:
        task = benchmarks.movie_reviews(test=400)
        assert task.splits.digest == "9c2eb7244bc09a3d3f875f59abd9e0f1"

    @pytest.mark.parametrize(("kind", "masked"), [("llama", False), ("bert", True)])
    @pytest.mark.parametrize("name", ["sst2", "agnews", "dbpedia", "rte"])
    def test_models_of_either_kind_can_score_them(
        self, tmp_path: Path, name: str, kind: TinyKind, masked: bool
    ) -> None:
        task = preset(name)(
            data=few_shot_folder(tmp_path / "k", KNOWN[name], numbers=True), masked=masked
        )
        lm = tiny_lm(kind)
        prompt = task.written(lm, task.hand_prompt)
        rewards = task.rewards(lm, [prompt], task.splits.train)
        assert rewards.shape == (1, len(task.splits.train))


class TestRegistration:
    def test_every_preset_is_registered_under_its_name(self) -> None:
        project = tomllib.loads(Path(__file__, "../../../pyproject.toml").resolve().read_text())
        points = project["project"]["entry-points"]["rlprompt.tasks"]
        for name in KNOWN:
            made = EntryPoint(name, points[name], "rlprompt.tasks").load()
            assert made is preset(name)

    @pytest.mark.parametrize("name", KNOWN)
    def test_its_settings_can_be_listed_and_are_described(self, name: str) -> None:
        made = preset(name)
        described = inspect.getdoc(made) or ""
        assert summary_of(made) == KNOWN[name].summary
        settings = settings_of(made)
        assert settings == settings_of(benchmarks.sst2)
        assert all(f"\n    {setting}: " in described for setting in settings)
        assert set(typing.get_type_hints(made)) == {*settings, "return"}
