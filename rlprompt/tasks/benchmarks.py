"""Standard classification data sets: where they lie, their classes, templates and label words.

Templates for masked models are the manual ones of RLPrompt (Deng et al. 2022, Table 7,
https://arxiv.org/abs/2205.12548), and for inference that of LM-BFF (Gao et al. 2021, Table 1,
https://arxiv.org/abs/2012.15723), with `{prompt}` in the place of their words, which are the
hand-written prompt here. Causal models answer at the end, as RLPrompt's left-to-right models do:
the text, the prompt, the next token. Where a manual template has its words before the text, and for
inference, the causal template or its hand-written prompt is ours. Label words are the papers'.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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
        label_words: Class to label word, in the order of the numbers 0, 1, ... that files have.
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
