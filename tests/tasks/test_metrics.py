from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlprompt.data.examples import Example
from rlprompt.tasks.metrics import METRICS, metric


def value(name: str, output: str, reference: str = "") -> float:
    return metric(name)([output], [reference])[0]


class TestSquad:
    # What evaluate-v1.1.py gives.
    @pytest.mark.parametrize(
        ("output", "reference", "exact", "f1"),
        [
            ("The Denver Broncos!", "denver broncos", 1.0, 1.0),
            ("Denver", "Denver Broncos", 0.0, 2 / 3),
            ("the Broncos of Denver", "Denver Broncos", 0.0, 0.8),
            ("a b b", "b b b", 0.0, 0.8),
            ("Santa Clara, California", "Levi's Stadium", 0.0, 0.0),
            ("an anthem", "anthem", 1.0, 1.0),
            ("U.S.", "us", 1.0, 1.0),
            ("", "gold", 0.0, 0.0),
        ],
    )
    def test_gives_the_published_values(
        self, output: str, reference: str, exact: float, f1: float
    ) -> None:
        assert value("exact_match", output, reference) == exact
        assert value("token_f1", output, reference) == pytest.approx(f1)

    def test_two_answers_of_nothing_agree(self) -> None:
        assert value("token_f1", "the", "") == 1.0
        assert value("exact_match", " ", "") == 1.0


def test_contains_looks_for_whole_words() -> None:
    assert value("contains", "It was Paris, France.", "paris") == 1.0
    assert value("contains", "Comparison", "paris") == 0.0
    assert value("contains", "the new York times", "New York") == 1.0
    assert value("contains", "anything", "") == 1.0


def test_a_pattern_is_searched_for() -> None:
    assert value("regex:^[0-9]+$", "42") == 1.0
    assert value("regex:^[0-9]+$", "42 or so") == 0.0
    assert value("regex:a:b", "xa:by") == 1.0
    assert value("regex:z$", "a" * 5000 + "z") == 0.0  # only the first 2,000 characters count


class TestNumber:
    @pytest.mark.parametrize(
        ("output", "reference", "worth"),
        [
            ("42", "42.0", 1.0),
            ("It is 41, no: 42.", "42", 1.0),
            ("so 1,234,567 in all", "1234567", 1.0),
            ("-7", "7", 0.0),
            ("\u22127", "-7", 1.0),
            ("$-7", "-$7", 1.0),
            ("3-7", "7", 1.0),  # no sign between numbers
            ("1.5e3 metres", "1500", 1.0),
            (".5", "0.50", 1.0),
            ("forty-two", "42", 0.0),
            ("", "0", 0.0),
            ("He has 5.\n#### 42 of 99", "6 * 7 = 42\n#### 42", 1.0),
            ("12,34", "34", 1.0),  # a comma stands before three digits
        ],
    )
    def test_the_last_number_counts_or_the_marked_one(
        self, output: str, reference: str, worth: float
    ) -> None:
        assert value("number", output, reference) == worth

    def test_the_first_one_where_that_is_asked_for(self) -> None:
        assert metric({"name": "number", "take": "first"}).of(
            ["42 of 99", "#### 42 of 99"], [Example({}, "42")] * 2
        ) == [1.0, 1.0]

    def test_a_tolerance_is_kept_to_the_last_digit(self) -> None:
        close = metric({"name": "number", "tolerance": 0.01})
        values = close.of(["3.15", "3.13", "3.151", "3.1399"], [Example({}, "3.14")] * 4)
        assert values == [1.0, 1.0, 0.0, 1.0]
        assert close.fingerprint != metric("number").fingerprint

    def test_a_reference_without_a_number_is_told(self) -> None:
        assert "'two', which the metric number cannot read" in metric("number").check(
            Example({}, "two")
        )
        assert metric("number").check(Example({}, ["two", "2"])) == ""  # type: ignore[arg-type]


class TestJson:
    @pytest.fixture
    def schema(self, tmp_path: Path) -> Path:
        path = tmp_path / "schema.json"
        path.write_text(
            json.dumps(
                {
                    "type": "object",
                    "required": ["n"],
                    "properties": {"n": {"$ref": "#/$defs/n"}},
                    "$defs": {"n": {"type": "integer"}},
                }
            )
        )
        return path

    @pytest.mark.parametrize(
        ("output", "parses"),
        [('{"n": 1}', 1.0), (" null ", 1.0), ("{n: 1}", 0.0), ("", 0.0), ("NaN", 0.0)],
    )
    def test_json_parses(self, output: str, parses: float) -> None:
        assert value("json", output) == parses

    def test_nesting_without_end_is_no_json(self) -> None:
        assert value("json", "[" * 100_000) == 0.0

    @pytest.mark.parametrize(
        ("output", "valid"), [('{"n": 1}', 1.0), ('{"n": "1"}', 0.0), ("[]", 0.0), ("{", 0.0)]
    )
    def test_a_schema_is_kept(self, schema: Path, output: str, valid: float) -> None:
        assert value(f"json:{schema}", output) == valid

    def test_another_schema_is_another_metric(self, schema: Path) -> None:
        before = metric(f"json:{schema}").fingerprint
        schema.write_text("{}")
        assert metric(f"json:{schema}").fingerprint != before

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("{", "is not JSON"),
            ('{"type": "number of sheep"}', "is not a JSON schema"),
            ('{"items": {"$ref": "https://example.com/x.json"}}', "nothing is fetched while"),
        ],
    )
    def test_a_broken_schema_is_refused(self, schema: Path, content: str, message: str) -> None:
        schema.write_text(content)
        with pytest.raises(ValueError, match=message):
            metric(f"json:{schema}")


class TestFromPackages:
    def test_bleu_of_a_sentence(self) -> None:
        # Precisions 5/6, 3/5, 2/4 and 1/3; as long as the reference.
        found = value("bleu", "the cat sat on a mat", "the cat sat on the mat")
        assert found == pytest.approx((5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25, abs=1e-6)

    def test_chrf_of_a_sentence(self) -> None:
        assert value("chrf", "abc", "abc") == pytest.approx(1.0)
        # Letters of "ab" in "ac": one of two; no pair is the same: F2 0.5 and 0, their mean.
        assert value("chrf", "ab", "ac") == pytest.approx(0.25)

    def test_rouge(self) -> None:
        output, reference = "the cat was found", "the cat was under the bed"
        assert value("rouge1", output, reference) == pytest.approx(2 * 3 / (4 + 6))
        assert value("rouge2", output, reference) == pytest.approx(2 * 2 / (3 + 5))
        assert value("rougeL", "found the cat", reference) == pytest.approx(2 * 2 / (3 + 6))

    @pytest.mark.parametrize(
        ("name", "package"), [("bleu", "sacrebleu"), ("rougeL", "rouge_score.rouge_scorer")]
    )
    def test_a_missing_package_is_named_with_how_to_get_it(
        self, monkeypatch: pytest.MonkeyPatch, name: str, package: str
    ) -> None:
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ValueError, match=r"pip install 'rlprompt\[metrics\]'"):
            metric(name)


words = st.lists(st.sampled_from(["a", "the", "cat", "Cat!", "sat", "mat", "é", ""]), max_size=6)


@pytest.mark.parametrize("name", [n for n in METRICS if n not in ("regex", "judge")])
@given(st.lists(st.tuples(words, words), min_size=1, max_size=4))
def test_every_answer_is_valued_by_itself_within_0_and_1(
    name: str, pairs: list[tuple[list[str], list[str]]]
) -> None:
    found = metric(name)
    outputs, references = ([" ".join(words) for words in side] for side in zip(*pairs, strict=True))
    values = found(outputs, references)
    assert all(0 <= v <= 1 for v in values)
    assert found(outputs[::-1], references[::-1]) == values[::-1]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("exactmatch", "did you mean 'exact_match'"),
        ("rouge7", "did you mean 'rouge"),
        ("bleu:4", "bleu takes nothing after a colon"),
        ("regex", "needs a pattern"),
        ("regex:(", "not a regular expression"),
        ("json:/nowhere.json", "the schema cannot be read"),
        ("judge", "judge has no model; say which one judges"),
        ({"tolerance": 1}, "a metric has a name"),
        ({"name": "number", "tolerance": -0.1}, "tolerance is -0.1; give a number of 0 or more"),
        ({"name": "number", "tolerance": "1"}, "tolerance is '1'; give a number of 0 or more"),
        ({"name": "number", "take": "any"}, "take is 'any'; give last or first"),
        ({"name": "number", "tolerence": 1}, "no setting 'tolerence'; did you mean 'tolerance'"),
        ({"name": "bleu", "order": 2}, "bleu has no setting 'order'; it has none"),
    ],
)
def test_a_metric_that_cannot_be_is_refused(name: str | dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metric(name)


class TestSeveralAnswers:
    """An answer is held against all references that are right."""

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("exact_match", 1.0),
            ("contains", 1.0),
            ("token_f1", 1.0),
            ("rouge1", 1.0),
            ("rougeL", 1.0),
            ("chrf", 1.0),
        ],
    )
    def test_the_best_counts(self, name: str, value: float) -> None:
        right = ("the City of Light", "Paris, France")
        assert metric(name)(["Paris, France"], [right]) == [pytest.approx(value)]

    def test_the_best_is_one_of_them_and_not_their_mean(self) -> None:
        # Against the first: 1 word of 2 and 1 in common, 2 / 3; against the second 2 / 4.
        (found,) = metric("token_f1")(["red"], [("red fox", "red fox jumps")])
        assert found == pytest.approx(2 / 3)

    def test_bleu_takes_all_references_together(self) -> None:
        """Each half of the answer stands in another reference: clipped counts are pooled."""
        answer = "the cat sat on the mat today"
        alone = metric("bleu")([answer], ["the cat sat"])[0]
        both = metric("bleu")([answer], [("the cat sat", "on the mat today")])[0]
        # 6 of 7 words (no reference has "the" twice), 5 of 6 pairs, 3 of 5 triples, 1 of 4 fours;
        # no reference is longer, so no penalty.
        assert both == pytest.approx((6 / 7 * 5 / 6 * 3 / 5 * 1 / 4) ** 0.25)
        assert both > alone
