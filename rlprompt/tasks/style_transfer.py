"""Text style transfer: the frozen model rewrites a sentence under the prompt.

After RLPrompt (Deng et al. 2022, arXiv 2205.12548, section 4.2), whose reward is Content + Style
(equation 5); its code takes their mean, and so does `reward: mean` here. Both are in [0, 1], so
that a half is earned by copying the sentence (content 1, style 0) and by any fluent sentence of
the target style (content 0, style 1). `reward: product` gives neither anything. Departures:

- One greedy answer in the place of the best of 32 samples, so that the reward is pure.
- Content is the cosine of mean-pooled sentence vectors, in the place of BERTScore or CTC.
- Where no models to judge are named, the frozen model judges itself, which is much weaker: with
  SmolLM2-135M two unrelated sentences have content 0.86, and negative ones style 0.84,
  so copying is hardly punished. Name both for results that mean something.
- Answers end at the closing quote or the line's end, not at the first full stop.
- One prompt for all sentences, and no standardisation: that belongs to the optimisers.

What the frozen model's tokenizer takes for a control token whatever one does, such as `<think>` of
some models, it does not read where it judges the style.

What is known to go wrong: copying the input, and short stock phrases that please the style model.
`Judgement.copied` counts the first; an answer that is empty earns nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, Unpack, get_args

import numpy as np
from numpy.typing import NDArray

from rlprompt.data.examples import Example, Splits
from rlprompt.data.few_shot import too_few
from rlprompt.data.load import MOVIE_REVIEWS, DataSource
from rlprompt.data.opening import data_name
from rlprompt.data.settings import DrawSettings, draw_splits, draws
from rlprompt.models.decoding import Decoding
from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import Prompt
from rlprompt.tasks.base import Measured
from rlprompt.tasks.lm_judge import verbalised
from rlprompt.tasks.style_models import SentenceEncoder, StyleClassifier
from rlprompt.tasks.templated import TemplateTask
from rlprompt.template import Template, TemplateText
from rlprompt.types import Floats, Outputs

StyleReward = Literal["mean", "product"]

# RLPrompt's template (`examples/text-style-transfer`).
TEMPLATE = Template('{prompt} "{text}" "')
STYLE_TEMPLATE = "{text} It was"
DECODING = Decoding(max_new_tokens=40, stop=('"', "\n"))
# One of RLPrompt's pairs of label words.
WORDS = {"negative": "terrible", "positive": "great"}


@dataclass(frozen=True)
class Judgement:
    """What the model wrote and how good it is, (P, E) each.

    Attributes:
        outputs: The rewritten sentences.
        content: How much of the meaning is left: cosine with the input, not below 0.
        style: Probability of the target style.
        copied: Whether it is the input again, up to case and spacing.
    """

    outputs: Outputs
    content: Floats
    style: Floats
    copied: NDArray[np.bool]

    @property
    def joint(self) -> Floats:
        """Content times style, sentence by sentence.

        The J score of Krishna et al. 2020 (arXiv 2010.05700), without its fluency.
        """
        return self.content * self.style


@dataclass(frozen=True)
class StyleTransferTask(TemplateTask):
    """Rewrite sentences in another style.

    Args:
        name: What results call it.
        splits: The sentences to rewrite, in the field `text`; their label is the style they have.
        target: The style to write in.
        words: Style to the word that answers for it, where the frozen model judges the style.
        classifier: Judges the style; None for the frozen model itself.
        encoder: Judges the content; None for the frozen model itself.
        reward: `mean` or `product` of content and style.
        template: Where prompt and sentence go; the answer follows.
        style_template: What the frozen model judges a `{text}` by; one of `words` follows.
        decoding: How answers are written.
        hand_prompt: A prompt written by hand, the control of every comparison.

    Raises:
        ValueError: The target style has no word or is the sentences' own, or a template or the
            reward is not allowed.

    >>> from rlprompt.check.toy import toy_lm
    >>> splits = Splits(*[(Example({"text": f"so {word}"}, "negative"),) for word in "abc"])
    >>> task = StyleTransferTask("film", splits, "positive", decoding=Decoding(4))
    >>> lm = toy_lm()
    >>> judged = task.judge(lm, [task.written(lm, "Say it kindly:")], splits.train)
    >>> judged.content.shape, judged.style.shape
    ((1, 1), (1, 1))
    """

    metric: ClassVar[str] = "joint"

    name: str
    splits: Splits
    target: str
    words: Mapping[str, str] = field(default_factory=lambda: WORDS)
    classifier: StyleClassifier | None = None
    encoder: SentenceEncoder | None = None
    reward: StyleReward = "mean"
    template: Template = TEMPLATE
    style_template: str = STYLE_TEMPLATE
    decoding: Decoding = DECODING
    hand_prompt: str = ""

    def __post_init__(self) -> None:
        """Check what a user can get wrong."""
        if self.reward not in get_args(StyleReward):
            raise ValueError(
                f"reward is {self.reward!r}; give one of {', '.join(get_args(StyleReward))}"
            )
        if self.template.masked or self.template.fields != ("text",):
            raise ValueError(
                f"template is {self.template.text!r}; it needs {{text}} and {{prompt}}, no other "
                "field, and no {mask}, for the model writes at the end"
            )
        if any(e.label == self.target for part in self.splits.parts().values() for e in part):
            raise ValueError(
                f"some sentences are {self.target!r} already; leave them out of the splits"
            )
        if self.classifier is None:
            self._check_words()

    def _check_words(self) -> None:
        words = {word.strip() for word in self.words.values()} - {""}
        if self.target not in self.words or not 2 <= len(words) == len(self.words):
            raise ValueError(
                f"words are {dict(self.words)}; give one for the style {self.target!r} and others "
                "for the other styles, or a style_model"
            )
        if self._judging.fields != ("text",) or self._judging.masked:
            raise ValueError(
                f"style_template is {self.style_template!r}; it needs the field {{text}} and no "
                "other, and no {mask}"
            )

    @classmethod
    @draws(test=100)
    def from_file(
        cls,
        data: DataSource = MOVIE_REVIEWS,
        *,
        source: str = "negative",
        target: str = "positive",
        text: str = "text",
        label: str = "label",
        words: Mapping[str, str] = WORDS,
        style_model: str = "",
        style_label: str = "",
        sentence_model: str = "",
        device: str = "auto",
        reward: StyleReward = "mean",
        template: TemplateText = TEMPLATE.text,
        style_template: str = STYLE_TEMPLATE,
        max_new_tokens: int = DECODING.max_new_tokens,
        stop: Sequence[str] = DECODING.stop,
        hand_prompt: str = "Rewrite the sentence so that it is {target}.",
        name: str = "",
        **draw: Unpack[DrawSettings],
    ) -> StyleTransferTask:
        """Rewrite the sentences of a file that have one style in another.

        Args:
            data: As for `load_splits`; rows of both styles, of which those of `source` are used.
            source: The style that sentences have, a label of the data.
            target: The style to write in, a label too.
            text: Column that holds the sentence.
            label: Column that holds the style.
            words: As for the class.
            style_model: Name or folder of a sequence-classification model that judges the style;
                left out, the frozen model does.
            style_label: What that model calls the target style; left out, as the data does.
            sentence_model: Name or folder of an encoder that judges the content; left out, the
                frozen model does.
            device: Where these models run.
            reward: As for the class.
            template: As for the class.
            style_template: As for the class.
            max_new_tokens: Where an answer ends that did not end by itself.
            stop: Strings that end an answer.
            hand_prompt: As for the class; `{target}` in it becomes the style's name.
            name: What results call it; the data's name and both styles if left out.
            **draw: What is drawn of the data (`DrawSettings`).

        Raises:
            ValueError: Something is not there, or has a defect.
        """
        # Test takes from what is left of both styles: it is cut once the others are out.
        every: DrawSettings = {**draw, "test": None}
        splits = draw_splits(data, [source, target], every, text={"text": text}, label=label)
        return cls(
            name=name or f"{data_name(data)}-{source}-to-{target}",
            splits=_only(splits, source, draw["test"]),
            target=target,
            words=words,
            classifier=(
                StyleClassifier.load(style_model, style_label or target, device)
                if style_model
                else None
            ),
            encoder=SentenceEncoder.load(sentence_model, device) if sentence_model else None,
            reward=reward,
            template=Template.of(template),
            style_template=style_template,
            decoding=Decoding(max_new_tokens, stop),
            hand_prompt=hand_prompt.replace("{target}", target),
        )

    @cached_property
    def _judging(self) -> Template:
        """The style's template, with the place of the prompt, which stays empty, at its end."""
        return Template(self.style_template + "{prompt}")

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that decides a reward besides the frozen model and the prompt."""
        judges = [judge and judge.fingerprint.digest for judge in (self.classifier, self.encoder)]
        label = self.classifier and self.classifier.label
        own = None if self.classifier else (self.style_template, sorted(self.words.items()))
        state = (self.template.text, self.target, self.reward, self.decoding, judges, label, own)
        content = f"{state!r} {self.splits.digest}"
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()

    def split_rows(self, split: str, n_examples: int) -> int:
        """See `Task.split_rows`: a row to write, and one for each judgement that is its own."""
        return n_examples * (1 + [self.classifier, self.encoder].count(None))

    def lengths(self, lm: FrozenLM, examples: Sequence[Example]) -> list[tuple[int, int]]:
        """See `Task.lengths`."""
        n_answer = self.decoding.max_new_tokens - 1
        return [(query.n_text, n_answer) for query in self.queries(lm, examples)]

    def rewards(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Floats:
        """See `Task.rewards`."""
        return self._combined(self.judge(lm, prompts, examples))

    def rewards_with_outputs(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> tuple[Floats, Outputs]:
        """See `Task.rewards_with_outputs`."""
        judged = self.judge(lm, prompts, examples)
        return self._combined(judged), judged.outputs

    def measure(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Measured:
        """Rewards, content times style, and what was written, (P, E) each."""
        judged = self.judge(lm, prompts, examples)
        return Measured(self._combined(judged), judged.joint, judged.outputs)

    def usage(self) -> Mapping[str, Any]:
        """See `Task.usage`."""
        return {"template": self.template.text, "writing": asdict(self.decoding)}

    def _combined(self, judged: Judgement) -> Floats:
        if self.reward == "product":
            return judged.joint
        return (judged.content + judged.style) / 2

    def judge(
        self, lm: FrozenLM, prompts: Sequence[Prompt], examples: Sequence[Example]
    ) -> Judgement:
        """What the model writes under each prompt (P,) for each example (E,), judged."""
        queries = self.queries(lm, examples)
        written = lm.generate(prompts, queries, **asdict(self.decoding))
        outputs = tuple(tuple(answer.text.strip() for answer in row) for row in written)
        inputs = [example.fields["text"] for example in examples]
        return Judgement(
            outputs,
            self._content(lm, outputs, inputs),
            self._style(lm, outputs),
            np.array([[_same(o, i) for o, i in zip(row, inputs, strict=True)] for row in outputs]),
        )

    def _content(self, lm: FrozenLM, outputs: Outputs, inputs: Sequence[str]) -> Floats:
        """Cosine of output and input, (P, E) in [0, 1]."""
        encoder = self.encoder or SentenceEncoder.of(lm)
        places = _places([*(text for row in outputs for text in row), *inputs])
        vectors = encoder.vectors(list(places)).double().numpy()
        own = vectors[[places[text] for text in inputs]]
        return np.array(
            [
                [vectors[places[text]] @ own[e] if text else 0.0 for e, text in enumerate(row)]
                for row in outputs
            ]
        ).clip(0, 1)

    def _style(self, lm: FrozenLM, outputs: Outputs) -> Floats:
        """Probability of the target style, (P, E)."""
        places = _places([text for row in outputs for text in row])
        if not places:
            return np.zeros((len(outputs), len(outputs[0])))
        if self.classifier is not None:
            found = self.classifier.probabilities(list(places))
        else:
            others = [word for style, word in self.words.items() if style != self.target]
            words = [self.words[self.target], *others]
            texts = [{"text": text} for text in places]
            found = verbalised(lm, self._judging, words, texts)
        known = found.double().numpy()
        return np.array([[known[places[text]] if text else 0.0 for text in row] for row in outputs])


def _only(splits: Splits, style: str, n_test: int | None) -> Splits:
    """The examples of one style, and of test at most so many."""
    train, dev, test = (
        tuple(example for example in part if example.label == style)
        for part in splits.parts().values()
    )
    test = test[:n_test]
    own = [f"only {style} sentences are used, to be rewritten", *too_few(test, n_test)]
    return replace(splits, train=train, dev=dev, test=test, notes=(*splits.notes, *own))


def _places(texts: Sequence[str]) -> dict[str, int]:
    """Which row of a judge's answer is whose: each text once, empty ones never."""
    return {text: i for i, text in enumerate(dict.fromkeys(text for text in texts if text))}


def _same(first: str, second: str) -> bool:
    return first.casefold().split() == second.casefold().split()
