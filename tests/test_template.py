from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import TinyKind, tiny_lm

from rlprompt.config.tasks import ClassificationConfig
from rlprompt.export.facts import Usage
from rlprompt.models.lm import FrozenLM
from rlprompt.template import Query, Template

ANSWERS = ((5,), (6, 7))

# Ordinary words with the space before them inside the text, as a reader would write them.
words = st.lists(
    st.sampled_from(["the", "film", "was", "great", "It", "plot", "I", "hated", "2019", "naïve"]),
    min_size=1,
    max_size=6,
).map(" ".join)


@pytest.fixture(params=["tiny", "real"])
def encoder(request: pytest.FixtureRequest) -> FrozenLM:
    if request.param == "tiny":
        return tiny_lm("llama")
    lm: FrozenLM = request.getfixturevalue("real_tokenizer")
    return lm


def spelt(lm: FrozenLM, ids: Sequence[int]) -> list[str]:
    return [lm.decode([i]) for i in ids]


def filled(template: Template, lm: FrozenLM, prompt: str, **fields: str) -> tuple[int, ...]:
    """Ids of the text with a written prompt in the gap."""
    query = template.query(fields, lm, ANSWERS)
    return query.head_ids + lm.encode(template.prompt_prefix + prompt) + query.tail_ids


class TestFilling:
    @pytest.mark.parametrize(
        ("template", "whole"),
        [
            ("{text} {prompt}", "{text} {prompt}"),
            ("{prompt} {text}", "{prompt} {text}"),
            ("{prompt}: {text}\nMood:", "{prompt}: {text}\nMood:"),
            ("Review: {text}\n{prompt}\nMood:", "Review: {text}\n{prompt}\nMood:"),
            ("Review: {text}\n\n {prompt}", "Review: {text}\n\n {prompt}"),
            ("{{{text}}} {prompt}", "{{{text}}} {prompt}"),
            ("{text} {prompt} ", "{text} {prompt}"),  # the last space is the answer's
            ("{text} {prompt}\nMood: ", "{text} {prompt}\nMood:"),
            ("{text} {prompt}\n", "{text} {prompt}\n"),
        ],
    )
    @settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(text=words, prompt=words)
    def test_the_ids_are_the_tokenizers_own_of_the_whole_text(
        self, encoder: FrozenLM, template: str, whole: str, text: str, prompt: str
    ) -> None:
        expected = encoder.encode(whole.format(text=text, prompt=prompt))
        assert filled(Template(template), encoder, prompt, text=text) == expected

    def test_two_fields_stand_on_either_side(self, encoder: FrozenLM) -> None:
        template = Template("{premise} {prompt} {hypothesis}")
        assert template.fields == ("premise", "hypothesis")
        ids = filled(template, encoder, "so", premise="It was the film", hypothesis="it was bad")
        assert ids == encoder.encode("It was the film so it was bad")

    def test_a_field_may_stand_twice(self, encoder: FrozenLM) -> None:
        template = Template("{text} {prompt} {text}")
        assert template.fields == ("text",)
        assert filled(template, encoder, "or", text="bad") == encoder.encode("bad or bad")

    def test_spaces_around_an_examples_text_are_left_out(self, encoder: FrozenLM) -> None:
        template = Template("{text} {prompt}")
        assert filled(template, encoder, "so", text=" bad \n") == encoder.encode("bad so")

    def test_braces_in_an_examples_text_are_text(self, encoder: FrozenLM) -> None:
        template = Template("{text} {prompt}")
        assert filled(template, encoder, "so", text="{prompt} {x}") == encoder.encode(
            "{prompt} {x} so"
        )

    def test_a_line_break_before_the_prompt_is_there_whatever_the_prompt(
        self, encoder: FrozenLM
    ) -> None:
        template = Template("{text}\n{prompt}")
        query = template.query({"text": "bad"}, encoder, ANSWERS)
        assert query.head_ids == encoder.encode("bad\n")
        assert template.prompt_prefix == ""

    def test_the_space_before_the_prompt_is_not_in_the_head(self, encoder: FrozenLM) -> None:
        template = Template("{text} {prompt}")
        assert template.prompt_prefix == " "
        assert template.query({"text": "bad"}, encoder, ANSWERS).head_ids == encoder.encode("bad")

    def test_the_candidates_are_passed_on(self, lm: FrozenLM) -> None:
        query = Template("{text} {prompt}").query({"text": "x"}, lm, [[5], [6, 7]])
        assert query.candidates == ((5,), (6, 7))

    def test_columns_that_the_template_does_not_name_do_no_harm(self, lm: FrozenLM) -> None:
        template = Template("{text} {prompt}")
        assert template.query({"text": "x"}, lm, ANSWERS) == template.query(
            {"text": "x", "author": "y"}, lm, ANSWERS
        )


class TestAnswer:
    @pytest.mark.parametrize(
        ("template", "prefix"),
        [
            ("{text} {prompt}", " "),
            ("{text} {prompt} ", " "),
            ("{text} {prompt}\nMood:", " "),
            ("{text} {prompt}\n", ""),
            ("{text} {prompt}\n ", " "),
            ("{text} {prompt} {mask} .", " "),
            ("{text} {prompt}\n{mask}", ""),
            ("{mask} News: {prompt} {text}", ""),
        ],
    )
    def test_it_takes_the_spaces_before_it_along(self, template: str, prefix: str) -> None:
        assert Template(template).answer_prefix == prefix

    @pytest.mark.parametrize(
        ("template", "separator"), [("{text} {prompt}", " "), ("{text}\n{prompt}\n", "")]
    )
    def test_text_and_answer_are_the_tokenizers_own(
        self, encoder: FrozenLM, template: str, separator: str
    ) -> None:
        made = Template(template)
        ids = filled(made, encoder, "it was", text="the film") + encoder.encode(
            made.answer_prefix + "great"
        )
        whole = template.format(text="the film", prompt="it was") + separator + "great"
        assert ids == encoder.encode(whole)


class TestAnswerSpace:
    @pytest.mark.parametrize(
        ("template", "prefix"),
        [
            ("{text} {prompt}\nMood (", ""),
            ("{text} {prompt} [", ""),
            ('{text} {prompt}\nThe mood is "', ""),
            ("{text} {prompt}\nMood: \u201c", ""),
            ('"{text}" {prompt} it said "so"', " "),  # a quote that closes
            ('{prompt} "{text}"', " "),
            ("{text} {prompt} (so)", " "),
            ("{text}{prompt}\n\u60c5\u611f\uff1a", ""),  # Chinese, with a full-width colon
            ("{text}{prompt}\n\u60c5\u611f:", ""),
            ("{text} {prompt} \u611f\u60c5\u306f", ""),  # Japanese
            ("{text} {prompt} \u0e04\u0e27\u0e32\u0e21\u0e23\u0e39\u0e49:", ""),  # Thai
            ("{text} {prompt} \uae30\ubd84:", " "),  # Korean writes spaces
            ("{text} {prompt}<|assistant|>", ""),
            ("{text} {prompt} [/INST]", ""),
            ("{text} {prompt} Mood ( ", " "),  # the spaces that are there
        ],
    )
    def test_auto_is_none_where_one_writes_none(self, template: str, prefix: str) -> None:
        assert Template(template).answer_prefix == prefix
        assert Template(template).answer_text("good") == f"{prefix}good"

    def test_what_is_asked_for_counts(self) -> None:
        assert Template("{text} {prompt}", "").answer_text("good") == "good"
        assert Template("{text} {prompt}\n", " ").answer_text("good") == " good"
        assert Template("{text} {prompt}", "").answer_text(" good") == " good"

    def test_the_script_of_the_word_counts_too(self) -> None:
        assert Template("{text} {prompt}").answer_text("\u597d") == "\u597d"
        assert Template("{text} {prompt}", " ").answer_text("\u597d") == " \u597d"

    def test_a_decoders_text_begins_with_the_word(self) -> None:
        assert Template("{text} {prompt}").answer_text("good", "encoder-decoder") == "good"
        assert Template("{text} {prompt}", " ").answer_text("good", "encoder-decoder") == " good"

    def test_only_what_changed_enters_hashes(self) -> None:
        words = ["good", " bad"]
        for text, space in (("{text} {prompt}", "auto"), ("{text} {prompt}\n", "auto")):
            assert Template(text, space).changes(words) == ()
        assert Template("{text} {prompt}", " ").changes(words) == ()
        assert Template("{text} {prompt} (").changes(words) == ("good", " bad")

    def test_a_wrong_one_is_named(self) -> None:
        with pytest.raises(ValueError, match="answer_space is '_'; give auto, ' '"):
            Template("{text} {prompt}", "_")

    @pytest.mark.parametrize("space", ["auto", " ", "", "\n", "\t ", "\u3000"])
    def test_what_a_task_takes_a_config_and_an_export_take_too(self, space: str) -> None:
        """Else a study that is paid for could not be exported."""
        assert Template("{text} {prompt}", space).answer_space == space
        facts = {"template": "{text} {prompt}", "answer_space": space}
        assert Usage.model_validate(facts).made.answer_space == space
        words = {"good": "good", "bad": "bad"}
        task = {**facts, "data": "films.csv", "label_words": words}
        assert ClassificationConfig.model_validate(task).answer_space == space

    def test_a_wrong_one_of_a_config_is_named_alike(self) -> None:
        task = {"data": "x.csv", "template": "{text} {prompt}", "label_words": {"a": "b", "c": "d"}}
        with pytest.raises(ValueError, match="answer_space is '_'; give auto, ' '"):
            ClassificationConfig.model_validate({**task, "answer_space": "_"})


class TestSpecialTokens:
    @pytest.mark.parametrize("kind", ["llama", "opt", "t5"])
    def test_they_stand_where_the_tokenizer_puts_them(self, kind: TinyKind) -> None:
        lm = tiny_lm(kind)
        query = Template("{text} {prompt}").query({"text": "the film"}, lm, ANSWERS)
        plain = Template("{text} {prompt} now").query({"text": "the film"}, lm, ANSWERS)
        whole = lm.tokenizer("the film")["input_ids"]
        if kind == "t5":  # it ends its input; a causal model goes on with the answer
            assert [*query.head_ids, *query.tail_ids] == whole
            assert plain.tail_ids == (*lm.encode(" now"), lm.tokenizer.eos_token_id)
        else:
            assert list(query.head_ids) == whole
            assert query.tail_ids == ()

    @pytest.mark.parametrize("kind", ["bert", "roberta"])
    @pytest.mark.parametrize(
        ("template", "whole"),
        [
            ("{text} {prompt} {mask} .", "the film<gap><mask> ."),
            ("{text} {prompt}{mask}.", "the film<gap><mask>."),
            ("{mask} news: {prompt} {text}", "<mask> news:<gap> the film"),
            ("It was {mask}. {prompt} {text}", "It was<mask>.<gap> the film"),
        ],
    )
    def test_a_mask_stands_where_the_answer_goes(
        self, kind: TinyKind, template: str, whole: str
    ) -> None:
        lm = tiny_lm(kind)
        query = Template(template).query({"text": "the film"}, lm, ANSWERS)
        before, after = whole.split("<gap>")
        assert lm.decode(query.head_ids) == f"<s>{before}"
        assert lm.decode(query.tail_ids) == f"{after}</s>"
        assert (query.head_ids + query.tail_ids).count(lm.mask_id or -1) == 1

    def test_a_mask_is_refused_where_the_model_has_none(self, lm: FrozenLM) -> None:
        with pytest.raises(ValueError, match=r"has a \{mask\} but .* leave \{mask\} out"):
            Template("{text} {prompt} {mask}").query({"text": "x"}, lm, ANSWERS)


class TestMistakes:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{text}", "has 0 {prompt}; it needs exactly one"),
            ("", "has 0 {prompt}"),
            ("{text} {{prompt}}", "has 0 {prompt}"),
            ("{prompt} {text} {prompt}", "has 2 {prompt}"),
            ("{mask} {prompt} {mask}", "has 2 {mask}; give one at most"),
            ("{text} {prompt", "write a literal brace twice"),
            ("{text} } {prompt}", "write a literal brace twice"),
            ("{} {prompt}", "a field is a plain name such as {text}, got ''"),
            ("{0} {prompt}", "got '0'"),
            ("{ prompt }", "got ' prompt '"),
            ("{text.upper} {prompt}", "got 'text.upper'"),
            ("{text[0]} {prompt}", "got 'text[0]'"),
            ("{text!r} {prompt}", "conversion 'r'"),
            ("{text:>9} {prompt}", "format '>9'"),
        ],
    )
    def test_a_broken_template_is_named(self, text: str, message: str) -> None:
        with pytest.raises(ValueError, match=re.escape(message)) as error:
            Template(text)
        assert repr(text) in str(error.value)

    def test_a_missing_field_is_named_with_what_there_is(self, lm: FrozenLM) -> None:
        with pytest.raises(ValueError, match=r"needs the field 'text'.*has 'sentence', 'id'"):
            Template("{text} {prompt}").query({"sentence": "x", "id": "1"}, lm, ANSWERS)

    @pytest.mark.parametrize("candidates", [((),), ((5,), ())])
    def test_an_answer_of_nothing_is_refused(self, candidates: tuple[tuple[int, ...], ...]) -> None:
        with pytest.raises(ValueError, match="every candidate of a query needs one token"):
            Query((1,), (), candidates)


def test_a_query_counts_what_the_model_is_fed_besides_the_prompt() -> None:
    query = Query((1, 2, 3), (4,), ((5,), (6, 7, 8)))
    assert (query.n_text, query.n_answer) == (4, 2)  # the last token of an answer is only read


def test_templates_of_one_text_are_one_value() -> None:
    assert Template("{text} {prompt}") == Template("{text} {prompt}")
    assert hash(Template("{text} {prompt}")) == hash(Template("{text} {prompt}"))
