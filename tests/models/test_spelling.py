"""Text is tokenised as a whole: the ids of its pieces, put together, are those of all of it."""

from __future__ import annotations

import copy
import hashlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spellings import SPELLINGS, WORDS, plain_loglik, spelling_lm, spelling_tokenizer
from tokenizers import Regex, normalizers

from rlprompt._utils.assets import fetch
from rlprompt.models.lm import FrozenLM
from rlprompt.models.spelling import Spelling
from rlprompt.prompt import TokenPrompt
from rlprompt.template import Template
from rlprompt.types import ANY, Piece

TEMPLATES = (
    "{text} {prompt}\nMood:",
    "{text} {prompt}",
    "{prompt} {text}\nMood:",
    "Review: {text}\n{prompt} Mood:",
    "{text}. {prompt}: so",
    "{prompt}\n{text} It was ",
    "{text} ({prompt})",
    'Q: {text} / {prompt} "',
    "{text}\n{prompt}\n",
    "{text} {prompt} Mood (",
)
texts = st.lists(
    st.sampled_from([*WORDS, "x", "Zq", "9", "12", "é", "it's", "(ok)", "a.b"]),
    min_size=1,
    max_size=5,
).map(" ".join)


def whole_ids(lm: FrozenLM, text: str) -> tuple[int, ...]:
    """What the tokenizer makes of a text that the model goes on with."""
    ids = tuple(lm.tokenizer(text)["input_ids"])
    bare = tuple(lm.tokenizer(text, add_special_tokens=False)["input_ids"])
    return ids if lm.kind != "causal" else ids[: ids.index(bare[0]) + len(bare)]


@pytest.mark.parametrize("name", SPELLINGS)
@settings(max_examples=40)
@given(template=st.sampled_from(TEMPLATES), text=texts, prompt=texts, word=st.sampled_from(WORDS))
def test_the_ids_of_the_pieces_are_those_of_the_whole(
    name: str, template: str, text: str, prompt: str, word: str
) -> None:
    lm, made = spelling_lm(name), Template(template)
    query = made.query({"text": text}, lm)
    ids = made.prompt_ids(lm, made.prompt_text(prompt))
    whole = template.rstrip(" ").format(text=text, prompt=prompt)
    if lm.kind != "causal":  # it does not go on with the text
        assert query.head_ids + ids + query.tail_ids == whole_ids(lm, whole)
        return
    spelt = made.answer_text(word)
    answer = made.answer_ids(lm, spelt)
    assert query.head_ids + ids + query.tail_ids + answer == whole_ids(lm, whole + spelt)
    assert made.typed({"text": text}, lm, made.prompt_text(prompt), spelt) == whole_ids(
        lm, whole + spelt
    )


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_text_of_a_prompt_that_is_typed_gives_it_again(name: str) -> None:
    lm = spelling_lm(name)
    for template in TEMPLATES[:4]:
        made = Template(template)
        ids = made.prompt_ids(lm, made.prompt_text("It was very good"))
        shown = made.prompt_shown(lm, ids)
        assert made.prompt_ids(lm, made.prompt_text(shown)) == ids
        assert shown.strip().casefold() == "it was very good"


@pytest.mark.parametrize("name", ["prepend", "metaspace first"])
def test_no_stray_space_is_put_at_a_piece(name: str) -> None:
    lm = spelling_lm(name)
    template = Template("{text} {prompt}\nMood:")
    query = template.query({"text": "terrible film"}, lm)
    answer = template.answer_ids(lm, " bad")
    spelt = [lm.tokenizer.convert_ids_to_tokens(list(ids)) for ids in (query.tail_ids, answer)]
    assert spelt == [["<0x0A>", "Mood", ":"], ["▁bad"]]
    prompt = TokenPrompt(template.prompt_ids(lm, " It was"))
    whole = lm.tokenizer("terrible film It was\nMood:")["input_ids"]
    scored = Template.query(template, {"text": "terrible film"}, lm, [answer])
    loglik = float(lm.score([prompt], [scored])[0, 0, 0])
    assert loglik == pytest.approx(plain_loglik(lm, whole, answer), abs=1e-4)


def test_words_of_a_decoder_begin_its_text() -> None:
    lm = spelling_lm("unigram")
    template = Template("{text} {prompt} <extra_id_0> .")
    for word, pieces in (("bad", ["▁bad"]), ("<extra_id_0> bad", ["<extra_id_0>", "▁bad"])):
        ids = template.answer_ids(lm, template.answer_text(word, lm.kind))
        assert lm.tokenizer.convert_ids_to_tokens(list(ids)) == pieces


def test_where_letters_are_joined_over_the_border_it_is_as_in_lm_eval() -> None:
    lm = spelling_lm("no prefix")
    spelling = Spelling(lm.tokenizer)
    # "go" + "od was" is "good▁was": one token more than "go" has.
    before, whole = lm.encode("go"), lm.encode("good was")
    assert spelling.spell([Piece("od was")], [Piece("go")], cut=True) == whole[len(before) :]
    # A prompt keeps its letters.
    ids = spelling.spell([Piece("od was")], [Piece("go")])
    assert lm.decode(ids).strip() == "od was"


@pytest.mark.parametrize("name", SPELLINGS)
def test_it_is_known_which_tokenizers_spell_pieces_otherwise(name: str) -> None:
    moves = ("prepend", "metaspace first", "metaspace always", "unigram", "unigram with lines")
    assert Spelling(spelling_tokenizer(name)).moves == (name in moves)


def test_scores_of_tokenizers_that_spelt_pieces_apart_are_not_taken_for_todays() -> None:
    from rlprompt.models.fingerprint import take_fingerprint

    for name, same in (("prepend", False), ("bytes", True), ("wordpiece", True)):
        lm = spelling_lm(name)
        plain: Any = take_fingerprint(lm.model, lm.tokenizer, lm.name, "", lm.kind)
        assert (lm.fingerprint.tokenizer == plain.tokenizer) == same


def test_the_default_models_ids_are_those_of_pieces_alone(real_tokenizer: FrozenLM) -> None:
    lm = real_tokenizer
    for template, tail in (
        ("{text} {prompt}\nMood:", "\nMood:"),
        ("{text} {prompt}", ""),
        ("{prompt}{text} It", "engaging 2019's naïve It"),
    ):
        query = Template(template).query({"text": "engaging 2019's naïve"}, lm)
        alone = lm.tokenizer(tail, add_special_tokens=False)["input_ids"]
        assert list(query.tail_ids) == alone
    assert Template("{text} {prompt}\nMood:").answer_ids(lm, " bad") == (3309,) == lm.encode(" bad")
    assert lm.spell([Piece("ll about")], [ANY]) == lm.encode("ll about")


def test_the_default_models_queries_are_what_they_have_always_been(
    real_tokenizer: FrozenLM,
) -> None:
    lines = fetch("movie-reviews").read_text("utf-8").splitlines()[::50]
    digest = hashlib.sha256()
    for text in ("{text} {prompt}", "{text} {prompt}\nMood:", "{prompt}{text} It was"):
        template = Template(text)
        prompt = template.prompt_ids(real_tokenizer, template.prompt_text("It was"))
        answer = template.answer_ids(real_tokenizer, template.answer_text("great"))
        for line in lines:
            query = template.query({"text": line.split("\t")[2]}, real_tokenizer)
            digest.update(repr((query.head_ids, query.tail_ids, prompt, answer)).encode())
    # Made by the version that tokenised pieces apart, which was right for this tokenizer.
    assert digest.hexdigest() == "50e245df91537064dd3f456f41b760e90a6276375d2bd0cd5239be66111f2a49"


@pytest.mark.parametrize(
    "template",
    ["{text} {prompt} {mask} .", "It was {mask}. {prompt} {text}", "{mask}: {text}{prompt}"],
)
@settings(max_examples=20)
@given(text=texts, prompt=texts)
def test_a_masked_models_ids_are_those_of_the_whole_with_its_mask(
    template: str, text: str, prompt: str
) -> None:
    lm, made = spelling_lm("wordpiece"), Template(template.replace("}{", "}. {"))
    query = made.query({"text": text}, lm)
    ids = made.prompt_ids(lm, made.prompt_text(prompt))
    whole = made.text.format(text=text, prompt=prompt, mask="[MASK]")
    assert list(query.head_ids + ids + query.tail_ids) == lm.tokenizer(whole)["input_ids"]
    spelt = lm.tokenizer.convert_ids_to_tokens(list(made.answer_ids(lm, made.answer_text("great"))))
    assert spelt == ["great"]


SHOWN = "very good film It was great\n\n"


def _spaces(*more: normalizers.Normalizer) -> FrozenLM:
    """A Unigram tokenizer of which line breaks become spaces."""
    lm = spelling_lm("unigram with lines")
    tokenizer: Any = copy.deepcopy(lm.tokenizer)
    made = normalizers.Sequence([normalizers.Replace("\n", " "), *more])
    tokenizer.backend_tokenizer.normalizer = made
    return FrozenLM(lm.model, tokenizer, "spaces")


def _one_space() -> FrozenLM:
    """XLM-R's way: of spaces one stays between words."""
    one = normalizers.Replace(Regex(" {2,}"), " ")
    return _spaces(one, normalizers.Strip(left=False, right=True))


@pytest.mark.parametrize("name", ["wordpiece", "unigram", "one space", "bytes", "tiktoken", "byt5"])
@pytest.mark.parametrize("prompt", [SHOWN, ""])
def test_text_behind_examples_or_behind_nothing_begins_as_in_the_whole(
    name: str, prompt: str
) -> None:
    lm = _one_space() if name == "one space" else spelling_lm(name)
    for template in ("{text} {prompt} Mood:", "Review: {text}\n{prompt}", "{text}{prompt}"):
        made = Template(template).leading()
        for text in ("The answer is yes", "It", '"it" 9', "(ok) bad"):
            query = made.query({"text": text}, lm)
            whole = whole_ids(lm, made.text.format(text=text, prompt=prompt))
            assert query.head_ids + made.prompt_ids(lm, prompt) + query.tail_ids == whole


@pytest.mark.parametrize("name", ["prepend", "metaspace first", "metaspace always", "no prefix"])
def test_text_behind_examples_brings_no_space_that_is_not_there(name: str) -> None:
    lm = spelling_lm(name)
    made = Template("{text} {prompt}").leading()
    query = made.query({"text": "The film"}, lm)
    whole = whole_ids(lm, f"{SHOWN}The film")
    assert query.head_ids + made.prompt_ids(lm, SHOWN) + query.tail_ids == whole


def test_a_word_begins_where_spaces_at_the_end_of_the_prompt_stay_too() -> None:
    lm, made = _spaces(), Template("{prompt}{text}")
    query = made.query({"text": "the film"}, lm)
    assert query.tail_ids == whole_ids(lm, "the film")


@pytest.mark.parametrize("template", ["{text} {prompt} {mask}", "It was {mask}. {text} {prompt}"])
def test_so_it_does_with_a_mask(template: str) -> None:
    lm, made = spelling_lm("wordpiece"), Template(template).leading()
    query = made.query({"text": "The answer is yes"}, lm)
    whole = made.text.format(prompt=SHOWN, text="The answer is yes", mask="[MASK]")
    ids = query.head_ids + made.prompt_ids(lm, SHOWN) + query.tail_ids
    assert list(ids) == lm.tokenizer(whole)["input_ids"]
