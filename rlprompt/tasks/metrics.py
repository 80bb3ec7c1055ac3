"""What a written answer is worth against a reference: metrics by name, each in [0, 1].

`exact_match` and `token_f1` are those of SQuAD, read so that numbers and references of one letter
or sign survive and scripts without spaces have words (`answer_words`); `strict_match` is
`exact_match` of lm-evaluation-harness; `contains` and `regex:PATTERN` look at the text, `number` at
a number in it; `json` and `json:SCHEMA_FILE` ask whether it parses, and is valid against a schema;
`bleu`, `chrf` (sacrebleu) and `rouge1`, `rouge2`, `rougeL` (rouge-score) are computed an answer at
a time; `judge` asks another language model.

Where several answers are right, an answer is worth what it is against the best of them, as in
SQuAD's script; BLEU and chrF take them all together, as these are defined.

>>> metric("exact_match")(["The  Answer!", "paris"], ["answer", ("Paris", "City of Light")])
[1.0, 1.0]
>>> metric({"name": "number", "tolerance": 0.01})(["It is about 3.15."], ["3.14"])
[1.0]
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import json
import re
import string
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol, overload

from rlprompt._utils.suggest import advice
from rlprompt._utils.text import error_line
from rlprompt.data.examples import Example
from rlprompt.tasks.answer_numbers import is_one_number, number_in
from rlprompt.tasks.answer_words import bleu_tokeniser, reading, tokens

Score = Callable[[str, Sequence[str]], float]
"""The value of an answer against the references that are right, one or more."""

# Characters of an answer that a pattern is tried on: Python's matcher can be made to try all ways
# of cutting a text, and cannot be interrupted.
MOST_MATCHED = 2000
# How words and tokens are read, for fingerprints: whoever changes that raises the number.
WORDS_READ = "words 3"
UNREADABLE = "which the metric {} cannot read"


class AnswerMetric(Protocol):
    """What `GenerationTask` asks of a metric."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def fingerprint(self) -> str:
        """What decides its values besides the name."""

    @property
    def needs_reference(self) -> bool:
        """Whether a reference is looked at."""

    def of(self, outputs: Sequence[str], examples: Sequence[Example]) -> Sequence[float]:
        """The value of each output (E,) for its example (E,), in [0, 1]."""

    def check(self, example: Example) -> str:
        """What is wrong with the references of an example, or ""."""

    def check_room(self, split: str, examples: Sequence[Example], n_output: int) -> None:
        """Refuse an example, with outputs of so many tokens, that is too long for its own model."""

    def tokens(self, outputs: Sequence[str], examples: Sequence[Example]) -> int:
        """Tokens that a model of its own reads for this."""


@dataclass(frozen=True)
class Metric:
    """A metric of answers against references.

    Attributes:
        name: What it was asked for by.
        score: The value of one answer against one or more references, in [0, 1].
        fingerprint: What decides its values besides the name: a schema's content, a version.
        needs_reference: Whether a reference is looked at.
        fault: Why a text cannot be a reference, or "", where not every text can.
    """

    name: str
    score: Score
    fingerprint: str = ""
    needs_reference: bool = True
    fault: Callable[[str], str] | None = None

    def __call__(
        self, outputs: Sequence[str], references: Sequence[str | Sequence[str]]
    ) -> list[float]:
        """The value of each output (E,) against its reference or references (E,), in [0, 1]."""
        return [
            self.score(output, (right,) if isinstance(right, str) else tuple(right) or ("",))
            for output, right in zip(outputs, references, strict=True)
        ]

    def of(self, outputs: Sequence[str], examples: Sequence[Example]) -> list[float]:
        """See `AnswerMetric.of`."""
        return self(outputs, [example.references for example in examples])

    def check(self, example: Example) -> str:
        """See `AnswerMetric.check`."""
        if self.fault is None:
            return ""
        faults = [self.fault(reference) for reference in example.references or ("",)]
        return "" if "" in faults else f"the reference {example.label!r}, {faults[0]}"

    def check_room(self, split: str, examples: Sequence[Example], n_output: int) -> None:
        """See `AnswerMetric.check_room`: it has none."""

    def tokens(self, outputs: Sequence[str], examples: Sequence[Example]) -> int:
        """See `AnswerMetric.tokens`: none."""
        return 0


@overload
def metric(spec: str) -> Metric: ...
@overload
def metric(spec: Mapping[str, Any]) -> AnswerMetric: ...
def metric(spec: str | Mapping[str, Any]) -> AnswerMetric:
    """The metric of a name, or of a name and settings.

    Args:
        spec: One of `METRICS`, or with what it needs after a colon: `regex:[0-9]+`,
            `json:schema.json`; or a mapping with its `name` and settings, such as
            `{"name": "number", "tolerance": 0.01}`.

    Raises:
        ValueError: There is none, its pattern or schema is broken, a setting is not there or not
            allowed, or its package is not there.
    """
    settings = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = settings.pop("name", None)
    if not isinstance(name, str):
        raise ValueError(f"a metric has a name, got {spec!r}; give one of {', '.join(METRICS)}")
    kind, colon, argument = name.partition(":")
    if kind not in METRICS:
        raise ValueError(f"no metric is called {name!r}{advice(kind, METRICS)}")
    if colon and kind not in ("regex", "json"):
        raise ValueError(f"metric {name!r}: {kind} takes nothing after a colon")
    _, _, *parameters = inspect.signature(METRICS[kind]).parameters.values()
    known = {one.name: one.annotation for one in parameters}
    for key, value in settings.items():
        if key not in known:
            what = advice(key, known) if known else "; it has none"
            raise ValueError(f"metric {kind} has no setting {key!r}{what}")
        if problem := _text_problem(value, known[key]):
            raise ValueError(f"metric {kind}: {key} is {value!r}; {problem}")
    return METRICS[kind](name, argument, **settings)


def _text_problem(value: Any, stated: str) -> str:
    """What to give in the place of a setting that is stated to be a text, or several; or ""."""
    if "str" not in stated or (value is None and "None" in stated):
        return ""
    if "Sequence" not in stated:
        return "" if isinstance(value, str) else "give a text"
    # A text is a sequence of texts, too: of its letters.
    several = isinstance(value, Sequence) and not isinstance(value, str)
    texts = several and all(isinstance(one, str) for one in value)
    return "" if texts else "give a list of texts"


def exact_match(output: str, reference: str) -> float:
    """1 where both have the same words (SQuAD, evaluate-v1.1.py), read as `reading` says."""
    read = reading(reference)
    return float(read(output) == read(reference))


def token_f1(output: str, reference: str) -> float:
    """Harmonic mean of the precision and recall of words (SQuAD, evaluate-v1.1.py), as there.

    Where one side has no word left: 1 if neither has, else 0 (as SQuAD 2.0's script has it).
    """
    read = reading(reference)
    ours, theirs = read(output), read(reference)
    if not ours or not theirs:
        return float(ours == theirs)
    n_same = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * n_same / (len(ours) + len(theirs))


def contains(output: str, reference: str) -> float:
    """1 where the reference stands in the output as whole words; an empty one does.

    A reference that is an article stands there with the same capitals: "A" is not in "a guess".
    """
    read = reading(reference, cased=True)
    sought, found = read(reference), read(output)
    starts = range(len(found) - len(sought) + 1)
    return float(any(found[start : start + len(sought)] == sought for start in starts))


def _strict(
    name: str,
    _: str,
    *,
    ignore_case: bool = False,
    ignore_punctuation: bool = False,
    ignore_numbers: bool = False,
    regexes_to_ignore: Sequence[str] = (),
) -> Metric:
    """1 where both are the same, up to white space around them and to what is to be ignored.

    The settings are those of `exact_match` in lm-evaluation-harness 0.4.13: first what patterns
    find is left out, then capitals, ASCII punctuation and ASCII digits.
    """
    flags = {
        "ignore_case": ignore_case,
        "ignore_punctuation": ignore_punctuation,
        "ignore_numbers": ignore_numbers,
    }
    for setting, value in flags.items():
        if not isinstance(value, bool):
            raise ValueError(f"metric {name}: {setting} is {value!r}; give true or false")
    try:
        patterns = [re.compile(one) for one in regexes_to_ignore]
    except re.error as error:
        raise ValueError(
            f"metric {name}: regexes_to_ignore has no regular expression: {error}"
        ) from None
    gone = string.punctuation * ignore_punctuation + string.digits * ignore_numbers
    table = str.maketrans("", "", gone)

    def left(text: str) -> str:
        text = text.strip()
        for pattern in patterns:
            text = pattern.sub("", text)
        return (text.lower() if ignore_case else text).translate(table)

    settings = [setting for setting, value in flags.items() if value] + list(regexes_to_ignore)
    return Metric(
        name,
        lambda output, right: float(left(output) in map(left, right)),
        repr(settings) if settings else "",
    )


def _number(name: str, _: str, *, tolerance: float = 0, take: str = "") -> Metric:
    """1 where the number of the output is that of a reference, to an absolute tolerance.

    Where `take` says nothing, the last one of the output counts, and a reference has one.
    """
    known = isinstance(tolerance, int | float) and not isinstance(tolerance, bool)
    if not known or not 0 <= tolerance < float("inf"):
        raise ValueError(
            f"metric {name}: tolerance is {tolerance!r}; give a number of 0 or more, by which an "
            "answer may be off"
        )
    if take not in ("last", "first", ""):
        raise ValueError(f"metric {name}: take is {take!r}; give last or first")
    most = Decimal(str(tolerance))

    def wanted(reference: str) -> Decimal | None:
        return number_in(reference, take) if take or is_one_number(reference) else None

    def score(output: str, right: Sequence[str]) -> float:
        given, numbers = number_in(output, take), map(wanted, right)
        return float(
            given is not None and any(abs(given - n) <= most for n in numbers if n is not None)
        )

    def fault(reference: str) -> str:
        if take or is_one_number(reference):
            return "" if wanted(reference) is not None else UNREADABLE.format(name)
        return "where neither `####` nor `take` (first or last) says which of its numbers counts"

    settings = f"tolerance {most.normalize()}, {take or 'last'}, whole numbers 2"
    return Metric(name, score, settings, fault=fault)


def _judge(
    name: str,
    _: str,
    *,
    model: str = "",
    template: str | None = None,
    words: Sequence[str] | None = None,
    device: str = "auto",
    dtype: str = "float32",
) -> AnswerMetric:
    """How probable another model finds it that the answer is right."""
    from rlprompt.tasks import lm_judge  # a model's libraries, which other metrics need not

    asked = lm_judge.TEMPLATE if template is None else template
    answers = lm_judge.WORDS if words is None else tuple(words)
    return lm_judge.LMJudge(model, asked, answers, device, name, dtype)


def _plain(score: Callable[[str, str], float]) -> Callable[[str, str], Metric]:
    return lambda name, _: Metric(
        name,
        lambda output, right: max(score(output, reference) for reference in right),
        WORDS_READ,
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
        raise ValueError(f"metric {name!r}: not a regular expression: {error}") from None
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
        raise ValueError(f"metric {name!r}: {path} is not JSON: {error}") from None
    except jsonschema.SchemaError as error:
        raise ValueError(f"metric {name!r}: {path} is not a JSON schema: {error.message}") from None
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


def _bleu(name: str, _: str, *, tokenize: str | None = None) -> Metric:
    """BLEU of a sentence over 100 (Papineni et al. 2002; exponential smoothing, Post 2018).

    Where `tokenize` names no tokeniser of sacrebleu, the script of the references decides
    (`bleu_tokeniser`).
    """
    sacrebleu = _package("sacrebleu")
    made: Any = _package("sacrebleu.metrics").BLEU
    if tokenize:
        if tokenize not in made.TOKENIZERS:
            raise ValueError(
                f"metric {name}: tokenize is {tokenize!r}{advice(tokenize, tuple(made.TOKENIZERS))}"
            )
        try:
            _bleu_scorer(tokenize)
        except (ImportError, RuntimeError) as error:
            raise ValueError(
                f"metric {name}: the tokeniser {tokenize} cannot be used: {error_line(error)}"
            ) from error

    def score(output: str, right: Sequence[str]) -> float:
        return _sacrebleu(_bleu_scorer(tokenize or bleu_tokeniser(right)), output, right)

    version = f"sacrebleu {sacrebleu.__version__}, {tokenize or WORDS_READ}"
    return Metric(name, score, version)


@functools.cache
def _bleu_scorer(tokeniser: str) -> Any:
    """Of the module: a metric goes to other machines with all that is made within it."""
    return _package("sacrebleu.metrics").BLEU(effective_order=True, tokenize=tokeniser)


def _chrf(name: str, _: str) -> Metric:
    """chrF2 of a sentence over 100 (Popović 2015)."""
    sacrebleu = _package("sacrebleu")
    scorer = _package("sacrebleu.metrics").CHRF()
    return Metric(name, functools.partial(_sacrebleu, scorer), f"sacrebleu {sacrebleu.__version__}")


def _sacrebleu(scorer: Any, output: str, right: Sequence[str]) -> float:
    # 100 comes out as 100.00000000000004.
    return min(1.0, float(scorer.sentence_score(output, list(right)).score) / 100)


class _Tokens:
    """A tokeniser of rouge-score that knows all scripts."""

    def tokenize(self, text: str) -> list[str]:
        return tokens(text)


def _rouge(name: str, _: str) -> Metric:
    """ROUGE's F measure with stemming off (Lin 2004), of one answer and of `tokens`."""
    rouge: Any = _package("rouge_score.rouge_scorer")
    scorer = rouge.RougeScorer([name], use_stemmer=False, tokenizer=_Tokens())
    return Metric(
        name,
        lambda output, right: float(scorer.score_multi(list(right), output)[name].fmeasure),
        WORDS_READ,
    )


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"this metric needs the package {name.partition('.')[0]}: "
            "pip install 'rlprompt[metrics]'"
        ) from error


METRICS: dict[str, Callable[..., AnswerMetric]] = {
    "exact_match": _plain(exact_match),
    "token_f1": _plain(token_f1),
    "contains": _plain(contains),
    "strict_match": _strict,
    "number": _number,
    "regex": _regex,
    "json": _json,
    "bleu": _bleu,
    "chrf": _chrf,
    "rouge1": _rouge,
    "rouge2": _rouge,
    "rougeL": _rouge,
    "judge": _judge,
}
