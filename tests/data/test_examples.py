from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from rlprompt.data.examples import Example, Splits


def make(labels: Sequence[str], prefix: str = "text") -> list[Example]:
    return [Example({"text": f"{prefix} {i}"}, label) for i, label in enumerate(labels)]


class TestExample:
    def test_where_it_came_from_is_not_part_of_its_value(self) -> None:
        assert Example({"text": "a"}, "good", "x.csv:2") == Example(
            {"text": "a"}, "good", "y.csv:9"
        )

    @pytest.mark.parametrize("other", ["A  film", " a film ", "a\tFILM\n"])
    def test_case_and_spacing_do_not_make_another_text(self, other: str) -> None:
        assert Example({"text": "a film"}, "x").content == Example({"text": other}, "y").content

    def test_the_key_is_the_same_just_where_the_content_is(self) -> None:
        texts = ["a film", "A  film", "a\tFILM\n", "afilm", "a film.", "\ud800"]
        examples = [Example({"text": text}, "x") for text in texts]
        assert len({e.key for e in examples}) == len({e.content for e in examples}) == 4
        assert {len(e.key) for e in examples} == {16}

    def test_fields_are_not_run_together(self) -> None:
        first, second = {"a": "x y", "b": "z"}, {"a": "x", "b": "y z"}
        assert Example(first, "l").content != Example(second, "l").content
        assert (
            Example({"a": "x", "b": "y"}, "l").content == Example({"b": "y", "a": "x"}, "l").content
        )


class TestSplits:
    @pytest.mark.parametrize("empty", ["train", "dev", "test"])
    def test_an_empty_split_is_named(self, empty: str) -> None:
        parts = {name: tuple(make("x", name)) for name in ("train", "dev", "test")} | {empty: ()}
        with pytest.raises(ValueError, match=f"the {empty} split is empty"):
            Splits(parts["train"], parts["dev"], parts["test"])

    @pytest.mark.parametrize(
        ("first", "second"), [("train", "dev"), ("train", "test"), ("dev", "test")]
    )
    @pytest.mark.parametrize("same_object", [True, False])
    def test_a_leak_is_refused(self, first: str, second: str, same_object: bool) -> None:
        parts = {name: tuple(make("x", name)) for name in ("train", "dev", "test")}
        shared = Example({"text": "Shared"}, "x", "a.csv:5")
        again = shared if same_object else Example({"text": "shared "}, "y", "b.csv:7")
        parts[first] += (shared,)
        parts[second] += (again,)
        with pytest.raises(ValueError, match=f"{first} leaks into {second}: .* repeats a.csv:5"):
            Splits(parts["train"], parts["dev"], parts["test"])

    def test_an_example_in_memory_is_named_by_its_text(self) -> None:
        one, other = make("x"), make("x", "other")
        with pytest.raises(
            ValueError, match=r"the test example {'text': 'text 0'} repeats the train"
        ):
            Splits(tuple(one), tuple(other), tuple(one))

    def test_an_allowed_leak_is_noted_once(self) -> None:
        train, dev, test = (tuple(make("x", name)) for name in ("train", "dev", "test"))
        splits = Splits(train, train, (*test, *dev), ("said",), on_leak="allow")
        where = "the dev example {'text': 'train 0'} repeats the train example {'text': 'train 0'}"
        assert splits.notes == ("said", f"1 leak between splits was allowed: {where}")
        assert replace(splits, test=test).notes == splits.notes
        assert Splits(train, dev, test, on_leak="allow").notes == ()

    def test_what_to_do_about_leaks_is_one_of_two(self) -> None:
        train, dev, test = (tuple(make("x", name)) for name in ("train", "dev", "test"))
        with pytest.raises(ValueError, match="on_leak is 'warn'; give error or allow"):
            Splits(train, dev, test, on_leak=cast(Any, "warn"))

    def test_the_digest_is_the_hash_of_plain_json(self) -> None:
        """Studies know their data by it, from version to version."""
        parts = [
            [Example({"text": "é", "b": "x"}, "l"), Example({"text": "two", "b": ""}, "m")],
            [Example({"text": "dev", "b": "x"}, "l")],
            [Example({"text": "test", "b": "x"}, "l")],
        ]
        state = [[(dict(e.fields), e.label) for e in part] for part in parts]
        content = json.dumps(state, sort_keys=True).encode()
        digest = hashlib.blake2b(content, digest_size=16).hexdigest()
        train, dev, test = (tuple(part) for part in parts)
        splits = Splits(train, dev, test)
        assert splits.digest == digest
        assert replace(splits, origin="hub:a@1").digest not in (
            digest,
            replace(splits, origin="hub:a@2").digest,
        )

    def test_the_digest_hangs_on_texts_labels_and_splits_alone(self) -> None:
        a, b, c, d = (Example({"text": t}, "x") for t in "abcd")
        splits = Splits((a,), (b,), (c,))
        assert splits.digest == Splits((a,), (b,), (c,), notes=("said",)).digest
        assert splits.digest == Splits((Example({"text": "a"}, "x", "f:1"),), (b,), (c,)).digest
        others = [
            Splits((b,), (a,), (c,)),
            Splits((a,), (b,), (d,)),
            Splits((a, b), (d,), (c,)),
            Splits((a,), (b, d), (c,)),
            Splits((Example({"text": "a"}, "y"),), (b,), (c,)),
            Splits((Example({"words": "a"}, "x"),), (b,), (c,)),
        ]
        assert len({splits.digest, *(other.digest for other in others)}) == 7
