"""Finds label words: the single tokens of the vocabulary that tell the classes apart on train.

One pass over the examples gives every word's log-likelihood as the answer. For each class the
likeliest words on its own examples are kept (AutoL of LM-BFF, Gao et al. 2021, arXiv 2012.15723,
section 5.1) and ranked by the log of the likelihood ratio to the other classes (after PETAL, Schick
et al. 2020, arXiv 2010.13641). Out of these pools comes the assignment with the highest accuracy on
the same examples, found by changing one word at a time; nothing is fine-tuned, and dev and test are
never seen. What the words gain on so few examples is in part luck, so hold them against words of
your own on dev.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlprompt.data.examples import Example
from rlprompt.data.values import class_name
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import TokenPrompt
from rlprompt.tasks.base import Task
from rlprompt.tasks.class_scores import accuracy, cross_entropy
from rlprompt.tasks.classification import ClassificationTask
from rlprompt.tasks.verbaliser import pool_words
from rlprompt.template import Template

logger = logging.getLogger(__name__)

# Words that are likely enough as a class's answer to be ranked. Of rarer ones the likelihood ratio
# is mostly noise; PETAL takes the 10,000 words that are most frequent in unlabelled texts.
LIKELY = 1000
# Examples asked about at a time, each with the whole vocabulary as candidates.
CHUNK = 8


@dataclass(frozen=True)
class FoundWords:
    """Label words and what finding them took.

    Attributes:
        label_words: Class to its words, best first, as `ClassificationTask` takes them.
        accuracy: Share of the same examples that they get right, in [0, 1].
        rows: Rows that it cost, one an example, outside any budget.
    """

    label_words: dict[str, list[str]]
    accuracy: float
    rows: int


def find_label_words(
    lm: FrozenLM,
    examples: Sequence[Example],
    template: Template,
    labels: Sequence[str],
    *,
    hand_prompt: str = "",
    count: int = 1,
    pool: int = 100,
    pooling: str = "mean",
) -> FoundWords:
    """The single-token words that tell the classes apart, without any randomness.

    Args:
        lm: The frozen model.
        examples: Train examples, at least one of each class.
        template: Where text, prompt and answer go.
        labels: The classes, two or more.
        hand_prompt: Text of the prompt that the model answers after.
        count: Words of each class.
        pool: Words considered for each class (AutoL's k, 100), `count` times the number of classes
            or more.
        pooling: How several words make one score (`Verbaliser`).

    Raises:
        ValueError: A count or pool out of range, a class without examples or an example without
            class, or a vocabulary with too few words.

    >>> from rlprompt.check.toy import toy_lm
    >>> examples = [Example({"text": text}, text) for text in ("bad", "good")]
    >>> template = Template("{text} {prompt}")
    >>> find_label_words(toy_lm(), examples, template, ["bad", "good"])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: the tokenizer of toy has 0 words of one token that can answer in ...
    """
    labels = [class_name(label) for label in labels]
    if len(set(labels)) < 2 or len(set(labels)) < len(labels):
        raise ValueError(f"labels are {list(labels)}; give two or more, each once")
    if count < 1 or pool < count * len(labels):
        raise ValueError(
            f"count is {count} and pool {pool}; give a count of 1 or more, and a pool of count "
            f"times {len(labels)} classes or more"
        )
    which = _which(examples, labels)
    words = _words(lm, template)
    if len(words) < pool:
        raise ValueError(
            f"the tokenizer of {lm.name} has {len(words)} words of one token that can answer in "
            f"{template.text!r}, fewer than a pool of {pool}; give label words of your own"
        )
    text = template.on(lm).prompt_text(hand_prompt)
    prompt = TokenPrompt(template.prompt_ids(lm, text))
    loglik = _loglik(lm, examples, template, prompt, list(words.values()))
    chosen, found = _assign(loglik, which, _pools(loglik, which, pool), count, pooling)
    spelt = list(words)
    label_words = {
        label: [spelt[word] for word in own] for label, own in zip(labels, chosen, strict=True)
    }
    logger.info("label words %s: accuracy %.3f on %d examples", label_words, found, len(examples))
    return FoundWords(label_words, found, len(examples))


def with_found_words(task: Task, lm: FrozenLM) -> ClassificationTask:
    """The task with a label word a class that was found on its train examples, which is noted.

    Raises:
        ValueError: It is no `ClassificationTask`; else as for `find_label_words`.
    """
    if not isinstance(task, ClassificationTask):
        raise ValueError(f"task {task.name!r} has no classes, so it has no label words")
    found = find_label_words(
        lm,
        task.splits.train,
        task.template,
        list(task.verbaliser.words),
        hand_prompt=task.hand_prompt,
        pooling=task.pooling,
    )
    words = "; ".join(f"{label}: {', '.join(own)}" for label, own in found.label_words.items())
    note = (
        f"label words were found on train, for {found.rows} rows outside the budget: {words} "
        f"(accuracy {found.accuracy:.3f} there)"
    )
    splits = dataclasses.replace(task.splits, notes=(*task.splits.notes, note))
    return dataclasses.replace(task, label_words=found.label_words, splits=splits)


def _which(examples: Sequence[Example], labels: Sequence[str]) -> Tensor:
    """Index of each example's class, (N,)."""
    places = {label: i for i, label in enumerate(labels)}
    for example in examples:
        if example.label not in places:
            raise ValueError(
                f"{example.source or dict(example.fields)} has the label {example.label!r}; "
                f"known: {', '.join(labels)}"
            )
    which = torch.tensor([places[example.label] for example in examples])
    for label, i in places.items():
        if not (which == i).any():
            raise ValueError(f"class {label!r} has no example to find its label words on; add one")
    return which


def _words(lm: FrozenLM, template: Template) -> dict[str, int]:
    """Words of two letters or more that are one token where the answer goes, with their ids."""
    own, words = template.on(lm), {}
    prefix = own.answer_text("a", lm.kind)[:-1]
    for i in range(min(lm.n_vocabulary, len(lm.tokenizer))):
        word = lm.decode([i]).strip()
        if len(word) < 2 or not word.isalpha() or own.answer_text(word, lm.kind) != prefix + word:
            continue  # or of another script than the template
        # The same letters have another id where they begin no word.
        if own.answer_ids(lm, prefix + word) == (i,):
            words[word] = i
    return words


def _loglik(
    lm: FrozenLM,
    examples: Sequence[Example],
    template: Template,
    prompt: TokenPrompt,
    ids: Sequence[int],
) -> Tensor:
    """Log-likelihood of each word as the answer to each example, (N, W) float64, nats."""
    candidates = [(i,) for i in ids]
    parts = []
    for start in range(0, len(examples), CHUNK):
        chunk = examples[start : start + CHUNK]
        queries = [template.query(example.fields, lm, candidates) for example in chunk]
        parts.append(lm.score([prompt], queries)[0])
    return torch.cat(parts).double()


def _pools(loglik: Tensor, which: Tensor, pool: int) -> list[list[int]]:
    """For each class the words that speak most for it, best first: indices into (N, W)."""
    classes = range(int(which.max()) + 1)
    means = torch.stack([loglik[which == c].mean(0) for c in classes])  # (C, W)
    pools = []
    for c in classes:
        others = torch.cat([means[:c], means[c + 1 :]]).mean(0)
        # Stable sorts, so that equals stay in the order of their ids.
        likely = means[c].sort(descending=True, stable=True).indices[: max(LIKELY, pool)]
        ratios = (means[c] - others)[likely]
        best = ratios.sort(descending=True, stable=True).indices[:pool]
        pools.append([int(word) for word in likely[best]])
    return pools


def _assign(
    loglik: Tensor, which: Tensor, pools: Sequence[Sequence[int]], count: int, pooling: str
) -> tuple[list[list[int]], float]:
    """Words of each class out of its pool, and their accuracy.

    Starts with each pool's best and changes one word at a time while that helps, by accuracy and
    then by the mean log-probability of the labels.
    """
    chosen: list[list[int]] = []
    for own in pools:
        taken = {word for other in chosen for word in other}
        chosen.append([word for word in own if word not in taken][:count])
    scores = torch.stack([pool_words(loglik[:, own], pooling) for own in chosen], -1)
    best = _worth(scores, which)
    improved = True
    while improved:
        improved = False
        for c, own in enumerate(pools):
            for slot in range(count):
                for word in own:
                    if any(word in other for other in chosen):
                        continue
                    trial = [*chosen[c][:slot], word, *chosen[c][slot + 1 :]]
                    changed = scores.clone()
                    changed[:, c] = pool_words(loglik[:, trial], pooling)
                    worth = _worth(changed, which)
                    if worth > best:
                        chosen[c], scores, best, improved = trial, changed, worth, True
    return chosen, best[0]


def _worth(scores: Tensor, which: Tensor) -> tuple[float, float]:
    return float(accuracy(scores, which).mean()), float(cross_entropy(scores, which).mean())
