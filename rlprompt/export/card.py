"""The card of an exported prompt: what it is, what it scored, and how to use and check it.

Whatever comes from a prompt, a task or a model may look like Markdown, so it stands as character
references outside of code, and in code as a Python literal. The templates are not autoescaped, for
what is to be escaped depends on where it stands: `escaped`, `code` and `literal` are its filters.
The Python that it shows is complete, and gives the numbers of rlprompt.
"""

from __future__ import annotations

import importlib.resources
import json
import math
from collections.abc import Mapping
from functools import cache

from jinja2 import Environment, FunctionLoader, StrictUndefined

from rlprompt._utils.text import fence
from rlprompt.export.facts import SCORED, Facts, Usage
from rlprompt.models.fingerprint import SERVED, told_by_server
from rlprompt.models.lm import FrozenLM
from rlprompt.models.loading import model_names
from rlprompt.models.spelling import ANCHORS
from rlprompt.search.result import SOFT_MARK
from rlprompt.template import SEPARATOR, Template
from rlprompt.types import Encoder, ModelKind

CARD = "README.md"
# What means nothing to Markdown within a line, beside letters and digits.
PLAIN = " -./,'\"=;+%?"
# What a classification takes where nothing is said.
USUAL: Mapping[str, object] = {
    "pooling": "mean",
    "length": "sum",
    "calibration": "none",
    "calibration_strength": 1.0,
}
CLASSES = {
    "causal": "AutoModelForCausalLM",
    "masked": "AutoModelForMaskedLM",
    "encoder-decoder": "AutoModelForSeq2SeqLM",
}


def card(facts: Facts, lm: FrozenLM | None = None) -> str:
    """The card as Markdown.

    Args:
        facts: What there is to say.
        lm: The prompt's model, for what its tokenizer makes of the template.
    """
    usage, model = facts.task.usage, facts.model
    template = None if usage is None else usage.made
    if lm is not None and lm.served:
        lm = None  # whose tokens and chat template are its server's
    if template is not None and lm is not None:
        template = template.on(lm)
    # Stands for the prompt before text that has other tokens in a text than alone.
    anchor = ANCHORS[0] if lm is not None and lm.spelling.moves else ""
    before, after = _around(facts, template, lm, anchor)
    told = told_by_server(model.model_dump())
    page = _environment().get_template("served_card.md.j2" if told else "card.md.j2")
    return page.render(
        facts=facts,
        usage=usage,
        model=model,
        search=facts.search,
        scores=[(split, facts.scores[split]) for split in SCORED if split in facts.scores],
        settings=json.dumps(facts.search.settings, ensure_ascii=False),
        soft_text=facts.text.removeprefix(SOFT_MARK),
        unusual=[
            (name.replace("_", " "), str(value))
            for name, usual in USUAL.items()
            if (value := getattr(usage, name, usual)) != usual
        ],
        prior=usage and usage.prior and {k: math.exp(v) for k, v in usage.prior.items()},
        # Whether transformers does not know the model by this name.
        is_our_name=model.kind != SERVED
        and (model.model in model_names() or model.model.endswith(".gguf")),
        class_name=CLASSES.get(model.kind, ""),
        told=told,
        example=dict.fromkeys(template.fields, "...") if template else {},
        # Those of a chat only as its model's own template writes it.
        texts=template and (lm or not template.messages) and template.sides(),
        before=before,
        after=after,
        words=usage and template and model.kind != SERVED and _spelt(usage, template, model.kind),
        taken_out=usage and _taken_out(usage),
        anchor=anchor,
    )


@cache
def _environment() -> Environment:
    room = importlib.resources.files("rlprompt.export")
    environment = Environment(
        loader=FunctionLoader(lambda name: room.joinpath(name).read_text("utf-8")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"escaped": escaped, "code": code, "literal": repr, "fenced": fenced}
    return environment


def escaped(text: str) -> str:
    """Text that is nothing but text in Markdown, on one line.

    >>> escaped("<b> a|b *c*")
    '&#60;b&#62; a&#124;b &#42;c&#42;'
    """
    kept = "".join(c if c.isalnum() or c in PLAIN else f"&#{ord(c)};" for c in text)
    return kept.replace("www.", "www&#46;")  # GitHub would make a link of it


def code(text: str) -> str:
    """Text as a Python literal in a line, spaces and quotes showing.

    >>> code(" a|b")
    "<code>' a&#124;b'</code>"
    """
    return f"<code>{escaped(repr(text))}</code>"


def fenced(code: str, language: str = "python") -> str:
    """Code in a fence that it cannot close.

    >>> print(fenced("x = '```'"))
    ````python
    x = '```'
    ````
    """
    code = code.strip("\n")
    ticks = fence(code, least=3)
    return f"{ticks}{language}\n{code}\n{ticks}"


def _around(
    facts: Facts, template: Template | None, encoder: Encoder | None, anchor: str
) -> tuple[str, str]:
    """Python expressions for the ids before and after the prompt."""
    start, end = facts.model.prefix_ids, facts.model.suffix_ids
    if template is not None and encoder is not None:
        start, end = template.frame(encoder)
    before, after = ("text before", "text after") if template is None else template.sides()
    heads = [str(list(start))] if start else []
    heads += [f"ids({before!r})"] if before else []
    where = "" if template is None else ", inside=True"
    if anchor and template is not None and template.begins_anew:
        where += f", behind={SEPARATOR!r}"
    tails = [f"ids({after!r}{where})"] if after else []
    tails += [str(list(end))] if end else []
    return " + ".join(heads) or "[]", " + ".join(tails) or "[]"


def _spelt(usage: Usage, template: Template, kind: ModelKind) -> dict[str, str] | None:
    """Class to its one label word as it follows the text; None if there is more to it."""
    if usage.label_words is None or any(len(words) > 1 for words in usage.label_words.values()):
        return None
    return {label: template.answer_text(word, kind) for label, (word,) in usage.label_words.items()}


def _taken_out(usage: Usage) -> dict[str, float]:
    """What calibration takes out of the log-probability of each class, nats; {} without any."""
    strength = usage.calibration_strength
    return {label: strength * prior for label, prior in (usage.prior or {}).items()}
