"""Tiny models of every kind, made from a config and seeded noise: no files, no network.

`tiny_lm("llama")` takes milliseconds and is made once a process. Texts become bytes, but for the
words of `WORDS`, which are single tokens with the space before them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, get_args

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlprompt.models.lm import FrozenLM

# There is nothing to divide in a tiny model, and threads that wait for each other on a busy machine
# make tests ten times slower.
torch.set_num_threads(1)

TinyKind = Literal[
    "llama", "gpt2", "opt", "gemma", "mistral-sliding", "bloom", "bert", "roberta", "t5", "bart"
]  # fmt: skip
KINDS: tuple[TinyKind, ...] = get_args(TinyKind)
PACKABLE: tuple[TinyKind, ...] = ("llama", "gpt2", "opt", "gemma", "mistral-sliding")

WORDS = ("good", "bad", "great", "terrible", "film", "the", "it", "was")
SPECIAL = ("<pad>", "<s>", "</s>", "<mask>")

HIDDEN = 32
CONTEXT = 256

_LAYERS = {
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
}
_GROUPED = _LAYERS | {"num_key_value_heads": 2, "head_dim": HIDDEN // 4}
_GPT2 = {"n_embd": HIDDEN, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT}
_OPT = _LAYERS | {"ffn_dim": 48, "word_embed_proj_dim": HIDDEN}
_BLOOM = {"hidden_size": HIDDEN, "n_layer": 2, "n_head": 4}
_BART = {"d_model": HIDDEN, "max_position_embeddings": CONTEXT} | {
    f"{part}_{size}": number
    for part in ("encoder", "decoder")
    for size, number in {"layers": 2, "attention_heads": 4, "ffn_dim": 48}.items()
}
_T5 = {"d_model": HIDDEN, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}

# Kind of model: its config class, its model class, and the config's size.
_MADE_OF: dict[TinyKind, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", _GROUPED | {"tie_word_embeddings": True}),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", _GPT2),
    "opt": ("OPTConfig", "OPTForCausalLM", _OPT),
    "gemma": ("GemmaConfig", "GemmaForCausalLM", _GROUPED),
    "mistral-sliding": ("MistralConfig", "MistralForCausalLM", _GROUPED | {"sliding_window": 8}),
    "bloom": ("BloomConfig", "BloomForCausalLM", _BLOOM),
    "bert": ("BertConfig", "BertForMaskedLM", _LAYERS),
    "roberta": ("RobertaConfig", "RobertaForMaskedLM", _LAYERS),
    "bart": ("BartConfig", "BartForConditionalGeneration", _BART),
    "t5": ("T5Config", "T5ForConditionalGeneration", _T5),
}


def tiny_tokenizer(kind: TinyKind = "llama") -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer with the special tokens that a model of this kind has."""
    spelled = [f"Ġ{word}" for word in WORDS]  # Ġ is how byte-level BPE writes a space
    # Each word grows letter by letter from its space, so no other text is merged in between.
    merges = dict.fromkeys((word[:i], word[i]) for word in spelled for i in range(1, len(word)))
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(a + b for a, b in merges)]
    vocabulary = {piece: i for i, piece in enumerate((*SPECIAL, *pieces))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    around = dict.fromkeys(("bert", "roberta", "bart"), "<s> $A </s>")
    around |= {"t5": "$A </s>", "opt": "<s> $A"}
    if kind in around:
        ends = [(token, vocabulary[token]) for token in ("<s>", "</s>")]
        tokenizer.post_processor = processors.TemplateProcessing(around[kind], None, ends)
    masks = {"mask_token": "<mask>"} if kind in ("bert", "roberta") else {}
    make: Any = transformers.PreTrainedTokenizerFast  # not annotated
    made: PreTrainedTokenizerBase = make(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", **masks
    )
    return made


def tiny_model(kind: TinyKind = "llama", seed: int = 0, **config: Any) -> PreTrainedModel:
    """A model of this kind; `config` overrides fields of its config.

    Weights are wider than a trained model's, so that prompts really differ in what they make of
    an answer, and no bias or norm is left at a value that would hide a mistake.
    """
    config_class, model_class, size = _MADE_OF[kind]
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 0}
    if kind not in ("t5", "bart"):
        del ends["decoder_start_token_id"]
    fields = {"vocab_size": len(tiny_tokenizer(kind)), **ends, **size, **config}
    made = getattr(transformers, config_class)(**fields)
    model: PreTrainedModel = getattr(transformers, model_class)(made)
    return randomised(model, seed)


def randomised(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """The model itself, with wide random weights."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(0.3 * noise)
            else:
                parameter.add_(0.1 * noise)
    return model


@lru_cache(maxsize=32)
def tiny_lm(
    kind: TinyKind = "llama", *, seed: int = 0, memory_limit: int | None = None, **config: Any
) -> FrozenLM:
    """A frozen tiny model; the same object for the same arguments, so change nothing in it."""
    model = tiny_model(kind, seed, **config)
    return FrozenLM(model, tiny_tokenizer(kind), f"tiny-{kind}", memory_limit=memory_limit)
