"""The hub is a folder that `datasets` saved, and two functions that are replaced."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import httpx2
import huggingface_hub
import pytest

from rlprompt._utils import network
from rlprompt.data.examples import Splits
from rlprompt.data.hub import HubName
from rlprompt.data.load import load_splits

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LABELS = ("bad", "good")
BUILT = datasets.load_dataset


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def part(start: int, n: int, *, named: bool = True, secret: bool = False) -> Any:
    """A split of alternating classes; with names of classes, or numbers alone."""
    label = datasets.ClassLabel(names=list(LABELS)) if named else datasets.Value("int64")
    return datasets.Dataset.from_dict(
        {
            "text": [f"text {i}" for i in range(start, start + n)],
            "label": [-1 if secret else i % 2 for i in range(n)],
            "id": list(range(n)),
        },
        features=datasets.Features(
            {"text": datasets.Value("string"), "label": label, "id": datasets.Value("int64")}
        ),
    )


def save(folder: Path, **parts: Any) -> str:
    datasets.DatasetDict(parts).save_to_disk(str(folder))
    return str(folder)


def drawn(splits: Splits, name: str) -> set[str]:
    return {example.source.split(":")[0] for example in splits.parts()[name]}


class TestHubName:
    @pytest.mark.parametrize(
        ("source", "name"),
        [
            ("hub:imdb", HubName("imdb")),
            ("hub:SetFit/sst2", HubName("SetFit/sst2")),
            ("hub:nyu-mll/glue:sst2", HubName("nyu-mll/glue", "sst2")),
            ("hub:a/b@refs/convert/parquet", HubName("a/b", "", "refs/convert/parquet")),
            (f"hub:a/b:c@{COMMIT}", HubName("a/b", "c", COMMIT)),
        ],
    )
    def test_it_is_read_and_written(self, source: str, name: HubName) -> None:
        assert HubName.parse(source) == name
        assert HubName.parse(str(name)) == name

    @pytest.mark.parametrize(
        "source", ["hub:", "hub:a/b/c", "hub:a b", "hub:a@", "hub:a:", "hub:../a", "hub:/etc"]
    )
    def test_anything_else_is_refused(self, source: str) -> None:
        with pytest.raises(ValueError, match="is no hub data set; write hub:NAME"):
            load_splits(source, LABELS)


class TestSavedFolder:
    def test_train_and_dev_come_from_train_and_test_from_test(self, tmp_path: Path) -> None:
        source = save(tmp_path / "set", train=part(0, 20), validation=part(20, 4), test=part(30, 6))
        splits = load_splits(source, LABELS, shots=2)
        assert [len(p) for p in splits.parts().values()] == [4, 4, 6]
        assert [drawn(splits, name) for name in splits.parts()] == [{"train"}, {"train"}, {"test"}]
        assert {e.label for e in splits.test} == set(LABELS)
        assert splits.test[0].source == "test:1"
        assert splits.test[0].fields == {"text": "text 30"}
        assert splits.notes == ("train and dev are drawn from its train, test is its test",)
        assert splits.origin == ""

    def test_a_test_set_without_labels_gives_way_to_validation(self, tmp_path: Path) -> None:
        source = save(
            tmp_path / "set",
            train=part(0, 20),
            validation_matched=part(20, 4),
            validation_mismatched=part(30, 4),
            test=part(40, 4, secret=True),
        )
        splits = load_splits(source, LABELS, shots=2)
        assert drawn(splits, "test") == {"validation_matched"}

    def test_a_single_split_is_drawn_from(self, tmp_path: Path) -> None:
        part(0, 12).save_to_disk(str(tmp_path / "one"))
        splits = load_splits(str(tmp_path / "one"), LABELS, shots=2)
        assert [len(p) for p in splits.parts().values()] == [4, 4, 4]
        assert splits.train[0].source.startswith("one:")

    def test_three_splits_are_taken_as_they_are(self, tmp_path: Path) -> None:
        source = save(tmp_path / "set", train=part(0, 3), dev=part(3, 3), test=part(6, 3))
        assert [len(p) for p in load_splits(source, LABELS).parts().values()] == [3, 3, 3]

    def test_numbers_without_names_are_labels_as_text(self, tmp_path: Path) -> None:
        source = save(tmp_path / "set", train=part(0, 12, named=False))
        splits = load_splits(source, ("0", "1"), shots=1)
        assert {e.label for e in splits.train} == {"0", "1"}

    def test_a_class_that_is_kept_secret_is_named(self, tmp_path: Path) -> None:
        source = save(tmp_path / "set", train=part(0, 12, secret=True))
        with pytest.raises(ValueError, match="train:1 has the unknown label '-1'"):
            load_splits(source, LABELS)

    @pytest.mark.parametrize("saved", [True, False])
    @pytest.mark.parametrize("answers", [["two", "2"], {"text": ["two", "2"], "start": [3, 9]}])
    def test_answers_are_lists_or_objects_of_such(
        self, tmp_path: Path, answers: Any, saved: bool
    ) -> None:
        parts = {
            name: datasets.Dataset.from_list(
                [{"text": f"{name} {i}", "answers": answers} for i in range(8)]
            )
            for name in ("train", "validation")
        }
        source = save(tmp_path / "set", **parts) if saved else parts
        splits = load_splits(source, None, label="answers", shots=2)
        assert drawn(splits, "test") == {"validation"}
        assert splits.test[0].references == ("two", "2")

    def test_a_text_of_train_in_test_is_a_leak_only_where_it_was_drawn(
        self, tmp_path: Path
    ) -> None:
        source = save(tmp_path / "set", train=part(0, 20), test=part(0, 30))
        with pytest.raises(ValueError, match=r"test:\d+ repeats train:\d+"):
            load_splits(source, LABELS, shots=2)
        splits = load_splits(source, LABELS, shots=2, on_bad_rows="skip")
        assert len(splits.test) == 30 - 8

    def test_a_missing_column_is_named(self, tmp_path: Path) -> None:
        source = save(tmp_path / "set", train=part(0, 12))
        with pytest.raises(ValueError, match="train has no column 'texts'; it has 'text', 'label'"):
            load_splits(source, LABELS, text=("texts",))

    def test_splits_without_train_are_named(self, tmp_path: Path) -> None:
        source = save(tmp_path / "set", validation=part(0, 12), test=part(20, 4))
        with pytest.raises(ValueError, match="has no split train; it has validation, test"):
            load_splits(source, LABELS)

    def test_a_damaged_folder_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}')
        with pytest.raises(ValueError, match="cannot be loaded"):
            load_splits(str(tmp_path), LABELS)


class TestHub:
    @pytest.fixture
    def calls(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
        """A hub with one data set, which says what it was asked."""
        calls: list[tuple[Any, ...]] = []

        def load_dataset(name: str, config: str | None, *, revision: str) -> Any:
            calls.append(("load", name, config, revision))
            return datasets.DatasetDict(train=part(0, 12), test=part(20, 4))

        def dataset_info(self: Any, name: str, *, revision: str) -> Any:
            calls.append(("look up", name, revision))
            return SimpleNamespace(sha=COMMIT)

        monkeypatch.setattr(network, "hub_answers", lambda: True)
        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        return calls

    def test_the_revision_is_looked_up_pinned_and_recorded(
        self, calls: list[tuple[Any, ...]]
    ) -> None:
        splits = load_splits("hub:me/set:small@v1", LABELS, shots=2)
        assert calls == [("look up", "me/set", "v1"), ("load", "me/set", "small", COMMIT)]
        assert splits.origin == f"hub:me/set:small@{COMMIT}"
        assert splits.notes[0] == f"data is hub:me/set:small@{COMMIT}"
        plain = Splits(splits.train, splits.dev, splits.test)
        assert splits.digest != plain.digest

    def test_a_commit_is_not_looked_up(self, calls: list[tuple[Any, ...]]) -> None:
        splits = load_splits(f"hub:me/set@{COMMIT}", LABELS, shots=2)
        assert calls == [("load", "me/set", None, COMMIT)]
        assert splits.origin == f"hub:me/set@{COMMIT}"

    def test_no_answer_says_what_to_do(
        self, calls: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(network, "hub_answers", lambda: False)
        with pytest.raises(ValueError, match=r"cannot be reached to look up hub:me/set@main.*save"):
            load_splits("hub:me/set", LABELS)
        assert calls == []

    @pytest.mark.parametrize(
        "error",
        [
            FileNotFoundError("Dataset 'me/set' doesn't exist\nlong story"),
            ValueError("BuilderConfig 'x' not found"),
            RuntimeError("Dataset scripts are no longer supported, but found set.py"),
            datasets.exceptions.NonMatchingSplitsSizesError([{"expected": 1, "recorded": 2}]),
            datasets.exceptions.DatasetGenerationCastError("It failed\n\nOther columns"),
            httpx2.ReadTimeout("the hub does not answer"),
        ],
    )
    def test_what_the_hub_refuses_is_one_line(
        self,
        calls: list[tuple[Any, ...]],
        monkeypatch: pytest.MonkeyPatch,
        error: Exception,
    ) -> None:
        def refuse(*args: Any, **options: Any) -> None:
            raise error

        monkeypatch.setattr(datasets, "load_dataset", refuse)
        with pytest.raises(ValueError, match="hub:me/set@main cannot be loaded: ") as raised:
            load_splits("hub:me/set", LABELS)
        assert "\n" not in str(raised.value)
        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)
        if isinstance(error, OSError | httpx2.HTTPError):
            with pytest.raises(ValueError, match="hub:me/set@main cannot be found: "):
                load_splits("hub:me/set", LABELS)

    @pytest.mark.parametrize(
        ("name", "more", "why"),
        [
            ("csv", "text,more\nb,2\n", "Schema at index 1 was different"),
            ("json", '{"text": "b", "more": 2}\n', "column names don't match"),
        ],
    )
    def test_files_that_make_no_data_set_are_one_line_with_the_reason(
        self,
        calls: list[tuple[Any, ...]],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        name: str,
        more: str,
        why: str,
    ) -> None:
        first, second = tmp_path / "a", tmp_path / "b"
        first.write_text({"csv": "text\na\n", "json": '{"text": "a"}\n'}[name])
        second.write_text(more)

        def build(*args: Any, **options: Any) -> Any:
            files = [str(first), str(second)]
            return BUILT(name, data_files=files, cache_dir=str(tmp_path / "cache"))

        monkeypatch.setattr(datasets, "load_dataset", build)
        message = f"hub:me/set@main cannot be loaded: DatasetGeneration.*{why}"
        with pytest.raises(ValueError, match=message) as raised:
            load_splits("hub:me/set", LABELS)
        assert "\n" not in str(raised.value)

    def test_without_the_library_the_extra_is_named(self, block: Callable[[str], None]) -> None:
        block("datasets")
        with pytest.raises(ValueError, match=r"needs datasets .*: pip install 'rlprompt\[hub\]'"):
            load_splits(f"hub:me/set@{COMMIT}", LABELS)

    def test_without_pyarrow_its_extra_is_named(
        self, tmp_path: Path, block: Callable[[str], None]
    ) -> None:
        (tmp_path / "a.parquet").write_bytes(b"")
        block("pyarrow")
        with pytest.raises(ValueError, match=r"needs pyarrow .*: pip install 'rlprompt\[parq"):
            load_splits(str(tmp_path / "a.parquet"), LABELS)


@pytest.fixture
def block(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that makes a package one that is not installed."""
    return lambda name: monkeypatch.setitem(sys.modules, name, None)
