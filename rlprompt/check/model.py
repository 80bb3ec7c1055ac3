"""What a model is found to be on this machine, and what is known to go wrong with such a one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rlprompt._utils.text import counted
from rlprompt.check.diagnosis import Diagnosis, Facts, warned
from rlprompt.check.report import Finding
from rlprompt.models.lm import FrozenLM
from rlprompt.models.noise import QUIET
from rlprompt.models.speed import Speed, measure_speed
from rlprompt.models.weights import quantisation
from rlprompt.tasks.verbaliser import LabelWord
from rlprompt.template import Template

# Label words that many tasks have.
WORDS = ("good", "bad", "great", "terrible", "yes", "no", "positive", "negative")
# Tokens below which few texts leave room for a prompt, and seconds that timing may take.
SHORT_CONTEXT, SECONDS = 256, 20.0


def examine_model(lm: FrozenLM, seconds: float = SECONDS) -> Diagnosis:
    """Look at a model that was loaded.

    Args:
        lm: The model.
        seconds: That timing may take.

    >>> from rlprompt.check.toy import toy_lm
    >>> found = examine_model(toy_lm(), seconds=0.01)
    >>> found.facts["model"]["kind"], [one.name for one in found.report.problems]
    ('causal', ['words'])
    """
    words = _words(lm)
    speed = measure_speed(lm, seconds)
    facts = {"model": _model(lm), "tokenizer": _tokenizer(lm, words), "speed": _speed(lm, speed)}
    return Diagnosis(facts, tuple(_troubles(lm, words)))


def _model(lm: FrozenLM) -> Facts:
    config: Any = lm.model.config
    noise = lm.own_noise
    return {
        "name": lm.name,
        "type": config.model_type,
        "kind": lm.kind,
        "parameters": f"{lm.n_parameters:,}",
        "quantised": quantisation(lm.model) or None,
        "device": str(lm.device),
        "dtype": f"{str(lm.model.dtype).removeprefix('torch.')}: {lm.dtype_reason}",
        "attention": getattr(config, "_attn_implementation", None),
        "context": lm.context,
        "packed": _packed(lm),
        "vectors": "yes" if lm.vectors_obstacle is None else f"no: {lm.vectors_obstacle}",
        "noise": f"{noise.largest:.2g} nats, where two prompts differ by {noise.spread:.2g}",
        "GiB for scoring": round(lm.memory.limit / 2**30, 1),
        "fingerprint": lm.fingerprint.digest[:12],
    }


def _packed(lm: FrozenLM) -> str:
    if lm.obstacle is not None:
        return f"no: {lm.obstacle}"
    if not lm.rope_limits:
        return "yes"
    return f"texts of up to {lm.rope_limits[0]:,} tokens: beyond, positions are scaled otherwise"


def _tokenizer(lm: FrozenLM, words: Sequence[LabelWord]) -> Facts:
    tokenizer: Any = lm.tokenizer
    return {
        "class": type(tokenizer).__name__,
        "tokens": len(tokenizer),
        "embeddings": lm.n_vocabulary,
        "BOS": _token(lm, tokenizer.bos_token_id),
        "before each text": [_token(lm, i) for i in lm.prefix_ids],
        "after each text": [_token(lm, i) for i in lm.suffix_ids],
        "mask": lm.mask_token or None,
        "chat template": bool(getattr(tokenizer, "chat_template", None)),
        "label words": [word.spelt(lm) for word in words],
    }


def _token(lm: FrozenLM, token: int | None) -> str | None:
    if token is None:
        return None
    return f"{lm.tokenizer.convert_ids_to_tokens([token])[0]} {token}"


def _words(lm: FrozenLM) -> list[LabelWord]:
    """Common label words as they stand behind a text."""
    template = Template("{text} {prompt}" + (" {mask}" if lm.mask_id is not None else ""))
    texts = {word: template.answer_text(word, lm.kind) for word in WORDS}
    return [
        LabelWord(word, word, text, template.answer_ids(lm, text)) for word, text in texts.items()
    ]


def _speed(lm: FrozenLM, speed: Speed) -> Facts:
    told = f"{speed.ours:.3g} on {counted(speed.n_texts, 'text')} of random tokens"
    if speed.usual is None or speed.ratio is None:
        return {"prompts a second": told, "usual way": "the same: row by row"}
    return {
        "prompts a second": told,
        "usual way": f"{speed.usual:.3g}: prompt by prompt, logits everywhere",
        "times as fast": round(speed.ratio, 1),
        "turns": speed.turns,
    }


def _troubles(lm: FrozenLM, words: Sequence[LabelWord]) -> Iterator[Finding]:
    """What is known to go wrong, each with its cure."""
    noise, method = lm.own_noise, quantisation(lm.model)
    narrow = lm.fingerprint.dtype != "float32"
    long = [word for word in words if len(word.ids) > 1]
    n_tokens = len(lm.tokenizer)
    if n_tokens > lm.n_vocabulary:
        text = f"the tokenizer has {n_tokens:,} tokens and the model {lm.n_vocabulary:,} "
        text += "embeddings: it is another model's tokenizer, or tokens were added to it alone"
        yield Finding("vocabulary", "fail", text)
    yield from warned(
        (
            "packing",
            f"prompts are scored row by row, since {lm.obstacle}: the same figures, and slower; "
            'the page "Models" of the documentation has the types that are packed'
            if lm.kind == "causal" and lm.obstacle
            else "",
        ),
        (
            "vectors",
            f"soft prompts cannot be scored: {lm.vectors_obstacle}; use methods that search tokens"
            if lm.vectors_obstacle
            else "",
        ),
        (
            "gradient",
            f"weights quantised by {method} may carry no gradient: where soft-prompt, gcg or "
            "prefix refuse, use ppo, cma-es or greedy"
            if method
            else "",
        ),
        (
            "noise",
            f"the same score comes out up to {noise.largest:.2g} nats apart, where two prompts "
            f"differ by {noise.spread:.2g}: near ties are decided by noise"
            + ("; load it with dtype float32" if narrow and not method else "")
            if noise.largest > QUIET * noise.spread
            else "",
        ),
        (
            "context",
            f"it takes {lm.context} tokens: say `on_long_text: truncate-end` for longer texts"
            if lm.context is not None and lm.context <= SHORT_CONTEXT
            else "",
        ),
        (
            "words",
            f"{', '.join(repr(word.word) for word in long)} are several tokens each: choose label "
            "words of one token, or `length: mean`; `rlprompt check` shows the tokens of yours"
            if len(long) > len(words) // 2
            else "",
        ),
    )
