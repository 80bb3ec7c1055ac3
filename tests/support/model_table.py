"""What becomes of every type of model: packed, plain or refused, and why.

`python tests/support/model_table.py` writes the table in docs/models.md.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import transformers
from every_model import MAPPINGS, NOT_TRIED, build
from tiny import tiny_tokenizer
from transformers import PreTrainedModel

from rlprompt.models.conventions import model_kind
from rlprompt.models.lm import FrozenLM
from rlprompt.types import ModelKind

PAGE = Path(__file__).parents[2] / "docs" / "models.md"

_HEAD = """# Models

Which architectures of transformers {version} are scored, and how. *Packed* shares what prompts and
examples have in common; *plain* computes one row a sequence, with the same numbers, for the reason
that is given; *refused* is a `ValueError` when the model is loaded, with the sentence given here.
Each type was tried on a tiny model of random weights; a scored one agrees with a loop over plain
transformers to 1e-4 nats, with token prompts, soft prompts (where they can be), greedy generation
and what PPO asks for. A checkpoint is tried anew whenever it is loaded, and `FrozenLM.obstacle`
says why it is not packed.

Texts of BigBird, masked and encoder-decoder, have full or sparse attention by their own length, as
alone. Reformer with `lsh` layers takes texts of one chunk (64 tokens by default): longer ones are
hashed by rotations that are drawn anew at every pass, so that no score of theirs comes twice.

`make models` writes this page, and `make sweep` tries every type.

| type | kind | | why |
|---|---|---|---|
"""


class Verdict(NamedTuple):
    """What becomes of a type.

    Attributes:
        kind: How it answers.
        fate: packed, plain, refused or not tried.
        why: The reason or the sentence.
    """

    kind: str
    fate: str
    why: str


def types() -> list[tuple[str, ModelKind]]:
    """Every type, once for each mapping that has it."""
    return sorted((name, kind) for kind, names in MAPPINGS.items() for name in names)


def tried() -> list[tuple[str, ModelKind]]:
    """Those that a tiny model is made of."""
    return [(name, kind) for name, kind in types() if name not in NOT_TRIED]


@lru_cache(maxsize=2)
def load(model_type: str, kind: ModelKind) -> FrozenLM:
    """The tiny model, frozen.

    Raises:
        ValueError: It is refused.
    """
    model = build(model_type, kind)
    return FrozenLM(model, _tokenizer(model, kind), model_type)


def _tokenizer(model: PreTrainedModel, kind: ModelKind) -> transformers.PreTrainedTokenizerBase:
    masked = model_kind(model.config, type(model).__name__) == "masked"
    return tiny_tokenizer("bert" if masked else "llama")


def judge(model_type: str, kind: ModelKind) -> Verdict:
    """What becomes of a type."""
    if model_type in NOT_TRIED:
        return Verdict(kind, "not tried", NOT_TRIED[model_type])
    try:
        lm = load(model_type, kind)
    except ValueError as error:
        return Verdict(kind, "refused", str(error))
    soft = None if lm.obstacle is None else lm._engine.plain.obstacle
    reasons = [lm.obstacle, soft and f"no soft prompts: {soft}"]
    fate = "packed" if lm.obstacle is None else "plain"
    return Verdict(lm.kind, fate, "; ".join(reason for reason in reasons if reason))


def rows() -> Iterator[str]:
    """Lines of the table, of equal ones one."""
    lines = dict.fromkeys((name, judge(name, kind)) for name, kind in types())
    for name, verdict in lines:
        why = verdict.why.replace("|", "\\|").replace("<", "&lt;")
        yield f"| {name} | {verdict.kind} | {verdict.fate} | {why} |"


if __name__ == "__main__":
    logging.disable()
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # not annotated
    lines = list(rows())
    PAGE.write_text(_HEAD.format(version=transformers.__version__) + "\n".join(lines) + "\n")
    sys.stdout.write(f"{PAGE}: {len(lines)} types\n")
