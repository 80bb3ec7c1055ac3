"""What a search found: frozen, and the same after a trip through JSON."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from rlprompt._utils.notebook import card, late, line
from rlprompt._utils.text import other_format, visible
from rlprompt.prompt import Length, Prompt, TextPrompt, TokenPrompt, vector_prompt

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

FORMAT = 2
# Before the text of a soft prompt, which is that of its nearest tokens.
SOFT_MARK = "<soft> near:"
# Before what there is to say of a prefix prompt, which has no text.
PREFIX_MARK = "<prefix>"


# What is scored beside the budget, the last for whoever reads the page alone.
STOPPING, CHOOSING, TESTING = "early stopping", "selection", "final scores"
EXPLAINING = "curves and analysis"


@dataclass(frozen=True)
class Score:
    """Means over a split: the task's reward, and its metric, for classification the accuracy."""

    reward: float
    metric: float

    def worth(self, select_by: str) -> tuple[float, float]:
        """What choices on dev go by, wherever prompts or runs are chosen: the highest wins.

        Args:
            select_by: `reward` or `metric` (`Task.select_by`).

        Returns:
            That figure, and the other one for ties.
        """
        return (self.metric, self.reward) if select_by == "metric" else (self.reward, self.metric)


@dataclass(frozen=True)
class Candidate:
    """A prompt that raced on dev.

    Attributes:
        prompt: The prompt itself.
        text: How it reads; a soft prompt as its nearest tokens, after `SOFT_MARK`; a prefix prompt
            as its size, after `PREFIX_MARK`.
        retypable: Whether typing the text gives the prompt again.
        train_reward: Mean train reward in the search.
        found_at_rows: Rows spent when it was first scored.
        train: Train scores, of the picked prompt only.
        dev: Dev scores, None where the search was interrupted.
        test: Test scores, of the picked prompt only.
        dev_examples: Dev examples that its dev scores are the means of: fewer than there are where
            it fell behind in the race on dev.
        tokens: Of a text, the tokens that its model makes of it, and of a prompt of which the task
            drops some (`CompressionTask`), those that are left; None where the prompt has as many.
        prior: Where scores are calibrated, the probability that the prompt gives each class on the
            texts that calibrate them, which is what is taken out of the scores; exports and
            `Task.class_prior` have its logarithm. None where nothing is taken out, or the search
            was interrupted.
    """

    prompt: Prompt
    text: str
    retypable: bool
    train_reward: float
    found_at_rows: int
    train: Score | None
    dev: Score | None
    test: Score | None
    dev_examples: int = 0
    tokens: int | None = None
    prior: Mapping[str, float] | None = field(default=None, hash=False)

    @property
    def length(self) -> int:
        """Tokens or vectors of the prompt that the model reads."""
        return len(self.prompt) if self.tokens is None else self.tokens


# At so many points of the budget, evenly apart, the best prompt on train is scored on dev.
MARKS = 10


@dataclass(frozen=True)
class Incumbent:
    """A prompt that was the best on train for a while, scored on dev after the search.

    Attributes:
        rows: Rows spent when it was found.
        dev: Its scores on all of dev.
    """

    rows: int
    dev: Score


@dataclass(frozen=True)
class Piece:
    """A token or vector of the picked prompt; a few in a row where the prompt is long.

    Attributes:
        text: How it reads, of a vector the nearest token, of keys and values their positions.
        without: Dev scores of the prompt without it.
    """

    text: str
    without: Score


@dataclass(frozen=True)
class Neighbour:
    """The token nearest to a vector of a soft prompt.

    Attributes:
        text: How it reads.
        distance: Euclidean distance of the vector to the token's embedding.
        norm: Euclidean norm of the vector.
        token_norm: That of the token's embedding.
    """

    text: str
    distance: float
    norm: float
    token_norm: float


@dataclass(frozen=True)
class Projection:
    """The token prompt nearest to a soft one, which other models and people can read.

    Attributes:
        ids: Its tokens.
        text: How it reads.
        retypable: Whether typing the text gives the ids again.
        dev: Its dev scores.
        test: Its test scores.
    """

    ids: tuple[int, ...]
    text: str
    retypable: bool
    dev: Score
    test: Score


@dataclass(frozen=True)
class Analysis:
    """What the picked prompt is made of, found out after it was picked: it decides nothing.

    Attributes:
        pieces: Its tokens or vectors, each with what the prompt is worth without it.
        neighbours: Of a soft prompt, the nearest tokens.
        projection: Of a soft prompt, what it loses as tokens.
        problem: Why this could not be found out, in a line, or "".
    """

    pieces: tuple[Piece, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    projection: Projection | None = None
    problem: str = ""


@dataclass(frozen=True, repr=False)
class Result:
    """One search, from the ledger.

    A run of a study keeps it as JSON, such as `runs/films/runs/greedy-seed0.json`.

    >>> from rlprompt import search
    >>> from rlprompt.agents import RandomSearch
    >>> from rlprompt.check import ToyTask, toy_lm
    >>> result = search(ToyTask(), toy_lm(), RandomSearch(), budget=8, length=2)
    >>> again = Result.from_json(result.to_json())
    >>> again == result, len(again.best.prompt), again.best.test is not None
    (True, 2, True)
    >>> result.to_frame().shape  # prompts, and three columns
    (2, 3)

    Attributes:
        task: Name of the task.
        task_fingerprint: Hash of all that decides a reward besides model and prompt.
        model: Name of the model.
        fingerprint: Fields of the model's `Fingerprint`.
        noise: Fields of the model's `Noise`, nats: scores nearer than that cannot be told apart.
        optimiser: Class name of the method.
        settings: Its settings.
        seed: What decided everything random.
        length: Tokens or vectors of a prompt, or the range that its length was searched in.
        status: `finished`, `interrupted`, or `failed` by an error.
        budget_rows: Rows it was given.
        rows: Rows it was charged.
        n_prompts: Prompts scored on train, repeats counted.
        n_distinct: Different ones among these.
        lm_seconds: Wall time of rewards and gradients.
        total_seconds: Wall time of the search, selection and test not included: what it would take
            without a break and without answers that another had asked for.
        points: Rows used and mean train reward after each scored prompt.
        candidates: The prompts that raced on dev (`Selection`), the one picked first.
        trace_seconds: Seconds of rewards and gradients spent at each improvement of `trace`.
        tokens_per_row: Tokens of text, prompt and answer in a row, on average over train and the
            scored prompts; what a plain scorer would feed the model. None where the task cannot
            say.
        own_tokens: Tokens that the frozen model read for the method itself, such as what it would
            write next, at no row.
        judge_tokens: Tokens that models which judge answers read in the search, at no row; 0 where
            none does.
        incumbents: Prompts that were the best on train at every tenth of the budget.
        test_metrics: Metric of the picked prompt on each test example.
        test_answers: What the model answered on each (a class, or the beginning of what it wrote),
            or empty.
        test_opened: When test was first scored, ISO 8601, or "".
        test_prompts: Prompts of this search that were scored on test: 1, and the projection of a
            soft prompt.
        n_partial: Different prompts scored on a part of train and never on all of it.
        outside_rows: Rows beside the budget, by what they were for.
        outside_seconds: Seconds that these took.
        analysis: What the picked prompt is made of.
        proposer_read: Tokens of what a writer was asked to propose (`Objective.written`).
        proposer_written: Tokens of what it wrote.
        select_by: By what it was picked on dev (`Task.select_by`).
    """

    task: str
    task_fingerprint: str
    model: str
    fingerprint: Mapping[str, str]
    noise: Mapping[str, float]
    optimiser: str
    settings: Mapping[str, Any]
    seed: int
    length: int | Length
    status: str
    budget_rows: int
    rows: int
    n_prompts: int
    n_distinct: int
    lm_seconds: float
    total_seconds: float
    points: tuple[tuple[int, float], ...]
    candidates: tuple[Candidate, ...]
    trace_seconds: tuple[float, ...] = ()
    tokens_per_row: float | None = None
    own_tokens: int = 0
    judge_tokens: int = 0
    incumbents: tuple[Incumbent, ...] = ()
    test_metrics: tuple[float, ...] = ()
    test_answers: tuple[str, ...] = ()
    test_opened: str = ""
    test_prompts: int = 0
    outside_rows: Mapping[str, int] = field(default_factory=dict)
    outside_seconds: float = 0.0
    analysis: Analysis | None = None
    n_partial: int = 0
    proposer_read: int = 0
    proposer_written: int = 0
    select_by: str = "reward"

    @property
    def best(self) -> Candidate:
        """The prompt picked on dev.

        Raises:
            ValueError: Nothing was scored.
        """
        if not self.candidates:
            raise ValueError("nothing was scored before the search ended, so there is no best")
        return self.candidates[0]

    @property
    def trace(self) -> tuple[tuple[int, float], ...]:
        """Rows used and best mean train reward, at each improvement."""
        improvements: list[tuple[int, float]] = []
        for rows, reward in self.points:
            if not improvements or reward > improvements[-1][1]:
                improvements.append((rows, reward))
        return tuple(improvements)

    @property
    def mean_reward(self) -> float:
        """Mean train reward of all prompts that were sampled; NaN where that is not known.

        It is not where some were scored on a part of train alone (`n_partial`), as in halving: the
        rest are those that did well there.
        """
        if self.n_partial or not self.points:
            return float("nan")
        return float(np.mean([reward for _, reward in self.points]))

    def to_frame(self) -> pandas.DataFrame:
        """A row a scored prompt: `rows` spent, its mean train `reward`, and the `best` so far.

        Raises:
            ValueError: pandas is not installed (`pip install 'rlprompt[notebook]'`).
        """
        frame: pandas.DataFrame = late("pandas").DataFrame(self.points, columns=["rows", "reward"])
        frame["best"] = frame["reward"].cummax()
        return frame

    def plot(self, ax: Axes | None = None) -> Axes:
        """Train rewards of all scored prompts against rows, and the best so far.

        Args:
            ax: Where to draw; a new figure by default.

        Raises:
            ValueError: matplotlib or pandas is not installed (`pip install 'rlprompt[notebook]'`).
        """
        axes, frame = ax or late("matplotlib.pyplot").subplots()[1], self.to_frame()
        axes.plot(frame["rows"], frame["reward"], ".", alpha=0.4, label="each prompt")
        axes.step(frame["rows"], frame["best"], where="post", label="best so far")
        axes.set(xlabel="rows", ylabel="mean train reward", title=self._title)
        axes.legend()
        return axes

    @property
    def _title(self) -> str:
        return f"{self.optimiser} on {self.task}"

    def _facts(self) -> dict[str, str]:
        best = self.candidates[0] if self.candidates else None
        scores = {name: getattr(best, name) for name in ("dev", "test")} if best else {}
        return {
            "model": self.model,
            "seed": str(self.seed),
            "status": self.status,
            "rows": f"{self.rows:,} of {self.budget_rows:,}",
            "prompt": visible(repr(best.text)) if best else "none",
            **{name: f"{score.metric:.3f}" for name, score in scores.items() if score},
        }

    def __repr__(self) -> str:
        """What came of it, in a line."""
        return line(f"Result of {self._title}", self._facts())

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return card(f"Result of {self._title}", self._facts())

    def to_json(self) -> str:
        """The result as JSON text."""
        return json.dumps({"format": FORMAT, **plain(self)}, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Result:
        """The result that `to_json` wrote.

        Raises:
            ValueError: The text is no result, or one of another format.
        """
        try:
            state = json.loads(text, parse_constant=_refuse)
            found = state.pop("format")
            if found == FORMAT:
                return _result(state)
            if not isinstance(found, int):
                raise TypeError(f"format is {found!r}")
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"not a result of rlprompt: {error!r}") from error
        advice = "run the search again, or read it with the version that wrote it"
        raise ValueError(other_format("this result", found, FORMAT, advice))


def _result(state: dict[str, Any]) -> Result:
    """A result from JSON values."""
    analysis, length = state["analysis"], state["length"]
    read = {
        "length": Length(**length) if isinstance(length, dict) else length,
        "points": tuple((int(rows), float(reward)) for rows, reward in state["points"]),
        "candidates": tuple(map(_candidate, state["candidates"])),
        "incumbents": tuple(
            Incumbent(one["rows"], Score(**one["dev"])) for one in state["incumbents"]
        ),
        "analysis": analysis and _analysis(analysis),
        **{key: tuple(state[key]) for key in _LISTS},
    }
    return Result(**{**state, **read})


_LISTS = ("trace_seconds", "test_metrics", "test_answers")


def _analysis(state: Mapping[str, Any]) -> Analysis:
    projection = state["projection"]
    if projection:
        scores = {split: Score(**projection[split]) for split in ("dev", "test")}
        projection = Projection(**{**projection, **scores, "ids": tuple(projection["ids"])})
    return Analysis(
        tuple(Piece(one["text"], Score(**one["without"])) for one in state["pieces"]),
        tuple(Neighbour(**one) for one in state["neighbours"]),
        projection,
        state["problem"],
    )


def prompt_state(prompt: Prompt) -> dict[str, Any]:
    """A prompt as JSON values: ids, text, or a shape with base64 of little-endian float32."""
    if isinstance(prompt, TokenPrompt):
        return {"ids": list(prompt.ids)}
    if isinstance(prompt, TextPrompt):
        return {"text": prompt.text}
    content = base64.b64encode(prompt.vectors.astype("<f4").tobytes()).decode()
    return {"shape": list(prompt.vectors.shape), "float32": content}


def prompt_from_state(state: Mapping[str, Any]) -> Prompt:
    """The prompt that `prompt_state` described."""
    if "ids" in state:
        return TokenPrompt(state["ids"])
    if "text" in state:
        return TextPrompt(state["text"])
    vectors = np.frombuffer(base64.b64decode(state["float32"]), dtype="<f4")
    return vector_prompt(vectors.reshape(state["shape"]))


def plain(value: Any) -> Any:
    """A value of dataclasses, mappings, sequences and numpy's numbers as JSON has it."""
    if isinstance(value, Prompt):
        return prompt_state(value)
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _candidate(state: dict[str, Any]) -> Candidate:
    scores = {
        split: None if state[split] is None else Score(**state[split])
        for split in ("train", "dev", "test")
    }
    return Candidate(**{**state, **scores, "prompt": prompt_from_state(state["prompt"])})
