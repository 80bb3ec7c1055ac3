"""Which tokens of a vocabulary can be read and typed."""

from __future__ import annotations

import pytest
from tiny import tiny_lm

from rlprompt.models.lm import FrozenLM
from rlprompt.search.vocabulary import banned_in_texts, typable_tokens


class TestTypableTokens:
    @pytest.fixture
    def typable(self, real_tokenizer: FrozenLM) -> dict[int, str]:
        return dict(typable_tokens(real_tokenizer))

    def test_each_can_be_read_and_typed(
        self, real_tokenizer: FrozenLM, typable: dict[int, str]
    ) -> None:
        assert all(text.isprintable() and text.strip() for text in typable.values())
        for token, text in list(typable.items())[::7]:  # of 49,000, each by itself
            assert text == real_tokenizer.decode([token])
            assert real_tokenizer.encode(text) == (token,)

    def test_none_is_special(self, real_tokenizer: FrozenLM, typable: dict[int, str]) -> None:
        added = real_tokenizer.tokenizer.added_tokens_decoder
        special = {token for token, entry in added.items() if entry.special}
        assert len(special) == 17  # <|endoftext|>, <|im_start|>, <repo_name>, ...
        assert not special & typable.keys()

    def test_they_are_most_of_a_vocabulary(self, typable: dict[int, str]) -> None:
        assert 0.98 * 49_152 < len(typable) < 49_152
        assert {" It", "It", " was", " great", "!"} <= set(typable.values())

    def test_what_is_left_out_cannot_be_read_or_typed(
        self, real_tokenizer: FrozenLM, typable: dict[int, str]
    ) -> None:
        added = real_tokenizer.tokenizer.added_tokens_decoder
        for token in set(range(49_152)) - typable.keys() - added.keys():
            text = real_tokenizer.decode([token])
            assert (
                not text.strip()
                or not text.isprintable()
                or "\ufffd" in text
                or real_tokenizer.encode(text) != (token,)
            )

    def test_a_table_longer_than_the_tokenizer_has_no_more(self) -> None:
        lm = tiny_lm("llama", vocab_size=400)
        assert lm.n_vocabulary == 400
        assert max(typable_tokens(lm)) < len(lm.tokenizer)


class TestBannedInTexts:
    @pytest.mark.parametrize(
        ("banned", "text", "used"),
        [
            (["good"], "A GOOD film", ["good"]),
            ([" Good "], "(good)", ["good"]),
            (["good"], "goods, 2good, as-good_as, feelgood", []),
            (["it was"], "and it\n was", ["it was"]),
            (["!", "film"], "Good!", ["!"]),
            (["好"], "很好的", ["好"]),
            (["ดี"], "หนังดีมาก", ["ดี"]),
            (["good"], "很good的", ["good"]),
            (["كتاب"], "كتابات", []),
            (["كتاب"], "هذا كتاب!", ["كتاب"]),
            (["טוב"], "טובים", []),
            (["טוב"], "סרט טוב", ["טוב"]),
            (["अच्छ"], "अच्छा", []),  # what follows is a vowel sign
            (["अच्छा"], "अच्छाई", []),
            (["अच्छा"], "अच्छा है", ["अच्छा"]),
            (["영화"], "영화가 좋다", []),
            (["영화"], "좋은 영화", ["영화"]),
            (["a a"], "aa a a", ["a a"]),
            (["", " "], "anything", []),
            (["was", "it"], "it was good", ["it", "was"]),
        ],
    )
    def test_a_word_by_itself_in_any_case(
        self, banned: list[str], text: str, used: list[str]
    ) -> None:
        assert banned_in_texts(tiny_lm(), banned)(text) == used

    def test_an_id_where_the_tokens_have_it(self) -> None:
        (film,) = tiny_lm().encode(" film")
        used = banned_in_texts(tiny_lm(), [film, "was"])
        assert used("the film was") == ["was", " film"]
        assert used("film") == []  # other tokens
