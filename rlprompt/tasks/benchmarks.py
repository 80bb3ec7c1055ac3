"""Standard classification tasks by name: `sst2()`, `agnews(data="folder")`, ...

Each is a function that makes a `ClassificationTask` and takes the same settings, which its
docstring describes; a `Benchmark` is what is known of its data set.

Templates for masked models are the manual ones of RLPrompt (Deng et al. 2022, Table 7,
https://arxiv.org/abs/2205.12548), and for inference that of LM-BFF (Gao et al. 2021, Table 1,
https://arxiv.org/abs/2012.15723), with `{prompt}` in the place of their words, which are the
hand-written prompt here. Causal models answer at the end, as RLPrompt's left-to-right models do:
the text, the prompt, the next token. Where a manual template has its words before the text, and for
inference, the causal template or its hand-written prompt is ours. Label words are the papers'.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Unpack

from rlprompt.data.hub import is_saved
from rlprompt.data.load import DataSource
from rlprompt.data.settings import DrawSettings, described, draw_splits, draws
from rlprompt.data.values import is_code
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.template import Template, TemplateText
from rlprompt.types import DEFAULT_CALIBRATION, AnswerSpace

P = ParamSpec("P")

CAUSAL = "{text} {prompt}"
MASKED = "{text} {prompt} {mask} ."
ANSWER_FIRST = "{mask} {prompt} {text}"

SENTIMENT = {"negative": "terrible", "positive": "great"}
FIVE_STARS = {
    "very negative": "terrible",
    "negative": "bad",
    "neutral": "okay",
    "positive": "good",
    "very positive": "great",
}
FOLLOWS = {"entailment": "Yes", "neutral": "Maybe", "contradiction": "No"}


@dataclass(frozen=True)
class Benchmark:
    """What is known of a data set.

    Attributes:
        name: What results call the task.
        summary: What is told apart, and who published it.
        source: Where it lies: a name that `load_splits` knows.
        label_words: Class to label word, in the order of the numbers 0, 1, ... that the few-shot
            files of LM-BFF and RLPrompt have.
        causal: Template for causal and encoder-decoder models.
        masked: Template for masked models.
        hand_causal: Hand-written prompt of the causal template.
        hand_masked: Hand-written prompt of the masked template.
        columns: Field of the templates to the column of `source`; files call it as the field.
        label: Column of the label in `source`; files call it `label`.
        spellings: What `source` calls the classes, in the order of `label_words`; () for the same.
    """

    name: str
    summary: str
    source: str
    label_words: Mapping[str, str]
    causal: str = CAUSAL
    masked: str = MASKED
    hand_causal: str = "It was"
    hand_masked: str = "It was"
    columns: Mapping[str, str] = field(default_factory=lambda: {"text": "text"})
    label: str = "label"
    spellings: tuple[str, ...] = ()


def _inference(
    name: str,
    summary: str,
    source: str,
    label_words: Mapping[str, str],
    premise: str = "premise",
    hypothesis: str = "hypothesis",
) -> Benchmark:
    """Natural-language inference: does the hypothesis follow from the premise?"""
    return Benchmark(
        name,
        summary,
        source,
        label_words,
        causal="{premise}\n{hypothesis}\n{prompt}",
        masked="{premise} ? {prompt} {mask} , {hypothesis}",
        hand_causal="Is the second sentence true? Answer:",
        hand_masked="",
        columns={"premise": premise, "hypothesis": hypothesis},
    )


SST2 = Benchmark(
    "sst2",
    "Sentiment of film-review sentences, 2 classes (Socher et al. 2013).",
    "hub:SetFit/sst2",
    SENTIMENT,
    label="label_text",
)
SST5 = Benchmark(
    "sst5",
    "Sentiment of film-review sentences, 5 classes (Socher et al. 2013).",
    "hub:SetFit/sst5",
    FIVE_STARS,
    label="label_text",
)
MR = Benchmark(
    "mr",
    "Sentiment of film-review snippets, 2 classes (Pang & Lee 2005).",
    "hub:cornell-movie-review-data/rotten_tomatoes",
    SENTIMENT,
    spellings=("neg", "pos"),
)
CR = Benchmark(
    "cr",
    "Sentiment of customer reviews, 2 classes (Hu & Liu 2004).",
    "hub:SetFit/CR",
    SENTIMENT,
    label="label_text",
)
YELP_POLARITY = Benchmark(
    "yelp-polarity",
    "Sentiment of Yelp reviews, 2 classes (Zhang et al. 2015).",
    "hub:fancyzhx/yelp_polarity",
    SENTIMENT,
    spellings=("1", "2"),
)
YELP5 = Benchmark(
    "yelp5",
    "Stars of Yelp reviews, 5 classes (Zhang et al. 2015).",
    "hub:Yelp/yelp_review_full",
    FIVE_STARS,
    spellings=("1 star", "2 star", "3 stars", "4 stars", "5 stars"),
)
SUBJ = Benchmark(
    "subj",
    "Opinion or fact, sentences about films (Pang & Lee 2004).",
    "hub:SetFit/subj",
    {"subjective": "subjective", "objective": "objective"},
    hand_causal="This is",
    hand_masked="This is",
    label="label_text",
)
TREC = Benchmark(
    "trec",
    "What a question asks for, 6 classes (Voorhees & Tice 2000).",
    "hub:SetFit/TREC-QC",
    {
        "description": "Description",
        "entity": "Entity",
        "abbreviation": "Expression",
        "human": "Human",
        "location": "Location",
        "number": "Number",
    },
    masked=ANSWER_FIRST,
    hand_causal="Answer type:",
    hand_masked=":",
    label="label_coarse_original",
    spellings=("DESC", "ENTY", "ABBR", "HUM", "LOC", "NUM"),
)
AGNEWS = Benchmark(
    "agnews",
    "Topic of news, 4 classes (Zhang et al. 2015).",
    "hub:fancyzhx/ag_news",
    {"world": "World", "sports": "Sports", "business": "Business", "technology": "Tech"},
    masked=ANSWER_FIRST,
    hand_causal="This news is about",
    hand_masked="News:",
    spellings=("World", "Sports", "Business", "Sci/Tech"),
)
YAHOO = Benchmark(
    "yahoo",
    "Topic of questions to Yahoo Answers, 10 classes (Zhang et al. 2015).",
    "hub:community-datasets/yahoo_answers_topics",
    {
        "society": "culture",
        "science": "science",
        "health": "health",
        "education": "education",
        "computers": "computer",
        "sports": "sports",
        "business": "business",
        "entertainment": "music",
        "family": "family",
        "politics": "politics",
    },
    masked="{prompt} {mask}: {text}",
    hand_causal="Topic:",
    hand_masked="Topic",
    columns={"text": "question_title"},
    label="topic",
    spellings=(
        "Society & Culture",
        "Science & Mathematics",
        "Health",
        "Education & Reference",
        "Computers & Internet",
        "Sports",
        "Business & Finance",
        "Entertainment & Music",
        "Family & Relationships",
        "Politics & Government",
    ),
)
DBPEDIA = Benchmark(
    "dbpedia",
    "Kind of thing that a Wikipedia article is about, 14 classes (Zhang et al. 2015).",
    "hub:fancyzhx/dbpedia_14",
    {
        "company": "Company",
        "school": "Education",
        "artist": "Artist",
        "athlete": "Sports",
        "official": "Office",
        "transportation": "Transportation",
        "building": "Building",
        "nature": "Natural",
        "village": "Village",
        "animal": "Animal",
        "plant": "Plant",
        "album": "Album",
        "film": "Film",
        "book": "Written",
    },
    masked="{prompt} {mask}] {text}",
    hand_causal="Category:",
    hand_masked="[Category:",
    columns={"text": "content"},
    spellings=(
        "Company",
        "EducationalInstitution",
        "Artist",
        "Athlete",
        "OfficeHolder",
        "MeanOfTransportation",
        "Building",
        "NaturalPlace",
        "Village",
        "Animal",
        "Plant",
        "Album",
        "Film",
        "WrittenWork",
    ),
)
RTE = _inference(
    "rte",
    "Whether one text follows from another, 2 classes (Dagan et al. 2005; GLUE).",
    "hub:nyu-mll/glue:rte",
    {"entailment": "Yes", "not_entailment": "No"},
    premise="sentence1",
    hypothesis="sentence2",
)
SNLI = _inference(
    "snli",
    "Whether a sentence follows from the caption of a picture, 3 classes (Bowman et al. 2015).",
    "hub:stanfordnlp/snli",
    FOLLOWS,
)
MNLI = _inference(
    "mnli",
    "Whether one sentence follows from another, 3 classes (Williams et al. 2018; GLUE).",
    "hub:nyu-mll/glue:mnli",
    FOLLOWS,
)
MOVIE_REVIEWS = Benchmark(
    "movie-reviews",
    "Sentiment of film-review sentences, 2 classes, without a hub (Hutto & Gilbert 2014).",
    "movie-reviews",
    SENTIMENT,
)

BENCHMARKS = (
    *(SST2, SST5, MR, CR, YELP_POLARITY, YELP5, SUBJ, TREC, AGNEWS, YAHOO, DBPEDIA, RTE, SNLI),
    *(MNLI, MOVIE_REVIEWS),
)


def alike(labels: Sequence[str]) -> tuple[Benchmark, dict[str, str]] | None:
    """A data set with these classes, by their names or its spellings, and the word of each.

    >>> known, words = alike(["Positive", "Negative"])
    >>> known.name, words
    ('sst2', {'Positive': 'great', 'Negative': 'terrible'})
    >>> alike(["0", "1"])  # say nothing

    Args:
        labels: Two classes or more: half of the data set's, or all.
    """
    for known in BENCHMARKS:
        spelt = dict(zip(known.spellings, known.label_words, strict=False))
        names = {
            _simple(spelling): name for spelling, name in spelt.items() if not is_code(spelling)
        }
        names |= {_simple(name): name for name in known.label_words}
        found = {label: names[_simple(label)] for label in labels if _simple(label) in names}
        several = len(set(found.values())) == len(labels) >= 2
        if several and 2 * len(labels) >= len(known.label_words):
            return known, {label: known.label_words[name] for label, name in found.items()}
    return None


def _simple(name: str) -> str:
    """A class's name without case and signs."""
    return "".join(filter(str.isalnum, name.casefold()))


SETTINGS = described("""
    Args:
        data: A folder in the few-shot layout, a file, or the same in memory, whose labels are the
            names of the classes or numbers; a folder that `datasets` saved; None for the data set's
            usual place. On the hub that is its branch `main`, whose commit is looked up and
            recorded; `hub:NAME@REVISION` pins another.
        labels: What the data call the classes, such as `{0: "objective", 1: "subjective"}`. Left
            out, numbers have the names that the data give them, in the column's own list or a
            column such as `label_text`; or else they are the classes in their order, and the notes
            show an example of each.
        template: Where text and prompt go; None for the papers'.
        masked: Whether the papers' template and prompt are those for masked models.
        label_words: Class to the word that answers for it; None for the papers'.
        reward: `gap`, `cross_entropy`, `hinge` or `accuracy`.
        hand_prompt: The control; None for the papers'.
        calibration: `none`, `contextual` or `batch`, as for `ClassificationTask`.
        calibration_strength: As for `ClassificationTask`.
        metric: `accuracy`, `balanced_accuracy`, `macro_f1` or `mcc`, as for `ClassificationTask`.
        select_by: By what a prompt is picked on dev, `reward` or `metric`.
        answer_space: What stands between text and label word (`Template`).
        **draw: What is drawn of the data (`DrawSettings`).

    Raises:
        ValueError: The data have a defect, or a setting does not fit the data set.
""")


# Benchmarks have empty and repeated texts.
@draws(on_bad_rows="skip")
def _task(
    known: Benchmark,
    data: DataSource | None = None,
    labels: Mapping[Any, str] | None = None,
    template: TemplateText | None = None,
    masked: bool = False,
    label_words: Mapping[str, str] | None = None,
    reward: str = "gap",
    hand_prompt: str | None = None,
    calibration: str = DEFAULT_CALIBRATION,
    calibration_strength: float = 1.0,
    metric: str = "accuracy",
    select_by: str = "reward",
    answer_space: AnswerSpace = "auto",
    **draw: Unpack[DrawSettings],
) -> ClassificationTask:
    words = _words(known, label_words)
    default = known.masked if masked else known.causal
    shape = _template(known, default if template is None else template, answer_space)
    usual = data is None or _usual(known, data)
    classes = list(known.label_words)
    # Elsewhere a number such as Yelp's 1 may well be another class.
    spelt = {
        spelling: name
        for spelling, name in zip(known.spellings, classes, strict=bool(known.spellings))
        if (usual and not labels) or not is_code(spelling)
    }
    splits = draw_splits(
        known.source if data is None else data,
        classes,
        draw,
        text={name: known.columns[name] if usual else name for name in shape.fields},
        label=known.label if usual else "label",
        aliases={**spelt, **(labels or {})},
        numbered=() if usual else classes,
    )
    by_hand = known.hand_masked if masked else known.hand_causal
    return ClassificationTask(
        name=known.name,
        splits=splits,
        template=shape,
        label_words=words,
        reward=reward,
        hand_prompt=by_hand if hand_prompt is None else hand_prompt,
        calibration=calibration,
        calibration_strength=calibration_strength,
        metric=metric,
        select_by=select_by,
    )


def _preset(
    make: Callable[Concatenate[Benchmark, P], ClassificationTask], known: Benchmark
) -> Callable[P, ClassificationTask]:
    """A function that makes the task of one data set, with the other settings of `make`."""

    def made(*args: P.args, **settings: P.kwargs) -> ClassificationTask:
        return make(known, *args, **settings)

    signature = inspect.signature(make)
    settings = list(signature.parameters.values())[1:]
    # For those who list the settings, such as `rlprompt ls tasks`.
    made.__dict__["__signature__"] = signature.replace(parameters=settings)
    made.__annotations__ = {
        name: hint for name, hint in make.__annotations__.items() if name != "known"
    }
    made.__name__ = made.__qualname__ = known.name.replace("-", "_")
    made.__doc__ = f"{known.summary}\n{SETTINGS}"
    return made


def _usual(known: Benchmark, data: DataSource) -> bool:
    """Whether data have the columns and classes of the usual place: a version, or a copy of it."""
    if not isinstance(data, str | Path):
        return False
    data = str(data)
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


def _template(known: Benchmark, text: TemplateText, answer_space: AnswerSpace) -> Template:
    """The template, with no other fields than there are."""
    template = Template.of(text, answer_space)
    if unknown := set(template.fields) - set(known.columns):
        raise ValueError(
            f"template {text!r} has the field {min(unknown)!r}; the fields of {known.name} are "
            f"{', '.join(known.columns)}"
        )
    return template


sst2 = _preset(_task, SST2)
sst5 = _preset(_task, SST5)
mr = _preset(_task, MR)
cr = _preset(_task, CR)
yelp_polarity = _preset(_task, YELP_POLARITY)
yelp5 = _preset(_task, YELP5)
subj = _preset(_task, SUBJ)
trec = _preset(_task, TREC)
agnews = _preset(_task, AGNEWS)
yahoo = _preset(_task, YAHOO)
dbpedia = _preset(_task, DBPEDIA)
rte = _preset(_task, RTE)
snli = _preset(_task, SNLI)
mnli = _preset(_task, MNLI)
movie_reviews = _preset(_task, MOVIE_REVIEWS)
