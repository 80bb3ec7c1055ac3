"""Standard classification tasks by name: `sst2()`, `agnews(data="folder")`, ...

Each is a function that makes a `ClassificationTask` and takes the same settings, which its
docstring describes. What is known of each data set is said where its `Benchmark` is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from rlprompt.data.hub import is_saved
from rlprompt.data.load import OnBadRows, OnLeak, load_splits
from rlprompt.tasks import benchmarks
from rlprompt.tasks.benchmarks import Benchmark
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.template import Template

SETTINGS = """
    Args:
        data: A folder in the few-shot layout or a file, whose labels are the names of the classes
            or numbers from 0 in their order; a folder that `datasets` saved; None for the data
            set's usual place. On the hub that is its branch `main`, whose commit is looked up and
            recorded; `hub:NAME@REVISION` pins another.
        shots: Examples a class for train and again for dev, where they are drawn.
        test: Examples to test on; None for all there are.
        seed: Decides what is drawn.
        template: Where text and prompt go; None for the papers'.
        masked: Whether the papers' template and prompt are those for masked models.
        label_words: Class to the word that answers for it; None for the papers'.
        reward: `gap`, `cross_entropy`, `hinge` or `accuracy`.
        hand_prompt: The control; None for the papers'.
        on_bad_rows: Benchmarks have empty and repeated texts: `skip` leaves them out and says which
            in the notes, `error` refuses them.
        on_leak: What to do with examples that two splits share: `error` makes them bad rows,
            `allow` keeps them and says so in the notes.

    Raises:
        ValueError: The data have a defect, or a setting does not fit the data set.
"""


class Preset(Protocol):
    """What each task of this module is: a function with these settings."""

    __name__: str

    def __call__(
        self,
        data: str | None = None,
        shots: int = 16,
        test: int | None = None,
        seed: int = 0,
        template: str | None = None,
        masked: bool = False,
        label_words: Mapping[str, str] | None = None,
        reward: str = "gap",
        hand_prompt: str | None = None,
        on_bad_rows: OnBadRows = "skip",
        on_leak: OnLeak = "error",
    ) -> ClassificationTask:
        """Make the task."""
        ...


def _preset(known: Benchmark) -> Preset:
    def make(
        data: str | None = None,
        shots: int = 16,
        test: int | None = None,
        seed: int = 0,
        template: str | None = None,
        masked: bool = False,
        label_words: Mapping[str, str] | None = None,
        reward: str = "gap",
        hand_prompt: str | None = None,
        on_bad_rows: OnBadRows = "skip",
        on_leak: OnLeak = "error",
    ) -> ClassificationTask:
        words = _words(known, label_words)
        default = known.masked if masked else known.causal
        shape = _template(known, default if template is None else template)
        usual = data is None or _usual(known, data)
        spellings = known.spellings if usual else tuple(map(str, range(len(words))))
        splits = load_splits(
            known.source if data is None else data,
            list(known.label_words),
            text={name: known.columns[name] if usual else name for name in shape.fields},
            label=known.label if usual else "label",
            aliases=dict(zip(spellings, known.label_words, strict=bool(spellings))),
            shots=shots,
            n_test=test,
            seed=seed,
            on_bad_rows=on_bad_rows,
            on_leak=on_leak,
        )
        by_hand = known.hand_masked if masked else known.hand_causal
        return ClassificationTask(
            name=known.name,
            splits=splits,
            template=shape,
            label_words=words,
            reward=reward,
            hand_prompt=by_hand if hand_prompt is None else hand_prompt,
        )

    make.__name__ = make.__qualname__ = known.name.replace("-", "_")
    make.__doc__ = f"{known.summary}\n{SETTINGS}"
    return make


def _usual(known: Benchmark, data: str) -> bool:
    """Whether data have the columns and classes of the usual place: a version, or a copy of it."""
    return data.partition("@")[0] == known.source or is_saved(Path(data).expanduser())


def _words(known: Benchmark, given: Mapping[str, str] | None) -> dict[str, str]:
    """The label words, of just the classes that there are."""
    words = dict(known.label_words if given is None else given)
    if set(words) != set(known.label_words):
        raise ValueError(
            f"label_words of {known.name} has the classes {', '.join(words) or 'none'}; give a "
            f"word for each of {', '.join(known.label_words)}"
        )
    return words


def _template(known: Benchmark, text: str) -> Template:
    """The template, with no other fields than there are."""
    template = Template(text)
    if unknown := set(template.fields) - set(known.columns):
        raise ValueError(
            f"template {text!r} has the field {min(unknown)!r}; {known.name} has "
            f"{', '.join(known.columns)}"
        )
    return template


sst2 = _preset(benchmarks.SST2)
sst5 = _preset(benchmarks.SST5)
mr = _preset(benchmarks.MR)
cr = _preset(benchmarks.CR)
yelp_polarity = _preset(benchmarks.YELP_POLARITY)
yelp5 = _preset(benchmarks.YELP5)
subj = _preset(benchmarks.SUBJ)
trec = _preset(benchmarks.TREC)
agnews = _preset(benchmarks.AGNEWS)
yahoo = _preset(benchmarks.YAHOO)
dbpedia = _preset(benchmarks.DBPEDIA)
rte = _preset(benchmarks.RTE)
snli = _preset(benchmarks.SNLI)
mnli = _preset(benchmarks.MNLI)
movie_reviews = _preset(benchmarks.MOVIE_REVIEWS)
