"""What a written answer is worth against a reference: metrics by name, each in [0, 1].

`exact_match` and `token_f1` are those of SQuAD; `contains` and `regex:PATTERN` look at the text;
`json` and `json:SCHEMA_FILE` ask whether it parses, and is valid against a schema; `bleu`, `chrf`
(sacrebleu) and `rouge1`, `rouge2`, `rougeL` (rouge-score) are computed an answer at a time.

Where several answers are right, an answer is worth what it is against the best of them, as in
SQuAD's script; BLEU and chrF take them all together, as these are defined.

>>> metric("exact_match")(["The  Answer!", "paris"], ["answer", ("Paris", "City of Light")])
[1.0, 1.0]
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import re
import string
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlprompt._utils.suggest import advice

Score = Callable[[str, Sequence[str]], float]
"""The value of an answer against the references that are right, one or more."""

# Characters of an answer that a pattern is tried on: Python's matcher can be made to try all ways
# of cutting a text, and cannot be interrupted.
MOST_MATCHED = 2000


@dataclass(frozen=True)
class Metric:
    """A metric of answers against references.

    Attributes:
        name: What it was asked for by.
        score: The value of one answer against one or more references, in [0, 1].
        fingerprint: What decides its values besides the name: a schema's content, a version.
        needs_reference: Whether a reference is looked at.
    """

    name: str
    score: Score
    fingerprint: str = ""
    needs_reference: bool = True

    def __call__(
        self, outputs: Sequence[str], references: Sequence[str | Sequence[str]]
    ) -> list[float]:
        """The value of each output (E,) against its reference or references (E,), in [0, 1]."""
        return [
            self.score(output, (right,) if isinstance(right, str) else tuple(right) or ("",))
            for output, right in zip(outputs, references, strict=True)
        ]


def metric(name: str) -> Metric:
    """The metric of that name.

    Args:
        name: One of `METRICS`, or with what it needs after a colon: `regex:[0-9]+`,
            `json:schema.json`.

    Raises:
        ValueError: There is none, its pattern or schema is broken, or its package is not there.
    """
    kind, colon, argument = name.partition(":")
    if kind not in METRICS:
        raise ValueError(f"no metric is called {name!r}{advice(kind, METRICS)}")
    if colon and kind not in ("regex", "json"):
        raise ValueError(f"metric {name!r}: {kind} takes nothing after a colon")
    return METRICS[kind](name, argument)


def normalised(text: str) -> str:
    """Lower case, without punctuation, articles and spare white space.

    SQuAD's `normalize_answer` (Rajpurkar et al. 2016, arXiv 1606.05250, evaluate-v1.1.py). Only
    ASCII punctuation goes, as there.
    """
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def exact_match(output: str, reference: str) -> float:
    """1 where both are the same, normalised (SQuAD, evaluate-v1.1.py)."""
    return float(normalised(output) == normalised(reference))


def token_f1(output: str, reference: str) -> float:
    """Harmonic mean of the precision and recall of words, normalised (SQuAD, evaluate-v1.1.py).

    Where one side has no word left: 1 if neither has, else 0 (as SQuAD 2.0's script has it).
    """
    ours, theirs = normalised(output).split(), normalised(reference).split()
    if not ours or not theirs:
        return float(ours == theirs)
    n_same = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * n_same / (len(ours) + len(theirs))


def contains(output: str, reference: str) -> float:
    """1 where the reference stands in the output as whole words, normalised; an empty one does."""
    return float(f" {normalised(reference)} ".replace("  ", " ") in f" {normalised(output)} ")


def _plain(score: Callable[[str, str], float]) -> Callable[[str, str], Metric]:
    return lambda name, _: Metric(
        name, lambda output, right: max(score(output, reference) for reference in right)
    )


def _regex(name: str, pattern: str) -> Metric:
    """1 where the pattern is found in the first `MOST_MATCHED` characters.

    The pattern is the author's own and is trusted as code is: one such as `(a+)+$` takes
    exponential time on texts made for it.
    """
    if not pattern:
        raise ValueError("metric 'regex' needs a pattern: regex:PATTERN, such as 'regex:^[0-9]+$'")
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"metric {name!r}: the pattern is broken: {error}") from None
    return Metric(
        name,
        lambda output, _: float(compiled.search(output[:MOST_MATCHED]) is not None),
        needs_reference=False,
    )


def _json(name: str, path: str) -> Metric:
    """1 where the output is JSON, and valid against the schema in the file."""
    if not path:
        return Metric(name, lambda output, _: float(_parsed(output) is not None), "", False)
    jsonschema = _package("jsonschema")
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
        schema = json.loads(text)
        make: Any = jsonschema.validators.validator_for(schema)
        make.check_schema(schema)
    except OSError as error:
        raise ValueError(f"metric {name!r}: the schema cannot be read: {error}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"metric {name!r}: {path} is no JSON: {error}") from None
    except jsonschema.SchemaError as error:
        raise ValueError(f"metric {name!r}: {path} is no schema: {error.message}") from None
    elsewhere = [reference for reference in _references(schema) if not reference.startswith("#")]
    if elsewhere:
        raise ValueError(
            f"metric {name!r}: {path} refers to {elsewhere[0]!r}, and nothing is fetched while "
            'scoring; put it under "$defs" of the same file'
        )
    validator = make(schema)

    def score(output: str, _: object) -> float:
        parsed = _parsed(output)
        return float(parsed is not None and validator.is_valid(parsed[0]))

    return Metric(name, score, hashlib.sha256(text.encode()).hexdigest(), False)


def _references(schema: Any) -> Iterator[str]:
    """What the `$ref` of a schema and of all parts of it say."""
    if isinstance(schema, dict):
        reference = schema.get("$ref", schema.get("$dynamicRef"))
        if isinstance(reference, str):
            yield reference
    parts = schema.values() if isinstance(schema, dict) else schema
    if isinstance(schema, dict | list):
        for part in parts:
            yield from _references(part)


def _parsed(output: str) -> tuple[Any] | None:
    """The value that a text is the JSON of (RFC 8259: NaN is none), in a tuple; else None."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        return (json.loads(output, parse_constant=refuse),)
    except (ValueError, RecursionError):
        return None


def _bleu(name: str, _: str) -> Metric:
    """BLEU of a sentence over 100 (Papineni et al. 2002; exponential smoothing, Post 2018)."""
    sacrebleu = _package("sacrebleu")
    scorer = _package("sacrebleu.metrics").BLEU(effective_order=True)
    return Metric(name, functools.partial(_sacrebleu, scorer), f"sacrebleu {sacrebleu.__version__}")


def _chrf(name: str, _: str) -> Metric:
    """chrF2 of a sentence over 100 (Popović 2015)."""
    sacrebleu = _package("sacrebleu")
    scorer = _package("sacrebleu.metrics").CHRF()
    return Metric(name, functools.partial(_sacrebleu, scorer), f"sacrebleu {sacrebleu.__version__}")


def _sacrebleu(scorer: Any, output: str, right: Sequence[str]) -> float:
    # 100 comes out as 100.00000000000004.
    return min(1.0, float(scorer.sentence_score(output, list(right)).score) / 100)


def _rouge(name: str, _: str) -> Metric:
    """ROUGE's F measure with stemming off (Lin 2004), of one answer."""
    rouge: Any = _package("rouge_score.rouge_scorer")
    scorer = rouge.RougeScorer([name], use_stemmer=False)
    return Metric(
        name,
        lambda output, right: float(scorer.score_multi(list(right), output)[name].fmeasure),
    )


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"this metric needs the package {name.partition('.')[0]}: "
            "pip install 'rlprompt[metrics]'"
        ) from error


METRICS: dict[str, Callable[[str, str], Metric]] = {
    "exact_match": _plain(exact_match),
    "token_f1": _plain(token_f1),
    "contains": _plain(contains),
    "regex": _regex,
    "json": _json,
    "bleu": _bleu,
    "chrf": _chrf,
    "rouge1": _rouge,
    "rouge2": _rouge,
    "rougeL": _rouge,
}
