"""What `prompt.json` says of an exported prompt, checked when it is read.

The prompt and how it is put to work, the model it belongs to, what it scored, how it was found.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import pydantic
import torch
from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt

from rlprompt._utils.text import listed
from rlprompt.data.examples import OnLongText
from rlprompt.models.fingerprint import (
    ADDED,
    SERVED,
    Fingerprint,
    hash_weights,
    told_by_server,
)
from rlprompt.models.lm import FrozenLM
from rlprompt.models.served.lm import ServedLM
from rlprompt.tasks.calibration import CALIBRATIONS
from rlprompt.tasks.verbaliser import Verbaliser
from rlprompt.template import Template
from rlprompt.types import AnswerSpace, ModelKind

FORMAT = 8
# Of the oldest that is read, whose models are told by their weights and their tokenizer alone.
OLDEST = 6
VECTORS = "prompt.safetensors"
# The one tensor of prompt.safetensors, (L, H) float32.
TENSOR = "prompt"
SCORED = ("train", "dev", "test")
# What messages call the fields that tell a model.
CALLED = {
    "kind": "kind",
    "tokenizer": "tokenizer",
    "weights": "weights",
    "config": "config",
    "special": "special tokens",
    "ends": "end tokens",
    "chat": "chat template",
}


class _Part(pydantic.BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Writing(_Part):
    """How answers are written where the model writes: arguments of `FrozenLM.generate`."""

    max_new_tokens: PositiveInt
    stop: tuple[str, ...] = ()
    temperature: Annotated[float, Field(ge=0)] = 0.0
    top_k: NonNegativeInt = 0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: int = 0
    min_new_tokens: NonNegativeInt = 0


class Usage(_Part):
    """How the prompt is put to work.

    Attributes:
        template: Text of the `Template`.
        answer_space: See `Template`.
        label_words: Class to its label words, where there are classes.
        pooling: See `Verbaliser`.
        length: See `Verbaliser`.
        calibration: `none`, `contextual` (Zhao et al. 2021) or `batch` (Zhou et al. 2024).
        calibration_strength: How many times the log prior is taken out, 0 to 1.
        prior: Log-probability of each class that is taken out under this prompt, nats. It was made
            without the texts that are judged: from train where the calibration is `batch`. None
            where nothing is taken out.
        writing: How answers are written, where the model writes.
        columns: Field of the template to the column that held it in the task's data, where it is
            known.
        label: Column that held the class there, or "" where that is not known.
        labels: What the data call the classes, where that is something else.
        numbered: Classes in the order of the numbers 0, 1, ... that data without names have.
        on_long_text: What was done there about texts that are too long (`DrawSettings`).
        cut_for: Tokens of the longest prompt of the study, if texts were cut there: others are cut
            alike, though this prompt may leave room for more of them.
    """

    template: Annotated[str, pydantic.AfterValidator(lambda text: Template(text).text)]
    answer_space: AnswerSpace = "auto"
    label_words: dict[str, tuple[str, ...]] | None = None
    pooling: str = "mean"
    length: str = "sum"
    calibration: str = "none"
    calibration_strength: Annotated[float, Field(ge=0, le=1)] = 1.0
    prior: dict[str, Annotated[float, Field(le=1e-9)]] | None = None
    writing: Writing | None = None
    columns: dict[str, str] = {}
    label: str = ""
    labels: dict[str, str] = {}
    numbered: tuple[str, ...] = ()
    on_long_text: OnLongText = "error"
    cut_for: NonNegativeInt = 0

    @pydantic.model_validator(mode="after")
    def _classes_are_sound(self) -> Usage:
        self.verbaliser  # noqa: B018  # raises where they are not
        if self.calibration not in CALIBRATIONS:
            raise ValueError(f"calibration {self.calibration!r} is not known")
        if self.prior is not None and set(self.prior) != set(self.label_words or ()):
            raise ValueError(
                f"the prior has the classes {', '.join(self.prior)}, and the label words have "
                f"{', '.join(self.label_words or ())}"
            )
        if self.calibration != "none" and self.prior is None:
            raise ValueError(
                f"{self.calibration} calibration has a prior, and here is none: the task's "
                "`class_prior` gives it"
            )
        return self

    @property
    def made(self) -> Template:
        """The template."""
        return Template(self.template, self.answer_space)

    @property
    def verbaliser(self) -> Verbaliser | None:
        """How words make classes, where there are classes."""
        if self.label_words is None:
            return None
        return Verbaliser(self.label_words, self.pooling, self.length)


class TaskFacts(_Part):
    """What the prompt was searched for.

    Attributes:
        name: What results call the task.
        fingerprint: Its hash; with the same one, scores can be compared.
        metric: What its reported figure is called, or "" where that is not known.
        usage: How the prompt is put to work; None where that is not known.
    """

    name: str
    fingerprint: str
    metric: str
    usage: Usage | None


class ModelFacts(_Part):
    """The model that the prompt belongs to: its `Fingerprint`, and more.

    Attributes:
        prefix_ids: Special tokens that it wants before a text.
        suffix_ids: Those after it.
        weights_16_bit: SHA-256 of the weights rounded to bfloat16, which tells the same checkpoint
            in another dtype.
        licence: The model's, as far as it is known.
        place: Where the model lies, seen from the folder, where its name is a path that says so
            only from where the search ran; the address of a served model's server; else "".
        key_env: The environment variable that holds the server's key, if it wants one.
    """

    model: str
    revision: str
    kind: ModelKind | Literal["served"]
    weights: str
    tokenizer: str
    dtype: str
    quantisation: str
    prefix_ids: tuple[NonNegativeInt, ...]
    suffix_ids: tuple[NonNegativeInt, ...]
    weights_16_bit: str
    licence: str
    attention: str
    options: str
    place: str
    key_env: str
    config: str = ""
    special: str = ""
    ends: str = ""
    chat: str = ""


class SearchFacts(_Part):
    """How the prompt was found.

    Attributes:
        run: Name of the run in its study, or "".
        optimiser: Class name of the method.
        settings: Its settings.
        seed: What decided everything random.
        budget_rows: Rows that it was given.
        rows: Rows that it was charged.
        found_at_rows: Rows spent when the prompt was first scored.
        n_prompts: Prompts scored on train, repeats counted.
    """

    run: str
    optimiser: str
    settings: dict[str, Any]
    seed: int
    budget_rows: int
    rows: int
    found_at_rows: int
    n_prompts: int


class ScoreFacts(_Part):
    """What the prompt scored on a split.

    Attributes:
        reward: Mean reward.
        metric: Mean metric.
        n: Examples, or None where that is not known.
        interval: 95 % interval of the mean metric, or None where it cannot be had.
    """

    reward: float
    metric: float
    n: PositiveInt | None
    interval: tuple[float, float] | None


class Facts(_Part):
    """What `prompt.json` says.

    Attributes:
        format: Version of the folder's format.
        kind: `token`, `soft`, `prefix` or `text`.
        ids: Ids of a token prompt, and those that the model has for a text, if it is no served
            one; else None.
        text: How it reads; a soft prompt as its nearest tokens, after `result.SOFT_MARK`, a prefix
            prompt as its size, after `result.PREFIX_MARK`.
        retypable: Whether typing the text gives the prompt again.
        digest: Content hash of the prompt.
        shape: (L, H) of its vectors, of a prefix prompt (L, layers, 2, heads, width); (0, 0) on a
            served model, which is given none.
        sha256: Of `prompt.safetensors`, hexadecimal; "" where there is none.
        before_ids: Ids before the prompt where they are the same for every example; the adapter
            begins with them. None where they are not the same, or not known; none before a prefix.
        task: What it was searched for.
        model: What it belongs to.
        search: How it was found.
        scores: What it scored, by split.
        test_prompts: How many prompts of its search were scored on test; 0 where not known.
    """

    format: Annotated[int, Field(ge=OLDEST, le=FORMAT)]
    kind: Literal["token", "soft", "prefix", "text"]
    ids: tuple[NonNegativeInt, ...] | None
    text: str
    retypable: bool
    digest: str
    shape: tuple[NonNegativeInt, ...]
    sha256: str
    before_ids: tuple[NonNegativeInt, ...] | None
    task: TaskFacts
    model: ModelFacts
    search: SearchFacts
    scores: dict[str, ScoreFacts]
    test_prompts: NonNegativeInt

    @pydantic.model_validator(mode="after")
    def _parts_fit_together(self) -> Facts:
        served = self.model.kind == SERVED
        if served and self.kind != "text":
            raise ValueError("the prompt of a served model is a text")
        if (self.kind in ("token", "text") and not served) != (self.ids is not None):
            raise ValueError("a prompt of tokens or of text has ids, and no other has")
        if len(self.shape) != (5 if self.kind == "prefix" else 2):
            raise ValueError(f"a {self.kind} prompt of shape {self.shape}")
        if not set(self.scores) <= set(SCORED):
            raise ValueError(f"scores of {', '.join(self.scores)}; known: {', '.join(SCORED)}")
        return self


def model_facts(lm: FrozenLM, licence: str, place: str = "") -> ModelFacts:
    """What tells a model."""
    return ModelFacts(
        **dataclasses.asdict(lm.fingerprint),
        prefix_ids=lm.prefix_ids,
        suffix_ids=lm.suffix_ids,
        weights_16_bit="" if lm.served else hash_weights(lm.model, torch.bfloat16),
        licence=licence,
        place=lm.where if lm.served else place,
        key_env=lm.server.api.access.key_env if isinstance(lm, ServedLM) else "",
    )


def same_weights(there: ModelFacts, lm: FrozenLM) -> bool:
    """Whether a model has the weights of the one of a prompt, be it in another dtype."""
    here = lm.fingerprint
    return here.weights == there.weights or (
        SERVED not in (here.kind, there.kind)
        and here.dtype != there.dtype
        and hash_weights(lm.model, torch.bfloat16) == there.weights_16_bit
    )


def check_model(facts: Facts, lm: FrozenLM) -> str:
    """Refuse a model that the prompt does not belong to.

    Returns:
        A note where it is the same model in another dtype, or on a server at another address, or
        where an older version did not record all that tells a model, else "".

    Raises:
        ValueError: It is another model.
    """
    there, here = facts.model, lm.fingerprint
    differing = _differing(facts, here)
    if not differing:
        return _untold(facts)
    if here.kind == there.kind == SERVED:
        before, now = (told_by_server(one) for one in (there.model_dump(), here.content))
        if {**before, "url": ""} == {**now, "url": ""}:
            return (
                f"the prompt was found on the server at {before['url']}, and this is the one at "
                f"{now['url']}, which says the same of its model; the weights of neither are seen"
            )
    if differing == ["weights"] and same_weights(there, lm):
        note = (
            f"the prompt was found with the weights in {there.dtype}, and here it is {here.dtype}"
        )
        return "; ".join(filter(None, (note, _untold(facts))))
    raise ValueError(_refusal(facts, here, differing))


def _differing(facts: Facts, here: Fingerprint) -> list[str]:
    """In which fields a model is not the one of a prompt, as far as they are recorded and count."""
    there, usage = facts.model, facts.task.usage
    names = ["kind", "tokenizer", "weights"]
    if not _untold(facts):
        names += ["config", "special"]
        names += ["ends"] * (usage is None or usage.writing is not None)
        names += ["chat"] * (usage is None or bool(usage.made.messages))
    return [name for name in names if getattr(here, name) != getattr(there, name)]


def _untold(facts: Facts) -> str:
    """What cannot be compared of a model that an older version recorded, or ""."""
    if facts.model.kind == SERVED or any(getattr(facts.model, name) for name in ADDED):
        return ""
    return (
        "the prompt was exported by an older rlprompt, which recorded the model's weights and "
        "tokenizer alone: whether its config, its special and end tokens and its chat template "
        "are the same cannot be told"
    )


def _refusal(facts: Facts, here: Fingerprint, differing: Sequence[str]) -> str:
    there = facts.model
    # Another model has another config as well, which is no news.
    differing = [name for name in differing if name not in ADDED] or differing
    verb = "differs" if len(differing) == 1 and not CALLED[differing[0]].endswith("s") else "differ"
    told = [
        f"{CALLED[name]} {' here, '.join(_brief(name, one) for one in (here, there))} there"
        for name in differing
        if name in ("weights", *ADDED)
    ]
    brackets = f" ({'; '.join(told)})" if told else ""
    message = (
        f"{here.model} is not the model that this prompt belongs to, {there.model}: its "
        f"{listed(CALLED[name] for name in differing)} {verb}"
        f"{brackets}. "
    )
    if SERVED not in (here.kind, there.kind) and here.dtype != there.dtype:
        message += f"Weights in {here.dtype} cannot always be told: load them in {there.dtype}. "
    if facts.kind not in ("token", "text"):
        return message + "Its vectors mean nothing to another model; search there anew"
    return message + (
        f"`rlprompt transfer RUN --models {here.model}` tells what its text is worth there"
    )


def _brief(name: str, model: Fingerprint | ModelFacts) -> str:
    value: str = getattr(model, name)
    hashed = name in ("weights", "config", "chat") and model.kind != SERVED
    return (value[:12] if hashed else value) or "none"
