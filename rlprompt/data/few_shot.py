"""Few-shot splits drawn by seed: balanced, apart, and from distinct texts.

A draw is a permutation of the examples in the order they were given: the same file and seed give
the same splits everywhere, and a shuffled file gives others, as another seed does.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from rlprompt._utils.text import counted, listed_briefly
from rlprompt.data.examples import Example, Splits


def few_shot(
    examples: Sequence[Example],
    *,
    shots: int,
    n_test: int | None = None,
    seed: int = 0,
    by_class: bool = True,
) -> Splits:
    """Draw balanced train and dev splits, and test from the rest.

    >>> films = [Example({"text": f"Film {i}"}, ["bad", "good"][i % 2]) for i in range(20)]
    >>> splits = few_shot(films, shots=2, n_test=5)
    >>> {name: len(part) for name, part in splits.parts().items()}
    {'train': 4, 'dev': 4, 'test': 5}

    Args:
        examples: What to draw from. A repeated text is used once, and one that is there with two
            labels not at all.
        shots: Examples a class, for train and again for dev. A class with no more than twice as
            many, where another has more, gives a third of what it has to each, and the rest to
            test; the notes say so.
        n_test: Size of test, at most what is left; None for all of it. The notes name classes that
            it has no example of.
        seed: Decides the draw.
        by_class: Whether labels are classes. Where they are not, as with reference answers,
            `shots` are examples in all and a text may have several labels; its first is used.

    Raises:
        ValueError: No class has more than `2 * shots` examples, or one has fewer than two.
    """
    check_sizes(shots, n_test)
    rng = np.random.default_rng(seed)
    train, dev, rest, notes = _draw(examples, shots, by_class, rng)
    test = [rest[i] for i in rng.permutation(len(rest))[:n_test]]
    notes += too_few(test, n_test)
    if by_class:
        notes += untested({example.label for example in train}, test)
    return Splits(tuple(train), tuple(dev), tuple(test), tuple(notes))


def too_few(test: Sequence[Example], n_test: int | None) -> list[str]:
    """What to note where test has fewer examples than were asked for."""
    if n_test is None or len(test) >= n_test:
        return []
    return [f"test has {len(test)} examples, {n_test} were asked for"]


def draw_shots(
    examples: Sequence[Example], *, shots: int, seed: int = 0, by_class: bool = True
) -> tuple[list[Example], list[Example], list[str]]:
    """Train and dev as `few_shot` draws them, for data with a test set of its own, and notes.

    Of a class that is rare each gets half.

    Raises:
        ValueError: No class has `2 * shots` examples, or one has fewer than two.
    """
    check_sizes(shots, None)
    rng = np.random.default_rng(seed)
    train, dev, _, notes = _draw(examples, shots, by_class, rng, shares=2)
    return train, dev, notes


def halved(
    examples: Sequence[Example], *, seed: int = 0, by_class: bool = True
) -> tuple[list[Example], list[Example], list[str]]:
    """Train in two, for a dev split, class by class, and notes; an odd one stays in train.

    Raises:
        ValueError: A class has fewer than two examples.
    """
    groups, notes = _groups(examples, by_class, np.random.default_rng(seed))
    train: list[Example] = []
    dev: list[Example] = []
    for label, own in groups.items():
        n_dev = len(own) // 2
        if not n_dev:
            raise ValueError(
                f"train has {len(own)} examples{_of(label)}, and dev needs one of them"
            )
        dev += own[:n_dev]
        train += own[n_dev:]
    return (
        train,
        dev,
        [f"train was split in two: {len(train)} for train, {len(dev)} for dev", *notes],
    )


def draw_dev(
    examples: Sequence[Example], *, shots: int, seed: int = 0, by_class: bool = True
) -> tuple[list[Example], list[Example], list[str]]:
    """Dev out of a test set, so many a class, what is left of it in its order, and notes.

    Of a class with less than `2 * shots` examples dev gets half, and the notes say so.

    Raises:
        ValueError: A class has fewer than two examples.
    """
    check_sizes(shots, None)
    groups, notes = _groups(examples, by_class, np.random.default_rng(seed))
    dev: list[Example] = []
    for label, own in groups.items():
        n_dev = min(shots, len(own) // 2)
        if not n_dev:
            raise ValueError(f"test has {len(own)} examples{_of(label)}; dev needs one of two")
        if n_dev < shots:
            notes.append(f"test has {len(own)} examples{_of(label)}, of which {n_dev} are in dev")
        dev += own[:n_dev]
    taken = {example.key for example in dev}
    rest = [example for example in examples if example.key not in taken]
    return dev, rest, [f"dev was drawn from test: {len(dev)} of {len(examples)}", *notes]


def draw_test(examples: Sequence[Example], n_test: int | None, seed: int) -> tuple[Example, ...]:
    """So many examples of a test set, in their order; all of them for None."""
    if n_test is None or n_test >= len(examples):
        return tuple(examples)
    chosen = np.random.default_rng(seed).permutation(len(examples))[:n_test]
    return tuple(examples[i] for i in sorted(chosen))


def untested(classes: Collection[str], test: Sequence[Example]) -> list[str]:
    """A note that names the classes of which test has no example, where there are any.

    >>> untested(["bad", "good"], [Example({"text": "Fun."}, "good")])
    ["test has no example of the class 'bad', so its scores say nothing of that"]
    """
    absent = sorted({*classes} - {example.label for example in test})
    if not absent:
        return []
    which = f"class{'es' * (len(absent) > 1)} {listed_briefly(map(repr, absent))}"
    return [
        f"test has no example of the {which}, so its scores say nothing of "
        f"{'that' if len(absent) == 1 else 'those'}"
    ]


def check_sizes(shots: int, n_test: int | None) -> None:
    """Refuse sizes below one.

    Raises:
        ValueError: One is.
    """
    if shots < 1:
        raise ValueError(f"shots is {shots}; give 1 or more")
    if n_test is not None and n_test < 1:
        raise ValueError(f"n_test is {n_test}; give 1 or more, or None for all there is")


def _draw(
    examples: Sequence[Example],
    shots: int,
    by_class: bool,
    rng: np.random.Generator,
    shares: int = 3,
) -> tuple[list[Example], list[Example], list[Example], list[str]]:
    """Train, dev, what is left, and what was left out.

    A class that is rare beside others gives each of so many shares as many: of 3 the last is
    test's. Where no class has enough, fewer shots are asked for. Enough for 3 shares leaves one
    example or more to the last.
    """
    groups, notes = _groups(examples, by_class, rng)
    train: list[Example] = []
    dev: list[Example] = []
    rest: list[Example] = []
    enough = 2 * shots + (shares == 3)
    sizes = {label: len(own) for label, own in groups.items()}
    rarest, largest = min(sizes, key=sizes.__getitem__), max(sizes.values())
    if sizes[rarest] < 2 or largest < enough:
        raise ValueError(_too_few(rarest, sizes[rarest], shots, largest))
    for label, own in groups.items():
        n = shots
        if len(own) < enough:
            n = max(1, len(own) // shares)
            notes.append(
                f"class {label!r} has {len(own)} examples, too few for {shots} shots: {n} are in "
                f"train, {n} in dev"
            )
        train += own[:n]
        dev += own[n : 2 * n]
        rest += own[2 * n :]
    return train, dev, rest, notes


def _too_few(label: str, n: int, shots: int, largest: int) -> str:
    """What to say of a class of n examples, where the largest has so many; "" is all of them."""
    if label:
        what = f"class {label!r} has {counted(n, 'example')}"
    else:
        what = f"there {'is' if n == 1 else 'are'} {counted(n, 'example')}"
    what += f"; {shots} shots need {2 * shots} (train and dev), and test takes from what is left"
    if n < 2 and label:
        return f"{what}; give it 2 or more"
    fewer = largest // 3  # a third is left for test
    return f"{what}; give more{f', or fewer shots, such as {fewer}' if fewer else ''}"


def _groups(
    examples: Sequence[Example], by_class: bool, rng: np.random.Generator
) -> tuple[dict[str, list[Example]], list[str]]:
    """Distinct examples of each class in an order that is drawn, and what was left out."""
    pool, notes = _distinct(examples, by_class)
    labels = sorted({example.label for example in examples} if by_class else ()) or [""]
    groups: dict[str, list[Example]] = {label: [] for label in labels}
    for i in rng.permutation(len(pool)):
        groups[pool[i].label if by_class else ""].append(pool[i])
    return groups, notes


def _of(label: str) -> str:
    return f" of the class {label!r}" if label else ""


def _distinct(examples: Sequence[Example], by_class: bool) -> tuple[list[Example], list[str]]:
    """Each text once, and of a class with one label, in order of first appearance; and notes."""
    first: dict[bytes, Example] = {}
    torn: set[bytes] = set()
    for example in examples:
        if first.setdefault(example.key, example).label != example.label and by_class:
            torn.add(example.key)
    notes = []
    if torn:
        notes.append(f"{len(torn)} texts that are there with two labels were left out")
    if n_repeats := len(examples) - len(first):
        left_out = "repeats of examples were" if n_repeats > 1 else "repeat of an example was"
        notes.append(f"{n_repeats} {left_out} left out")
    return [example for key, example in first.items() if key not in torn], notes
