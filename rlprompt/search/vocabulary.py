"""Tokens of a model: which can be read and typed, are common words, or are banned."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Mapping
from typing import cast
from weakref import WeakKeyDictionary

from rlprompt._utils.scripts import is_unspaced
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import TokenPrompt

# Of how many common tokens vectors begin with some: Lester et al.'s number.
COMMONEST = 5000


def bans(banned: Collection[str | int]) -> tuple[set[int], set[str]]:
    """What is banned: ids, and words without their case and the space before them."""
    words = {ban.strip().casefold() for ban in banned if isinstance(ban, str)}
    return {int(ban) for ban in banned if not isinstance(ban, str)}, words


def banned_tokens(lm: FrozenLM, prompt: TokenPrompt, banned: Collection[str | int]) -> list[str]:
    """Texts of a prompt's tokens that are banned, as `TokenSpace.from_lm` reads that."""
    ids, words = bans(banned)
    texts = {token: lm.decode([token]) for token in prompt.ids}
    return [t for i, t in texts.items() if i in ids or t.strip().casefold() in words]


def banned_in_texts(lm: FrozenLM, banned: Collection[str | int]) -> Callable[[str], list[str]]:
    """What tells which of the banned words and ids a text uses.

    A word is used where it stands by itself, in any case, and anywhere in scripts that write no
    spaces between words, as in Chinese. An id is used where the tokens of the text have it.

    Raises:
        ValueError: Ids are banned, and the model is on a server, whose tokens are not known here.
    """
    ids, words = bans(banned)
    if ids and lm.served:
        raise ValueError(
            f"`banned` has the id {min(ids)}, and {lm.name}, served by {lm.where}, does not tell "
            "which tokens a text has; ban words"
        )
    sought = sorted(filter(None, words))

    def used(text: str) -> list[str]:
        folded = text.casefold()
        found = [word for word in sought if _stands_in(folded, word)]
        spelt = ids.intersection(lm.encode(text)) if ids else ()
        return found + [lm.decode([token]) for token in sorted(spelt)]

    return used


def _stands_in(text: str, word: str) -> bool:
    """Whether a text has a word, with any white space inside it, as no part of a longer one.

    >>> _stands_in("all in all it  was", "it was"), _stands_in("a bit", "it")
    (True, False)
    """
    pattern = r"\s+".join(map(re.escape, word.split()))
    # By looking ahead at each place, for one that is part of a word may overlap one that is not.
    for found in re.finditer(f"(?=({pattern}))", text):
        start, end = found.span(1)
        before, after = text[start - 1 : start], text[end : end + 1]
        begins = _goes_on(word[0]) and _goes_on(before)
        if not begins and not (_goes_on(word[-1]) and _goes_on(after)):
            return True
    return False


def _goes_on(character: str) -> bool:
    """Whether a word may go on with a character: none, or of a script without spaces, does not."""
    kind = unicodedata.category(character) if character else ""
    if kind in ("Nd", "Lu", "Ll"):  # also those of the width of a Chinese character
        return True
    return character == "_" or (kind[:1] in ("L", "M", "N") and not is_unspaced(character))


# Trying 49,152 tokens takes 2 s, and every search of a comparison asks.
_typable: WeakKeyDictionary[FrozenLM, Mapping[int, str]] = WeakKeyDictionary()


def typable_tokens(lm: FrozenLM) -> Mapping[int, str]:
    """Ids and texts of the tokens that are printable and give the same id when typed again.

    Leaves out special tokens, pieces of a character, control characters and white space alone.
    """
    if lm in _typable:
        return _typable[lm]
    tokenizer = lm.tokenizer
    special = set(tokenizer.all_special_ids)
    special |= {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    ids = [i for i in range(min(len(tokenizer), lm.n_vocabulary)) if i not in special]
    texts = [lm.decode([i]) for i in ids]
    typed = tokenizer(texts, add_special_tokens=False)["input_ids"]
    _typable[lm] = {
        i: text
        for i, text, again in zip(ids, texts, cast("list[list[int]]", typed), strict=True)
        if again == [i] and text.strip() and text.isprintable() and "\ufffd" not in text
    }
    return _typable[lm]


def common_words(lm: FrozenLM, allowed: Collection[int]) -> list[int]:
    """Allowed tokens that are whole words, the most common first.

    Tokenizers are trained by frequency, so a low id is a common piece (byte pairs are merged in the
    order of their counts, and vocabularies are sorted by them). A word begins with a space where
    the tokenizer writes words so, is of letters, and has three or more: shorter ones are mostly
    pieces of words.
    """
    texts = typable_tokens(lm)
    words = [(token, texts[token]) for token in sorted(allowed) if token in texts]
    spaced = [token for token, text in words if text[:1] == " " and _is_word(text[1:])]
    return spaced or [token for token, text in words if _is_word(text.strip())]


def commonest(lm: FrozenLM, allowed: Collection[int]) -> list[int]:
    """The `COMMONEST` most common of the allowed tokens, ascending: the lowest ids.

    Without single characters, of which some vocabularies have thousands before their first word,
    unless there is nothing else.
    """
    texts = typable_tokens(lm)
    ids = sorted(allowed)
    return ([i for i in ids if len(texts.get(i, "").strip()) > 1] or ids)[:COMMONEST]


def _is_word(text: str) -> bool:
    return len(text) >= 3 and text.isalpha()
