"""Tokenizers of every kind, made offline in milliseconds, and what a plain loop makes of a text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
import transformers
from tiny import tiny_model
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers import PreTrainedTokenizerBase

from rlprompt.models.lm import FrozenLM

WORDS = ("good", "bad", "great", "terrible", "film", "the", "it", "was", "It", "I", "Mood", "very")
SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>", "<extra_id_0>")
LETTERS = sorted({chr(i) for i in range(33, 127)} - set("<>{}|"))
# As of cl100k: words with the space or sign before them, digits in threes, line breaks with signs.
TIKTOKEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('no role ' + m['role']) }}{% endif %}<|im_start|>{{ m['role'] }}\n"
    "{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _merges(words: Sequence[str]) -> list[tuple[str, str]]:
    """Each word grows letter by letter."""
    return list(dict.fromkeys((w[:i], w[i]) for w in words for i in range(1, len(w))))


def _numbered(*pieces: str) -> dict[str, int]:
    return {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}


def _pieces(space: str = "▁") -> tuple[dict[str, int], list[tuple[str, str]]]:
    merges = _merges([space + word for word in WORDS] + list(WORDS))
    each = [f"<0x{i:02X}>" for i in range(256)]
    return _numbered(*SPECIAL, *each, space, *LETTERS, *(a + b for a, b in merges)), merges


def _bpe(**parts: Any) -> Tokenizer:
    vocabulary, merges = _pieces()
    model = models.BPE(
        vocab=vocabulary, merges=merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True
    )
    made = Tokenizer(model)
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            *([] if "normalizer" in parts and "Prepend" not in str(parts) else [_STRIPPED]),
        ]
    )
    for name, part in parts.items():
        setattr(made, name, part)
    return made


_STRIPPED = decoders.Strip(" ", 1, 0)


def _metaspace(scheme: str) -> Tokenizer:
    return _bpe(
        pre_tokenizer=pre_tokenizers.Metaspace(
            replacement="▁", prepend_scheme=scheme, split=scheme == "always"
        )
    )


def _bytes(pattern: str | None = None, normaliser: Any = None) -> Tokenizer:
    merges = _merges([f"Ġ{word}" for word in WORDS])
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(
        models.BPE(vocab=_numbered(*SPECIAL, *letters, *(a + b for a, b in merges)), merges=merges)
    )
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    split = pre_tokenizers.Split(Regex(pattern or "x"), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([split, level]) if pattern else level
    if normaliser is not None:
        made.normalizer = normaliser
    made.decoder = decoders.ByteLevel()
    return made


def _unigram() -> Tokenizer:
    """T5's: white space splits words, each begins with ▁, the end token is added."""
    scores = {"<pad>": 0.0, "</s>": 0.0, "<unk>": 0.0} | {f"▁{word}": -5.0 for word in WORDS}
    scores |= {word: -8.0 for word in WORDS if len(word) > 1}
    scores |= dict.fromkeys(["▁", *LETTERS], -12.0)
    made = Tokenizer(models.Unigram(list(scores.items()), unk_id=2, byte_fallback=False))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always"),
        ]
    )
    made.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    return made


def _unigram_lines() -> Tokenizer:
    """The same, without a word on line breaks."""
    made = _unigram()
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    return made


def _wordpiece() -> Tokenizer:
    lower = [letter for letter in LETTERS if not letter.isupper()]
    pieces = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(w.lower() for w in WORDS), *lower)
    model = models.WordPiece(
        _numbered(*pieces, *(f"##{letter}" for letter in lower)), unk_token="[UNK]"
    )
    made = Tokenizer(model)
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    return made


def _characters() -> Tokenizer:
    vocabulary = _numbered(*SPECIAL, *(f"<0x{i:02X}>" for i in range(256)), " ", *LETTERS)
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="<unk>"))
    made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return made


_PREPENDED = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])

_MADE: dict[str, Callable[[], Tokenizer]] = {
    "prepend": lambda: _bpe(normalizer=_PREPENDED),  # Llama-2
    "metaspace first": lambda: _metaspace("first"),  # Llama-2, not legacy
    "metaspace always": lambda: _metaspace("always"),
    "metaspace never": lambda: _metaspace("never"),
    "no prefix": lambda: _bpe(normalizer=normalizers.Replace(" ", "▁")),  # Gemma
    "bytes": _bytes,  # GPT-2
    "bytes, normalised": lambda: _bytes(normaliser=normalizers.NFC()),  # Qwen
    "tiktoken": lambda: _bytes(TIKTOKEN),  # Llama-3
    "unigram": _unigram,  # T5
    "unigram with lines": _unigram_lines,  # XLM-R
    "wordpiece": _wordpiece,  # BERT
    "characters": _characters,
}
SPELLINGS = (*_MADE, "byt5")
_ENDS_ALSO = ("unigram", "unigram with lines")


@lru_cache
def spelling_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """A tokenizer of a kind, with the special tokens that such have around a text."""
    make: Any = transformers.PreTrainedTokenizerFast  # not annotated
    if name == "byt5":
        byt5: Any = transformers.ByT5Tokenizer
        made: PreTrainedTokenizerBase = byt5(extra_ids=5)
        return made
    tokenizer = _MADE[name]()
    names = {"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "<pad>"}
    around, extra = ("<s> $A", ["<s>"]), list(SPECIAL[4:])
    if name == "wordpiece":
        names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "mask_token": "[MASK]"}
        names |= {"cls_token": "[CLS]", "sep_token": "[SEP]"}
        around, extra = ("[CLS] $A [SEP]", ["[CLS]", "[SEP]"]), []
    elif name in _ENDS_ALSO:
        around = ("$A </s>", ["</s>"])
    else:
        names |= {"bos_token": "<s>"}
    ends = [(token, tokenizer.token_to_id(token)) for token in around[1]]
    tokenizer.post_processor = processors.TemplateProcessing(around[0], None, ends)
    made = make(tokenizer_object=tokenizer, extra_special_tokens=extra, **names)
    return made


@lru_cache
def spelling_lm(name: str) -> FrozenLM:
    """A tiny model of such a tokenizer; the same object, so change nothing in it."""
    tokenizer = spelling_tokenizer(name)
    kinds = {"wordpiece": "bert", "unigram": "t5", "byt5": "t5"}
    kind: Any = kinds.get(name, "llama")
    model = tiny_model(kind, vocab_size=len(tokenizer) + 260 * (name == "byt5"))
    return FrozenLM(model, tokenizer, name)


@torch.no_grad()
def plain_loglik(lm: FrozenLM, context: Sequence[int], answer: Sequence[int]) -> float:
    """Log p(answer | context) by transformers alone, nats, of a causal model."""
    model: Any = lm.model
    logs = model(input_ids=torch.tensor([[*context, *answer]])).logits.float().log_softmax(-1)[0]
    return sum(float(logs[len(context) - 1 + i, token]) for i, token in enumerate(answer))


def thinking_lm(seed: int = 0) -> FrozenLM:
    """A model whose tokenizer has a token that is not said to be special, and always found."""
    known: Any = spelling_tokenizer("bytes")
    make: Any = transformers.PreTrainedTokenizerFast  # not annotated
    tokenizer = make(
        tokenizer_object=Tokenizer.from_str(known.backend_tokenizer.to_str()), eos_token="</s>"
    )
    tokenizer.add_tokens([AddedToken("<think>", special=False)])
    return FrozenLM(tiny_model("llama", seed, vocab_size=len(tokenizer)), tokenizer, "thinker")
