from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlprompt.data.examples import Example, Splits
from rlprompt.data.few_shot import few_shot


def make(labels: Sequence[str], prefix: str = "text") -> list[Example]:
    return [Example({"text": f"{prefix} {i}"}, label) for i, label in enumerate(labels)]


def drawn(splits: Splits) -> list[str]:
    """Texts of all splits as they come."""
    return [e.fields["text"] for part in splits.parts().values() for e in part]


class TestFewShot:
    @given(
        labels=st.lists(st.sampled_from("abc"), min_size=12, max_size=40),
        shots=st.integers(1, 3),
        n_test=st.none() | st.integers(1, 10),
        seed=st.integers(0, 3),
    )
    def test_splits_are_balanced_apart_and_seeded(
        self, labels: list[str], shots: int, n_test: int | None, seed: int
    ) -> None:
        examples = make(labels)
        counts = Counter(labels)
        own = {label: shots if n > 2 * shots else max(1, n // 3) for label, n in counts.items()}
        rest = len(labels) - 2 * sum(own.values())
        if min(counts.values()) < 2 or max(counts.values()) <= 2 * shots:
            with pytest.raises(ValueError, match="shots"):
                few_shot(examples, shots=shots, n_test=n_test, seed=seed)
            return
        splits = few_shot(examples, shots=shots, n_test=n_test, seed=seed)
        for part in (splits.train, splits.dev):
            assert Counter(e.label for e in part) == own
        assert len(splits.test) == (rest if n_test is None else min(rest, n_test))
        drawn = [example.content for part in splits.parts().values() for example in part]
        assert len(set(drawn)) == len(drawn)
        assert set(drawn) <= {example.content for example in examples}
        assert splits == few_shot(examples, shots=shots, n_test=n_test, seed=seed)

    def test_seeds_draw_different_examples(self) -> None:
        examples = make("ab" * 50)
        assert len({few_shot(examples, shots=4, seed=seed).digest for seed in range(10)}) == 10

    def test_a_smaller_test_is_part_of_the_larger(self) -> None:
        examples = make("ab" * 20)
        small, large = (few_shot(examples, shots=4, n_test=n) for n in (5, 10))
        assert small.train == large.train
        assert small.dev == large.dev
        assert small.test == large.test[:5]

    def test_a_repeated_text_is_used_once_and_counted(self) -> None:
        examples = make("ab" * 6)
        again = [Example({"text": "TEXT 0"}, "a"), Example({"text": "text  3"}, "b")]
        splits = few_shot([*examples, *again], shots=2)
        assert sum(map(len, splits.parts().values())) == 12
        assert splits.notes == ("2 repeats of examples were left out",)

    def test_a_text_with_two_labels_is_not_used(self) -> None:
        examples = make("ab" * 6)
        splits = few_shot([*examples, Example({"text": "text 0"}, "b")], shots=2)
        used = {example.content for part in splits.parts().values() for example in part}
        assert used == {example.content for example in examples[1:]}
        assert splits.notes[0] == "1 texts that are there with two labels were left out"

    def test_without_classes_shots_are_examples_in_all(self) -> None:
        examples = [*make("abcdefghij"), Example({"text": "text 3"}, "another answer")]
        splits = few_shot(examples, shots=3, by_class=False)
        assert [len(part) for part in splits.parts().values()] == [3, 3, 4]
        assert set(drawn(splits)) == {e.fields["text"] for e in examples}
        assert splits.notes == ("1 repeat of an example was left out",)
        with pytest.raises(
            ValueError, match=r"there are 10 examples; 6 shots need 12 .* such as 3$"
        ):
            few_shot(examples, shots=6, by_class=False)

    def test_the_draw_of_a_class_hangs_on_the_seed_and_not_on_labels_names(self) -> None:
        """Classes are drawn alike whatever they are called, as long as their order stays."""
        first = few_shot(make("ab" * 20), shots=4)
        second = few_shot(make("yz" * 20), shots=4)
        for name in ("train", "dev", "test"):
            assert [e.fields for e in first.parts()[name]] == [
                e.fields for e in second.parts()[name]
            ]

    def test_known_seeds_draw_what_they_always_drew(self) -> None:
        splits = few_shot(make("ab" * 10), shots=2, n_test=4, seed=7)
        drawn = [[int(e.fields["text"][5:]) for e in part] for part in splits.parts().values()]
        assert drawn == [[8, 12, 3, 13], [14, 16, 15, 1], [10, 9, 2, 18]]

    def test_a_test_smaller_than_asked_is_noted(self) -> None:
        splits = few_shot(make("ab" * 6), shots=2, n_test=10)
        assert splits.notes == ("test has 4 examples, 10 were asked for",)

    def test_too_few_examples_are_named_with_what_is_needed(self) -> None:
        with pytest.raises(
            ValueError, match=r"class 'b' has 3 examples; 3 shots need 6 .* such as 1$"
        ):
            few_shot(make("aaaabbb"), shots=3)
        with pytest.raises(
            ValueError, match=r"class 'b' has 1 example; 3 shots need 6 .*; give it 2 or more"
        ):
            few_shot(make("aaaaaaaaab"), shots=3)

    def test_a_rare_class_gives_fewer_shots_and_that_is_said(self) -> None:
        splits = few_shot(make("a" * 40 + "b" * 7), shots=4)
        counts = [Counter(e.label for e in part) for part in splits.parts().values()]
        assert counts == [{"a": 4, "b": 2}, {"a": 4, "b": 2}, {"a": 32, "b": 3}]
        assert splits.notes == (
            "class 'b' has 7 examples, too few for 4 shots: 2 are in train, 2 in dev",
        )

    def test_a_class_of_exactly_train_and_dev_leaves_a_third_to_test(self) -> None:
        splits = few_shot(make("a" * 100 + "b" * 100 + "c" * 32), shots=16)
        counts = [Counter(e.label for e in part) for part in splits.parts().values()]
        assert counts[0] == counts[1] == {"a": 16, "b": 16, "c": 10}
        assert counts[2] == {"a": 68, "b": 68, "c": 12}
        assert splits.notes == (
            "class 'c' has 32 examples, too few for 16 shots: 10 are in train, 10 in dev",
        )

    def test_classes_that_test_lacks_are_named(self) -> None:
        two_rows = few_shot(make("a" * 20 + "b" * 20 + "c" * 2), shots=4)
        assert [e.label for e in two_rows.test].count("c") == 0
        assert two_rows.notes[-1] == (
            "test has no example of the class 'c', so its scores say nothing of that"
        )
        small = few_shot(make("abc" * 10), shots=2, n_test=1)
        (there,) = {e.label for e in small.test}
        absent = " and ".join(map(repr, sorted(set("abc") - {there})))
        assert small.notes == (
            f"test has no example of the classes {absent}, so its scores say nothing of those",
        )
        assert few_shot(make("abcdefgh"), shots=2, n_test=1, by_class=False).notes == ()

    def test_nothing_left_to_test_on_is_an_error(self) -> None:
        with pytest.raises(ValueError, match=r"class 'a' has 2 examples; 1 shots need 2 .* more$"):
            few_shot(make("abab"), shots=1)
        with pytest.raises(ValueError, match=r"are 6 examples; 3 shots need 6 .* such as 2$"):
            few_shot(make("abcdef"), shots=3, by_class=False)
        with pytest.raises(ValueError, match=r"there are 0 examples; 1 shots need 2"):
            few_shot([], shots=1)

    @pytest.mark.parametrize(
        ("option", "value"), [("shots", 0), ("shots", -1), ("n_test", 0), ("n_test", -1)]
    )
    def test_sizes_below_one_are_refused(self, option: str, value: int) -> None:
        options: dict[str, Any] = {"shots": 1, option: value}
        with pytest.raises(ValueError, match=f"{option} is {value}; give 1 or more"):
            few_shot(make("ab" * 6), **options)
