"""The card of an exported prompt: what it is, what it scored, and how to use and check it.

Whatever comes from a prompt, a task or a model may look like Markdown, so it stands as character
references outside of code, and in code as a Python literal. The template is not autoescaped, for
what is to be escaped depends on where it stands: `escaped`, `code` and `literal` are its filters.
The Python that it shows is complete, and gives the numbers of rlprompt.
"""

from __future__ import annotations

import importlib.resources
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from string import Formatter

from jinja2 import Environment, StrictUndefined
from jinja2 import Template as JinjaTemplate

from rlprompt._utils.text import fence
from rlprompt.export.folder import SCORED, Facts, Usage
from rlprompt.models.loading import model_names
from rlprompt.search.result import SOFT_MARK
from rlprompt.tasks.verbaliser import spell
from rlprompt.template import MASK, PROMPT, Template

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


def card(facts: Facts) -> str:
    """The card as Markdown."""
    usage, model = facts.task.usage, facts.model
    before, after = _around(facts)
    return _page().render(
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
        is_our_name=model.model in model_names() or model.model.endswith(".gguf"),
        class_name=CLASSES[model.kind],
        example=dict.fromkeys(Template(usage.template).fields, "...") if usage else {},
        texts=[("".join(filter(None, side)).rstrip(" ")) for side in sides(usage)],
        before=before,
        after=after,
        words=usage and spelt(usage),
    )


@cache
def _page() -> JinjaTemplate:
    environment = Environment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"escaped": escaped, "code": code, "literal": repr, "fenced": fenced}
    source = importlib.resources.files("rlprompt.export").joinpath("card.md.j2")
    return environment.from_string(source.read_text("utf-8"))


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


def _around(facts: Facts) -> tuple[str, str]:
    """Python expressions for the ids before and after the prompt."""
    before, after = (
        [
            "[tokenizer.mask_token_id]" if part is None else f"ids({part!r})"
            for part in side
            if part is None or part.strip(" ")
        ]
        for side in sides(facts.task.usage)
    )
    if facts.model.prefix_ids:
        before = [str(list(facts.model.prefix_ids)), *before]
    if facts.model.suffix_ids:
        after = [*after, str(list(facts.model.suffix_ids))]
    return " + ".join(before) or "[]", " + ".join(after) or "[]"


def sides(usage: Usage | None) -> tuple[Sequence[str | None], Sequence[str | None]]:
    """Format strings of what stands before and after the prompt; None where the mask is."""
    if usage is None:
        return ["text before"], ["text after"]
    found: list[list[str | None]] = [[], []]
    side, text = found[0], ""
    for before, name, _, _ in Formatter().parse(usage.template):
        text += before.replace("{", "{{").replace("}", "}}")
        if name in (PROMPT, MASK):
            side += [text] if name == PROMPT else [text, None]
            side, text = found[1] if name == PROMPT else side, ""
        elif name is not None:
            text += f"{{{name}}}"
    side.append(text)
    return found[0], found[1]


def spelt(usage: Usage) -> dict[str, str] | None:
    """Class to its one label word as it follows the text; None if there is more to it."""
    if usage.label_words is None or usage.calibration != "none":
        return None
    if any(len(words) > 1 for words in usage.label_words.values()):
        return None
    prefix = Template(usage.template).answer_prefix
    return {label: spell(word, prefix) for label, (word,) in usage.label_words.items()}
