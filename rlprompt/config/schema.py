"""What an experiment file may say, checked before anything is loaded or paid for.

`load_config` reads the file. Nothing here imports torch or an optimiser.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

import pydantic
from pydantic import BeforeValidator, Field, PositiveInt

from rlprompt.config.registry import find
from rlprompt.config.tasks import (
    LIST,
    MAPPING,
    NUMBER,
    StrictModel,
    TaskConfig,
    named,
    on_split,
    place_of,
    split_settings,
)
from rlprompt.config.titles import titles
from rlprompt.models.load_options import checked_options
from rlprompt.models.served.access import ACCESS, Access, checked_key_env, checked_url
from rlprompt.prompt import Length, Pool, checked_starts
from rlprompt.types import PromptKind

# Keys that have a plural for a grid.
PLURALS = ("task", "model", "budget")
# What an optimiser's section may say of its own prompts, in the place of `prompt:`.
OWN = ("length", "start", "tokens")
# The method that every comparison has: what luck finds at the same cost.
RANDOM = "random"


def _distinct(values: Sequence[object]) -> Sequence[object]:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{value} is given twice")
    return values


LoadOptions = Annotated[dict[str, Any], pydantic.AfterValidator(checked_options)]


class PricesConfig(StrictModel):
    """What a million tokens of a served model cost; see `Prices`.

    Attributes:
        input: Of those that it reads.
        output: Of those that it writes.
    """

    input: Annotated[float, Field(ge=0)]
    output: Annotated[float, Field(ge=0)]


# Of a served model what decides no result, and may be another the next time.
PASSING = (*ACCESS, "prices")


class ModelConfig(StrictModel):
    """The frozen model: on this machine, or on a server.

    Attributes:
        name: As for `FrozenLM.load`: `smollm2-135m`, a hub name, a folder, that of a PEFT adapter,
            or a `.gguf` file. Of a served model its name there, left out for the only one.
        revision: Commit, branch or tag of a hub model.
        load: More for transformers' `from_pretrained`, such as `quantization_config`; what the
            experiment says for all models where this is left out.
        url: Of a served model where its API begins, mostly with `/v1` at the end; see `ServedLM`.
        key_env: The environment variable that holds the server's key, if it wants one.
        concurrency: Requests at a time.
        timeout: Seconds that an answer may take.
        attempts: How often a request is sent at the most.
        prices: Money for a million tokens, in a currency of one's own.
    """

    name: str = ""
    revision: str | None = None
    load: LoadOptions = Field(default_factory=dict)
    url: Annotated[str, pydantic.AfterValidator(checked_url)] | None = None
    key_env: Annotated[str, pydantic.AfterValidator(checked_key_env)] = Access.key_env
    concurrency: PositiveInt = Access.concurrency
    timeout: Annotated[float, Field(gt=0)] = Access.timeout
    attempts: PositiveInt = Access.attempts
    prices: PricesConfig | None = None

    @pydantic.model_validator(mode="after")
    def _is_here_or_there(self) -> ModelConfig:
        if self.url is None:
            if not self.name:
                raise ValueError("name is missing, or url for a model on a server")
            given = [key for key in PASSING if key in self.model_fields_set]
            if given:
                raise ValueError(f"{given[0]} is for a model on a server; give its url as well")
        elif self.revision or self.load:
            what = "revision" if self.revision else "load"
            raise ValueError(f"{what} is for a model that is loaded here, and url names a server")
        return self

    @pydantic.model_serializer(mode="wrap")
    def _as_given(self, dump: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Of a model here nothing of servers, which is refused beside it where it is read again."""
        given: dict[str, Any] = dump(self)
        return given if self.url else {key: given[key] for key in ("name", "revision", "load")}

    @property
    def title(self) -> str:
        """What it is called where nothing else is said."""
        return self.name or str(self.url)


T = TypeVar("T")
# A list, or a mapping where two would go by the same name, or one by a name that says little.
Several = Annotated[
    Annotated[tuple[T, ...], pydantic.Tag(LIST)] | Annotated[dict[str, T], pydantic.Tag(MAPPING)],
    pydantic.Discriminator(lambda value: MAPPING if isinstance(value, Mapping) else LIST),
    Field(min_length=1),
]


def _titled(one: T | None, several: tuple[T, ...] | dict[str, T] | None) -> list[tuple[str, T]]:
    """Sections with what they are called, "" for the name of their own."""
    if isinstance(several, dict):
        return list(several.items())
    sections = several or () if one is None else (one,)
    return [("", section) for section in sections]


class LengthConfig(StrictModel):
    """Prompts of several lengths; see `Length`.

    Attributes:
        at_most: Tokens in the longest prompt.
        at_least: Tokens in the shortest.
    """

    at_most: PositiveInt
    at_least: PositiveInt = 1

    @pydantic.model_validator(mode="after")
    def _some_length_is_allowed(self) -> LengthConfig:
        Length(self.at_most, self.at_least)
        return self


def _starts(value: Any) -> tuple[str | dict[str, str], ...]:
    """Texts, names and `{found: FOLDER}`, one or several."""
    several = value if isinstance(value, list | tuple) else [value]
    for one in several:
        found = isinstance(one, Mapping) and set(one) == {"found"} and isinstance(one["found"], str)
        if not (isinstance(one, str) or found):
            raise ValueError(
                "must be a text, a name, {found: FOLDER} with an exported prompt, or a list of "
                f"these, got {one!r}"
            )
    checked_starts([one for one in several if isinstance(one, str)] or "vocabulary")
    if not several:
        raise ValueError("must not be empty")
    return tuple(one if isinstance(one, str) else {"found": one["found"]} for one in several)


class PromptConfig(StrictModel):
    """What is searched for.

    Attributes:
        kind: What all prompts are (`PromptKind`), such as `text`; left out, what each method
            searches.
        length: Tokens, or vectors of a soft prompt; of several lengths, token prompts have any and
            soft prompts the longest. Texts have any, or in a range as many tokens at most.
        banned: Words, or token ids, that no prompt of tokens or text and no start may use; see
            `search`.
        start: What searches begin with: a text, a name of `START_NAMES`, `{found: FOLDER}` of an
            exported prompt, or several of these; see `search`.
        tokens: What token prompts, and random starts of vectors, are made of: `all`, `words`,
            `likely`, `gradient`, or with a size, such as `{words: 200}`; see `Pool`.
    """

    kind: PromptKind | None = None
    length: Annotated[
        Annotated[PositiveInt, pydantic.Tag(NUMBER)]
        | Annotated[LengthConfig, pydantic.Tag(MAPPING)],
        pydantic.Discriminator(
            lambda value: MAPPING if isinstance(value, Mapping | LengthConfig) else NUMBER
        ),
    ] = 5
    banned: tuple[int | str, ...] = ()
    start: Annotated[tuple[str | dict[str, str], ...], BeforeValidator(_starts)] = ("vocabulary",)
    tokens: Annotated[
        str | dict[str, int], BeforeValidator(lambda value: Pool.of(value).simplest)
    ] = "all"

    @pydantic.model_validator(mode="after")
    def _texts_are_no_tokens(self) -> PromptConfig:
        usual = PromptConfig.model_fields
        if self.kind != "text":
            return self
        if isinstance(self.length, int) and self.length != usual["length"].default:
            raise ValueError(
                f"length: a text has no exact number of tokens; give {{at_most: {self.length}}}"
            )
        if self.tokens != usual["tokens"].default:
            raise ValueError("tokens says what token prompts are made of, and the kind is text")
        return self

    @property
    def lengths(self) -> int | Length:
        """The length, or the range of lengths."""
        length = self.length
        return length if isinstance(length, int) else Length(length.at_most, length.at_least)


class StopConfig(StrictModel):
    """When a search ends before its budget does; see `search.Budget`.

    Attributes:
        seconds: Wall time of rewards and gradients.
        target: A mean train reward that is good enough.
        patience: Rows without a better reward.
    """

    seconds: Annotated[float, Field(gt=0)] | None = None
    target: float | None = None
    patience: PositiveInt | None = None


class SelectionConfig(StrictModel):
    """How a search picks its prompt on dev; what is left out is as `Selection` has it.

    Attributes:
        candidates: Prompts that race on dev.
        along_path: Whether they are a spread of the search, and not the best on train alone.
        dev_patience: Tenths of the budget without a leader that is better on dev, after which a
            search ends.
    """

    candidates: PositiveInt | None = None
    along_path: bool | None = None
    dev_patience: PositiveInt | None = None


class RayConfig(StrictModel):
    """The cluster that searches run on; see `studies.ray_cluster`.

    Attributes:
        address: `auto` for the cluster that this machine is part of, `local` for this machine
            alone, or the `host:port` of a cluster that this machine is part of.
        num_cpus: Processor cores a search.
        num_gpus: GPUs a search.
        workers: Processes at most.
        wait: Seconds in which a machine that is large enough may join.
    """

    address: Annotated[str, Field(min_length=1)] = "auto"
    num_cpus: Annotated[float, Field(ge=0)] = 1
    num_gpus: Annotated[float, Field(ge=0)] = 0
    workers: PositiveInt = 64
    wait: Annotated[float, Field(ge=0)] = 30


def _optimiser(value: Any) -> Any:
    """A section of an optimiser with its settings apart, and the place of a class as its name."""
    if not isinstance(value, Mapping) or "class" not in value:
        return split_settings(value)
    if "name" in value:
        raise ValueError("name and class are both there; give one of them")
    others = {key: item for key, item in value.items() if key != "class"}
    return split_settings({"name": place_of(value["class"]), **others})


def _is_there(name: str) -> str:
    return place_of(name) if ":" in name else find("optimiser", name).name


class OptimiserConfig(StrictModel):
    """A search method: a bare name, or `{name: greedy, pool: 0.5}` with some of its settings.

    `{class: "my_search:MySearch", pool: 0.5}` is a person's own, whose name is its place:
    `FILE.py:NAME` or `MODULE:NAME`. `length`, `start` and `tokens` there are those of the prompts
    that it searches (`PromptConfig`).
    """

    name: Annotated[str, pydantic.AfterValidator(_is_there)]
    settings: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def named(cls, name: str) -> OptimiserConfig:
        """The method of that name as it comes.

        Raises:
            ValueError: There is none.
        """
        return cls(name=_is_there(name))


class ReferenceConfig(StrictModel):
    """Training to compare with: a bare name, or `{name: lora, rank: 4}` with settings."""

    name: Literal["logistic-head", "lora", "lora+soft", "fine-tuning"]
    settings: dict[str, Any] = Field(default_factory=dict)

    @pydantic.model_serializer
    def _as_written(self) -> dict[str, Any]:
        return {"name": self.name, **self.settings}


class Config(StrictModel):
    """A grid: every optimiser with every seed, on each split of each task, model and budget.

    Of `task` and `tasks` one is given, of `model` and `models`, and of `budget` and `budgets`.

    >>> file = {"name": "mine", "model": "smollm2-135m", "task": "sst2", "budget": 64}
    >>> config = Config.model_validate({**file, "optimisers": ["random"]})
    >>> config.seeds, config.prompt.length
    ((0,), 5)

    Attributes:
        name: What its output folder is called.
        model: The frozen model.
        models: Several, in a list, or in a mapping of names to call them by.
        task: What a prompt is for.
        tasks: Several, as for models.
        prompt: What is searched for.
        optimisers: The methods to compare.
        references: Training of the same models on the same examples; see `ReferenceConfig`.
        seeds: Each optimiser runs once with each.
        split_seeds: Each task is loaded once with each, from the folder that `{seed}` in its `data`
            then names, or with other examples drawn; every search runs on each. None: once.
        budget: Rows that each run may spend: one row is one prompt scored on one example.
        budgets: Several.
        stop: When a search ends before.
        selection: How a search picks its prompt.
        load: More for transformers' `from_pretrained`, of each model that has none of its own.
        device: `cpu`, `cuda`, `cuda:1`, ..., or `auto`.
        dtype: `float32`, `bfloat16`, `float16`, or `auto`.
        cache: File of answers that studies share, made if it is not there.
        executor: Where searches run: `local`, or `ray` for the machines of a Ray cluster.
        ray: The cluster, if that is the executor.
    """

    name: str = Field(pattern=r"^\w[\w.-]*$")
    model: Annotated[ModelConfig, BeforeValidator(named)] | None = None
    models: Several[Annotated[ModelConfig, BeforeValidator(named)]] | None = None
    task: TaskConfig | None = None
    tasks: Several[TaskConfig] | None = None
    prompt: PromptConfig = PromptConfig()
    optimisers: Annotated[
        tuple[Annotated[OptimiserConfig, BeforeValidator(_optimiser)], ...],
        Field(min_length=1),
    ]
    references: tuple[Annotated[ReferenceConfig, BeforeValidator(split_settings)], ...] = ()
    seeds: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...],
        Field(min_length=1),
        pydantic.AfterValidator(_distinct),
    ] = (0,)
    split_seeds: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...], pydantic.AfterValidator(_distinct)
    ] = ()
    budget: PositiveInt | None = None
    budgets: (
        Annotated[tuple[PositiveInt, ...], Field(min_length=1), pydantic.AfterValidator(_distinct)]
        | None
    ) = None
    stop: StopConfig = StopConfig()
    selection: SelectionConfig | None = None
    load: LoadOptions = Field(default_factory=dict)
    device: str = "auto"
    dtype: str = "auto"
    cache: str | None = Field(None, min_length=1)
    executor: Literal["local", "ray"] = "local"
    ray: RayConfig = RayConfig()

    @pydantic.field_validator("optimisers", "references")
    @classmethod
    def _titles_differ(
        cls, value: tuple[OptimiserConfig | ReferenceConfig, ...]
    ) -> tuple[OptimiserConfig | ReferenceConfig, ...]:
        _distinct(titles(value))
        return value

    @pydantic.model_validator(mode="after")
    def _one_of_each(self) -> Config:
        for key in PLURALS:
            one, several = getattr(self, key), getattr(self, f"{key}s")
            if one is None and several is None:
                raise ValueError(f"{key} is missing")
            if one is not None and several is not None:
                raise ValueError(f"{key} and {key}s are both there; give one of them")
        return self

    @pydantic.model_validator(mode="after")
    def _ray_is_used(self) -> Config:
        if self.ray != RayConfig() and self.executor != "ray":
            raise ValueError("ray has settings, but executor is local: add `executor: ray`")
        return self

    @pydantic.model_validator(mode="after")
    def _splits_have_a_place(self) -> Config:
        self.split_tasks  # noqa: B018  # which says what is wrong with one
        return self

    @property
    def all_tasks(self) -> list[tuple[str, TaskConfig]]:
        """Each task with what to call it, "" for its own name."""
        return _titled(self.task, self.tasks)

    @property
    def task_titles(self) -> list[str]:
        """What a study calls each task, "" for a name that is known once it is loaded.

        Of several splits all go by one, and none is loaded for it.
        """
        split = bool(self.split_seeds)
        return [title or (section.name if split else "") for title, section in self.all_tasks]

    @property
    def split_tasks(self) -> list[tuple[int | None, str, TaskConfig]]:
        """Each task on each split: split seed, None for the only one, title and section."""
        return [
            (seed, title, on_split(section, seed))
            for seed in self.split_seeds or (None,)
            for title, section in self.all_tasks
        ]

    @property
    def all_models(self) -> list[tuple[str, ModelConfig]]:
        """Each model with what to call it, and how it is loaded."""
        load = {"load": self.load}
        return [
            (title or one.title, one if one.load or one.url else one.model_copy(update=load))
            for title, one in _titled(self.model, self.models)
        ]

    @property
    def all_budgets(self) -> tuple[int, ...]:
        """Each budget."""
        return self.budgets or (() if self.budget is None else (self.budget,))

    def titled(self, begun: Collection[str] = ()) -> dict[str, OptimiserConfig]:
        """Each optimiser by what it is called; see `titles`."""
        return dict(zip(titles(self.optimisers, begun), self.optimisers, strict=True))

    def with_random(self) -> Config:
        """The config with random search, as it comes, where it is not there in any form.

        Not where all prompts are of another kind than the tokens that it draws, as on a server.
        """
        served = any(model.url for _, model in self.all_models)
        if (
            served
            or self.prompt.kind not in (None, "tokens")
            or any(one.name == RANDOM for one in self.optimisers)
        ):
            return self
        every = (*self.optimisers, OptimiserConfig.named(RANDOM))
        return self.model_copy(update={"optimisers": every})

    @property
    def record(self) -> dict[str, Any]:
        """What decides the results, as JSON values."""
        return self.model_dump(mode="json", exclude={"cache", "executor", "ray"})
