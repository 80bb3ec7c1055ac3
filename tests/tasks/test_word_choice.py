"""Label words by what classes are called: one token each where there is one, and why."""

from __future__ import annotations

import pytest
from spellings import CHAT_TEMPLATE
from tiny import tiny_lm, tiny_model, tiny_tokenizer

from rlprompt.models.lm import FrozenLM
from rlprompt.tasks.benchmarks import BENCHMARKS, alike
from rlprompt.tasks.word_choice import choose_words
from rlprompt.template import Template

PLAIN = Template("{text} {prompt}")


def chosen(lm: FrozenLM, *labels: str, template: Template = PLAIN) -> dict[str, tuple[str, str]]:
    found = choose_words(lm, template, labels)
    return {label: (one.word, one.why) for label, one in found.items()}


def test_of_known_classes_the_papers_words() -> None:
    assert chosen(tiny_lm(), "Positive", "negative") == {
        "Positive": ("great", "usual"),
        "negative": ("terrible", "usual"),
    }
    masked = Template("{text} {prompt} {mask} .")
    assert chosen(tiny_lm("bert"), "neg", "pos", template=masked)["pos"] == ("great", "usual")


def test_a_name_or_a_word_of_it_that_is_one_token() -> None:
    assert chosen(tiny_lm(), "good", "bad film", "it_film") == {
        "good": ("good", "name"),
        "bad film": ("bad", "part"),
        "it_film": ("it film", "tokens"),  # of two letters, and a word of another's
    }
    assert chosen(tiny_lm(), "TheFilm", "GOOD") == {
        "TheFilm": ("the", "part"),
        "GOOD": ("good", "name"),
    }


def test_no_two_classes_have_a_word() -> None:
    assert chosen(tiny_lm(), "good", "Good!") == {
        "good": ("good", "name"),
        "Good!": ("Good!", "tokens"),
    }


def test_a_class_that_is_what_the_other_is_not(real_tokenizer: FrozenLM) -> None:
    assert chosen(real_tokenizer, "is_fraud", "not_fraud") == {
        "is_fraud": ("yes", "opposite"),
        "not_fraud": ("no", "opposite"),
    }
    # In a chat the answer begins a message, where fewer words are one token.
    chat = Template.of({"system": "{prompt}", "user": "{text}"})
    found = chosen(real_tokenizer, "billing", "account", template=chat)
    assert found == {"billing": ("billing", "tokens"), "account": ("account", "name")}
    found = chosen(real_tokenizer, "billing", "account")
    assert found == {"billing": ("billing", "name"), "account": ("account", "name")}


def test_a_model_without_chats_refuses_one() -> None:
    with pytest.raises(ValueError, match="has no chat template"):
        chosen(tiny_lm(), "good", "bad", template=Template.of({"user": "{text} {prompt}"}))
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    lm = FrozenLM(tiny_model(), tokenizer, "chats")
    found = chosen(lm, "good", "bad", template=Template.of({"user": "{text} {prompt}"}))
    assert found["good"] == ("good", "tokens")  # which has its space in this tokenizer's tokens


class TestAlike:
    def test_every_data_set_is_found_by_its_own_classes(self) -> None:
        for known in BENCHMARKS:
            found = alike([*known.label_words])
            assert found is not None
            assert found[1] == dict(known.label_words)

    @pytest.mark.parametrize(
        "labels", [["0", "1"], ["1", "2"], ["positive"], ["film", "book"], ["spam", "ham"], []]
    )
    def test_others_are_not(self, labels: list[str]) -> None:
        assert alike(labels) is None
