"""Which columns are read and which one is answered, guessed from names and values, with reasons.

What decides is said with every guess, so that a person who knows better can say so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rlprompt._utils.text import counted, listed_briefly
from rlprompt.data.labels import SHOWN, name_columns, names_in_header
from rlprompt.data.row_to_example import no_column
from rlprompt.data.survey import CLASS_WORDS, MOST_CLASSES, Column, Survey
from rlprompt.data.values import is_code

# Names that columns of each kind mostly go by, in lower case, the surest first.
LABELS = (
    *("label", "labels", "label_text", "label_name", "class", "category", "target", "gold_label"),
    *("intent", "topic", "sentiment", "queue", "tag", "type", "stars", "rating", "y"),
)
ANSWERS = (
    *("answer", "answers", "output", "target", "response", "completion", "reference", "summary"),
    *("translation", "label", "labels", "result"),
)
TEXTS = (
    *("text", "sentence", "body", "message", "content", "review", "comment", "tweet", "utterance"),
    *("premise", "hypothesis", "sentence1", "sentence2", "text1", "text2", "question1"),
    *("question2", "question", "passage", "context", "query", "document", "title", "subject"),
    *("headline", "description", "abstract", "article", "input", "prompt", "instruction"),
)
# Of a class that is drawn from: one example each for train, dev and test.
FEWEST = 3


@dataclass(frozen=True)
class Roles:
    """What the columns of some data are for.

    Attributes:
        text: Columns that are read, in their order, one or more.
        label: The column that is answered.
        name: What it goes by: without what its header says of its numbers.
        classes: Class to rows with it, the most frequent first, or numbers in their order; none
            where answers are written.
        aliases: Spellings of classes in the data that differ in case, and the class of each.
        rare: Classes with too few rows to be drawn, which are none of `classes`.
        why_text: How the columns of text were told, a clause.
        why_label: How the label was.
    """

    text: tuple[Column, ...]
    label: Column
    name: str
    classes: Mapping[str, int]
    aliases: Mapping[str, str]
    rare: Mapping[str, int]
    why_text: str
    why_label: str


def guess_roles(
    found: Survey, *, text: Sequence[str] = (), label: str | None = None, answers: bool = False
) -> Roles:
    """What each column is for.

    Args:
        found: The columns.
        text: Those to read; none for a guess.
        label: The one to answer; None for a guess.
        answers: Whether its values are to be written, whatever they look like.

    Raises:
        ValueError: There is no column of text, or none with classes or answers; there is one class,
            or too many; or a column that is named is not there.
    """
    for name in (*text, *([] if label is None else [label])):
        if found.column(name) is None:
            raise ValueError(f"{found.name} has {no_column(name, (c.name for c in found.columns))}")
    if label in text:
        raise ValueError(f"the column {label!r} is named as --text and --label; give it as one")
    goal, why_label = _given(found, label, answers) or _label(found, set(text), answers)
    written = answers or not _is_classes(goal)
    classes: dict[str, int] = {}
    aliases: dict[str, str] = {}
    rare: dict[str, int] = {}
    name = goal.name
    if written:
        why_label += _as_answers(goal, answers)
    else:
        classes, aliases = _spellings(goal)
        if named := _in_header(goal):
            name, names = named
            classes = {names.get(code, code): n for code, n in classes.items()}
        rare = {} if found.apart else {name: n for name, n in classes.items() if n < FEWEST}
        classes = {name: n for name, n in classes.items() if name not in rare}
        _check_classes(found, goal, classes, rare)
    columns, why_text = _texts(found, text, goal)
    return Roles(columns, goal, name, classes, aliases, rare, why_text, why_label)


def _is_classes(column: Column) -> bool:
    return column.kind == "classes"


def _given(found: Survey, label: str | None, answers: bool) -> tuple[Column, str] | None:
    """The label that was named, if it can be one."""
    if label is None:
        return None
    column = found.column(label)
    assert column is not None
    if not answers:
        _check_label(found, column)
    return column, "named"


def _check_label(found: Survey, column: Column) -> None:
    """Refuse a column that is no label, whatever it is called.

    Raises:
        ValueError: It is empty, has one value, or too many that come again.
    """
    name, n = column.name, column.n_distinct
    if column.kind in ("empty", "nested"):
        raise ValueError(
            f"the column {name!r} of {found.name} "
            f"{'is empty' if column.kind == 'empty' else 'holds objects'}; give a column with the "
            "class or the answer of each row (--label)"
        )
    if n == 1:
        value = next(iter(column.counts), "one text")
        raise ValueError(
            f"the column {name!r} of {found.name} has one class, {value!r}, in all "
            f"{column.n_rows} rows: there is nothing to tell apart; give data with two classes or "
            "more, or name another column with --label"
        )
    if column.kind in ("number", "date", "id") and not (
        n > MOST_CLASSES and 2 * n <= column.n_rows
    ):
        raise ValueError(
            f"the column {name!r} of {found.name} holds {n:,} different "
            f"{'ids' if column.kind == 'id' else f'{column.kind}s'} in {column.n_rows} rows, and a "
            "class comes again and again; put them into a few groups, such as low and high, or "
            "name another column with --label; or have the model write them: --answers"
        )
    if n > MOST_CLASSES and 2 * n <= column.n_rows and column.n_words <= CLASS_WORDS:
        raise ValueError(
            f"the column {name!r} of {found.name} has {n:,} classes, about "
            f"{column.n_rows // n} rows each: more than the {MOST_CLASSES} that label words can be "
            "found for, since each class needs a word of its own and examples of its own in every "
            "row of the budget; keep the largest, put some together, or name another column with "
            "--label; or have the model write the class: --answers"
        )


def _label(found: Survey, taken: Collection[str], answers: bool) -> tuple[Column, str]:
    """The column that is most likely the label, and why.

    Raises:
        ValueError: There is none.
    """
    free = [column for column in found.columns if column.name not in taken]
    for column in free:
        if _in_header(column):
            return column, "its name says what its numbers mean"
    names = (*ANSWERS, *LABELS) if answers else LABELS
    by_name = [one for name in names for one in free if _called(one.name, name)]
    for column in by_name:
        if twin := _twin(found, column):
            return twin, f"it names the numbers of {column.name!r}"
    for column in by_name:
        if answers or _is_classes(column):
            return column, "by its name"
    for column in by_name:
        # What is called `label` is meant to be one: say what is wrong with it.
        if column.name.casefold() in LABELS[:8]:
            _check_label(found, column)
    classes = [column for column in free if _is_classes(column)]
    if classes and not answers:
        *others, last = classes
        beside = f"; {_listed(others)} may be as well" if others else ""
        return last, f"its values come again and again{beside}"
    for name in ANSWERS:
        for column in free:
            if _called(column.name, name) and column.kind in ("words", "text", "list"):
                return column, "by its name"
    texts = [one for one in free if one.kind in ("words", "text", "list")]
    readable = bool(taken) or any(one.kind in ("words", "text") for one in texts[:-1])
    if texts and readable:
        return texts[-1], "the last column of text"
    raise ValueError(
        f"{found.name} has no column of classes or answers: {_described(found)}. "
        "A label has a few values that come again and again, such as good and bad; an answer is a "
        "text beside another; --label names the column"
    )


def _called(column: str, name: str) -> bool:
    """Whether a column goes by a name, alone or behind another word, such as `gold label`."""
    plain = column.casefold().replace(" ", "_").replace("-", "_")
    return plain == name or (len(name) > 3 and plain.endswith(f"_{name}"))


def _twin(found: Survey, column: Column) -> Column | None:
    """The column that has names for the numbers in another."""
    if not (_is_classes(column) and all(map(is_code, column.counts))):
        return None
    for name in name_columns(column.name):
        twin = found.column(name)
        if twin and _is_classes(twin) and not all(map(is_code, twin.counts)):
            return twin
    return None


def _in_header(column: Column) -> tuple[str, dict[str, str]] | None:
    """The plain name of a column such as `label (0 = bad, 1 = good)`, and what its numbers mean."""
    plain = column.name.split("(")[0].split()[:1]
    named = names_in_header([column.name], plain[0]) if plain else None
    if named is None or not _is_classes(column):
        return None
    return plain[0], {str(number): name for number, name in enumerate(named[1]) if name}


def _as_answers(column: Column, asked: bool) -> str:
    """Why values are answers to be written."""
    if asked:
        return "; to be written, as was asked for"
    if column.kind == "list":
        return "; it holds lists, so its values are written answers"
    n = column.n_distinct
    return (
        f"; {counted(n, 'different value')} in {column.n_rows} rows, too many to be classes, so "
        "they are written answers"
    )


def _spellings(column: Column) -> tuple[dict[str, int], dict[str, str]]:
    """The classes of a column, those that differ in case alone as one, and the other spellings."""
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for value in column.counts:  # the most frequent first
        alike[value.casefold()].append(value)
    counts = {own[0]: sum(column.counts[one] for one in own) for own in alike.values()}
    if all(value.lstrip("+-").isdecimal() for value in counts):
        counts = dict(sorted(counts.items(), key=lambda item: int(item[0])))
    return counts, {other: first for first, *others in alike.values() for other in others}


def _check_classes(
    found: Survey, column: Column, classes: Mapping[str, int], rare: Mapping[str, int]
) -> None:
    """Refuse what leaves fewer than two classes.

    Raises:
        ValueError: It does.
    """
    if len(classes) < 2:
        told = ", ".join(f"{name!r} {n}" for name, n in {**classes, **rare}.items())
        raise ValueError(
            f"the column {column.name!r} of {found.name} has {len(classes)} classes with "
            f"{FEWEST} rows or more ({told}); train, dev and test need one each of two classes, "
            "so give more rows, or name another column with --label"
        )


def _texts(found: Survey, given: Sequence[str], label: Column) -> tuple[tuple[Column, ...], str]:
    """The columns that are read, and why.

    Raises:
        ValueError: There is none.
    """
    if given:
        return tuple(one for one in found.columns if one.name in given), "named"
    passed_over = {label.name, *name_columns(label.name)}
    free = [one for one in found.columns if one.name not in passed_over]
    texts = [one for one in free if one.kind == "text"]
    known = [one for one in texts if one.name.casefold().replace(" ", "_") in TEXTS]
    if known:
        return tuple(known), "by name" + _beside(texts, known)
    if texts:
        if len(texts) <= 2:
            return tuple(texts), "the text there is"
        longest = max(texts, key=lambda one: one.n_words)
        return (longest,), "the longest text" + _beside(texts, [longest])
    words = [one for one in free if one.kind == "words"]
    # A column of classes may be what is read: `colour` beside `answer`.
    words = words or [one for one in free if one.name.casefold() in TEXTS and _is_classes(one)]
    known = [one for one in words if one.name.casefold() in TEXTS]
    if known or words:
        return tuple(known[:1] or words[:1]), "short, but there is no other text"
    raise ValueError(
        f"{found.name} has no column of text for the model to read beside the label "
        f"{label.name!r}: {_described(found)}. Give data with a text in each row; --text names "
        "the column"
    )


def _beside(texts: Sequence[Column], chosen: Sequence[Column]) -> str:
    others = [one for one in texts if one not in chosen]
    return f"; {_listed(others)} {'is' if len(others) == 1 else 'are'} text too" if others else ""


def _listed(columns: Sequence[Column]) -> str:
    return listed_briefly((repr(one.name[:SHOWN]) for one in columns), 5)


def _described(found: Survey) -> str:
    return "; ".join(_some(map(str, found.columns)))


def _some(lines: Iterator[str], most: int = 8) -> list[str]:
    found = list(lines)
    return [*found[:most], f"and {len(found) - most} more"] if len(found) > most else found
