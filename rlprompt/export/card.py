"""The card of an exported prompt: what it is, what it scored, and how to use and check it.

Whatever comes from a prompt, a task or a model may look like Markdown, so it stands as character
references outside of code, and in code as a Python literal.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

from rlprompt.export.folder import SCORED, Facts
from rlprompt.export.recipe import Recipe, is_our_name
from rlprompt.search.result import SOFT_MARK

CARD = "README.md"
# What means nothing to Markdown within a line, beside letters and digits.
PLAIN = " -./,'\"=;+%?"


def card(facts: Facts) -> str:
    """The card as Markdown."""
    parts = [
        f"# A prompt for {escaped(facts.task.name)} on {escaped(facts.model.model)}",
        _is(facts),
        "## What it scored",
        _scored(facts),
        "## How it was found",
        _found(facts),
        *_use(facts),
        "## Check it",
        "With the experiment file of the task, from the folder above this one:",
        fenced("rlprompt score THIS_FOLDER CONFIG.yaml", "sh"),
        "It scores the prompt again, says whether the figures are those above, and refuses another "
        "model.",
    ]
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """Text that is nothing but text in Markdown, on one line.

    >>> escaped("<b> a|b *c*")
    '&#60;b&#62; a&#124;b &#42;c&#42;'
    """
    kept = "".join(c if c.isalnum() or c in PLAIN else f"&#{ord(c)};" for c in text)
    return kept.replace("www.", "www&#46;")  # GitHub would make a link of it


def fenced(code: str, language: str) -> str:
    """Code in a fence that it cannot close."""
    runs = (len(list(run)) for tick, run in itertools.groupby(code) if tick == "`")
    fence = "`" * max(3, 1 + max(runs, default=0))
    return f"{fence}{language}\n{code}\n{fence}"


def code(text: str) -> str:
    """Text as a Python literal in a line, spaces and quotes showing."""
    return f"<code>{escaped(repr(text))}</code>"


def table(*rows: tuple[str, ...]) -> str:
    """A Markdown table, the first row its head."""
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def _is(facts: Facts) -> str:
    usage, model = facts.task.usage, facts.model
    name = escaped(model.model) + (
        f" at revision {escaped(model.revision)}" if model.revision else ""
    )
    rows = [
        ("", ""),
        ("prompt", _prompt(facts)),
        ("template", code(usage.template) if usage else "not known here"),
    ]
    if usage and usage.label_words:
        words = (
            f"{escaped(label)}: {', '.join(map(code, words))}"
            for label, words in usage.label_words.items()
        )
        rows.append(("label words", "; ".join(words)))
        extras = {"pooling": "mean", "length": "sum", "calibration": "none"}
        rows += [
            (name, getattr(usage, name)) for name in extras if getattr(usage, name) != extras[name]
        ]
    rows += [
        ("model", f"{name} ({model.kind}, {model.dtype})"),
        ("its weights", f"SHA-256 <code>{model.weights}</code>"),
        ("its tokenizer", f"SHA-256 <code>{model.tokenizer}</code>"),
        ("its licence", escaped(model.licence)),
        ("task", f"{escaped(facts.task.name)}, fingerprint <code>{facts.task.fingerprint}</code>"),
    ]
    return table(*rows)


def _prompt(facts: Facts) -> str:
    n, _ = facts.shape
    if facts.kind == "soft":
        near = facts.text.removeprefix(SOFT_MARK)
        return f"{n} vectors in `prompt.safetensors`; the tokens nearest to them read {code(near)}"
    again = (
        "typed again, it is these tokens"
        if facts.retypable
        else ("**not to be typed again: that gives other tokens**, so use the ids")
    )
    ids = " ".join(map(str, facts.ids or ())) or "none"
    return f"{code(facts.text)}, {n} tokens with the ids {ids}; {again}"


def _scored(facts: Facts) -> str:
    head = (
        "split",
        "examples",
        escaped(facts.task.metric or "metric"),
        "95 % interval",
        "mean reward",
    )
    rows = []
    for split in SCORED:
        score = facts.scores.get(split)
        if score is not None:
            interval = "-" if score.interval is None else "{:.3f} to {:.3f}".format(*score.interval)
            n = "-" if score.n is None else f"{score.n:,}"
            rows.append((split, n, f"{score.metric:.3f}", interval, f"{score.reward:.3f}"))
    opened = {
        (1, "token"): ", scored once and for this prompt alone,",
        (1, "soft"): ", scored once and for this prompt alone,",
        (2, "soft"): ", scored once, for this prompt and the tokens nearest to it,",
    }.get((facts.test_prompts, facts.kind), "")
    return (
        table(head, *rows)
        + "\n\nThe search saw train, and this prompt was picked on dev among the best of its "
        f"search, so both flatter it; test{opened} decided nothing. An interval is over examples, "
        "Wilson's for a proportion and else Student's: it says nothing of how another seed would "
        "do."
    )


def _found(facts: Facts) -> str:
    search = facts.search
    settings = json.dumps(search.settings, ensure_ascii=False)
    rows = [
        ("", ""),
        ("optimiser", escaped(search.optimiser)),
        ("settings", f"<code>{escaped(settings)}</code>"),
        ("seed", str(search.seed)),
        (
            "rows",
            f"{search.rows:,} of {search.budget_rows:,} (one prompt on one example each), "
            f"for {search.n_prompts:,} prompts; this one was first scored after "
            f"{search.found_at_rows:,}",
        ),
        ("run", escaped(search.run) or "-"),
    ]
    return table(*rows)


def _use(facts: Facts) -> Iterator[str]:
    recipe, usage = Recipe(facts), facts.task.usage
    yield "## Use it"
    yield "The code is complete and runs in this folder."
    if is_our_name(facts.model.model):
        yield (
            f"{escaped(facts.model.model)} is what rlprompt calls the model; transformers does not "
            "know it by that name, so the code below lets rlprompt load it."
        )
    if usage is None:
        yield (
            "How the task puts the prompt to work is not known here: write what stands before and "
            "after it in the place of `text before` and `text after`."
        )
    else:
        yield "### With rlprompt"
        yield fenced(recipe.served(usage), "python")
        yield "One model serves any number of prompts, and a batch may mix them."
        if facts.retypable and facts.model.kind != "masked":
            yield "### As text"
            yield fenced(recipe.typed(usage), "python")
            yield (
                "Where the prompt meets other text, a tokenizer may still join letters; the ids "
                "below are exact."
            )
    yield "### As vectors" if facts.ids is None else "### As token ids"
    yield fenced(recipe.fed(), "python")
    yield "### With PEFT"
    if not facts.before_ids and not facts.shape[0]:
        yield "There is no adapter, for the prompt is empty."
    else:
        yield _peft(facts)
        yield fenced(recipe.adapted(), "python")


def _peft(facts: Facts) -> str:
    """What `PeftModel` makes of the prompt."""
    in_front = "`PeftModel` puts the prompt in front of all text. "
    if facts.task.usage is None:
        return in_front + (
            "That is what was scored only where the template begins with the prompt; below, the "
            "adapter's vectors are put between texts."
        )
    if facts.before_ids is None:
        return in_front + (
            "This template has text of the example there, so what it computes is **not what was "
            "scored**; below, the adapter's vectors are put where the template has them."
        )
    n = len(facts.before_ids)
    begins = f"The adapter begins with the {n} token{'s' * (n > 1)} that always come before it. "
    return (
        in_front
        + (begins if n else "")
        + "The template has it there too, so the scores are those above. Give it the text after "
        "the prompt, and pad on the right: on the left, padding would come between the two."
    )
