"""A found prompt as a folder that one can keep, pass on, use and check.

`prompt.json` holds all facts: the prompt and how it is put to work, the model it belongs to, what
it scored, and how it was found. `prompt.safetensors` holds its vectors as the model is given them,
those of a token prompt too. `export_prompt` writes the folder, with an adapter and a card beside;
of a served model, which is given text, the facts and the card alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sized
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from rlprompt._utils.notebook import card, line
from rlprompt._utils.suggest import reason
from rlprompt._utils.text import listed_briefly, other_format, visible
from rlprompt.export.facts import FORMAT, OLDEST, TENSOR, VECTORS, Facts
from rlprompt.export.prediction import Prediction, memory_rows
from rlprompt.export.server import Answer, PromptServer, used
from rlprompt.models.fingerprint import SERVED, loading
from rlprompt.models.lm import FrozenLM
from rlprompt.models.served.lm import ServedLM
from rlprompt.prompt import FACTS, Prompt, TextPrompt, TokenPrompt, vector_prompt


@dataclass(frozen=True)
class ExportedPrompt:
    """A prompt out of its folder.

    Attributes:
        facts: What `prompt.json` says.
        prompt: The prompt itself.
        vectors: (L, H) float32, as the model's layers are fed them; of a prefix prompt
            (L, layers, 2, heads, width).
        folder: Where it was read from.

    >>> import tempfile
    >>> from rlprompt.agents.random_search import RandomSearch
    >>> from rlprompt.check.toy import ToyTask, toy_lm
    >>> from rlprompt.export.export import export_prompt
    >>> from rlprompt.search.run import search
    >>> task, lm = ToyTask(), toy_lm()
    >>> found = search(task, lm, RandomSearch(), budget=40, length=5)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     exported = export_prompt(found, folder, lm, task)
    >>> exported.facts.kind, exported.facts.search.budget_rows
    ('token', 40)
    >>> exported.vectors.shape, str(exported.vectors.dtype)
    ((5, 32), 'float32')
    """

    facts: Facts
    prompt: Prompt
    vectors: NDArray[np.float32]
    folder: Path

    def predict(
        self, data: Any, lm: FrozenLM | None = None, *, text: str | None = None
    ) -> list[Answer]:
        """What the prompt answers to texts.

        Classes come with their probabilities, calibrated as the prompt was when it was found: a
        `Classified` each. Where the model writes, a text each.

        >>> import tempfile
        >>> from rlprompt.agents.random_search import RandomSearch
        >>> from rlprompt.check.toy import ToyTask, toy_lm
        >>> from rlprompt.export.export import export_prompt
        >>> from rlprompt.search.run import search
        >>> from rlprompt.tasks.classification import ClassificationTask
        >>> from rlprompt.template import Template
        >>> words, template = {"any": "it", "other": "so"}, Template("{text} {prompt}")
        >>> task, lm = ClassificationTask("toy", ToyTask().splits, template, words), toy_lm()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found = export_prompt(search(task, lm, RandomSearch(), budget=8), folder, lm, task)
        >>> answers = found.predict(["I loved it.", "Dull."], lm)
        >>> [round(sum(answer.chances.values()), 6) for answer in answers]
        [1.0, 1.0]

        Args:
            data: Texts, where the template has one field; rows, which are mappings; or a frame of
                pandas, polars, pyarrow or `datasets`. Their columns are those of the data that the
                prompt was found on, or the template's fields.
            lm: The model; None for the one that the folder names, loaded once.
            text: Column of the text where it is another one and the template has one field.

        Returns:
            An answer for each row, in their order.

        Raises:
            ValueError: A column is missing, a row cannot be answered, it is another model, or it is
                not known how the prompt is put to work.
        """
        name = self.facts.task.name
        usage = used(self.facts, name)
        if not isinstance(data, str) and isinstance(data, Sized) and not len(data):
            return []
        asked = Prediction(memory_rows(usage, data), {name: usage}, text)
        asked.survey()
        server = PromptServer(self._lm if lm is None else lm, {name: self})
        asked.check(server)
        answers = (one.answers[name] for batch in asked.answers(server) for one in batch)
        return [answer for answer in answers if answer is not None]

    def load_model(
        self, name: str | None = None, *, device: str = "auto", dtype: str = "auto"
    ) -> FrozenLM:
        """The model that the prompt belongs to; whether it is, `check_model` tells.

        Args:
            name: Where it is now, as for `FrozenLM.load`, or the address of its server; None for
                where the folder says.
            device: As for `FrozenLM.load`.
            dtype: Likewise, but `"auto"` is the one that the prompt was found in.

        Raises:
            ValueError: It cannot be loaded.
        """
        facts = self.facts.model
        if facts.kind == SERVED:
            return ServedLM.connect(name or facts.place, facts.model, key_env=facts.key_env)
        settings = loading(facts.model_dump())
        if dtype != "auto":
            settings["dtype"] = dtype
        if name is not None:
            return FrozenLM.load(name, device=device, **{**settings, "revision": None})
        beside = self.folder / facts.place
        where = str(beside) if facts.place and beside.exists() else facts.model
        return FrozenLM.load(where, device=device, **settings)

    def _told(self) -> dict[str, str]:
        facts, usage = self.facts, self.facts.task.usage
        answers = {} if usage is None else {"answers": "written"}
        if usage and usage.label_words:
            answers = {"labels": listed_briefly(usage.label_words)}
        name = facts.task.metric or "score"
        scores = {f"{split} {name}": f"{own.metric:.3f}" for split, own in facts.scores.items()}
        return {
            "prompt": visible(repr(facts.text)),
            "model": facts.model.model,
            **answers,
            **scores,
        }

    def __repr__(self) -> str:
        """What it is, in a line."""
        return line(f"Prompt for {self.facts.task.name}", self._told())

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return card(f"Prompt for {self.facts.task.name}", self._told())

    @cached_property
    def _lm(self) -> FrozenLM:
        return self.load_model()


def load_prompt(folder: str | Path) -> ExportedPrompt:
    """Read an exported prompt and check that it is whole.

    Args:
        folder: Written by `rlprompt export RUN --best FOLDER`, or by `export_prompt`.

    Raises:
        ValueError: A file is missing, damaged, of another format, or not the one that belongs here.

    >>> import tempfile
    >>> from rlprompt.agents.random_search import RandomSearch
    >>> from rlprompt.check.toy import ToyTask, toy_lm
    >>> from rlprompt.export.export import export_prompt
    >>> from rlprompt.search.run import search
    >>> task, lm = ToyTask(), toy_lm()
    >>> found = search(task, lm, RandomSearch(), budget=40)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = export_prompt(found, folder, lm, task)
    ...     load_prompt(folder).prompt == found.best.prompt
    True
    """
    folder = Path(folder)
    content = _content(folder, FACTS)
    facts = _facts(folder / FACTS, content)
    vectors = np.zeros(facts.shape, np.float32)
    if facts.model.kind != SERVED:
        vectors = _vectors(folder, facts)
    prompt: Prompt = TextPrompt(facts.text)
    if facts.kind != "text":
        prompt = vector_prompt(vectors) if facts.ids is None else TokenPrompt(facts.ids)
    length = len(vectors if facts.ids is None else facts.ids)
    if prompt.digest != facts.digest or length != len(vectors):
        raise ValueError(
            f"{folder / FACTS} was changed: its prompt is not the one that was exported; export it "
            "again"
        )
    return ExportedPrompt(facts, prompt, vectors, folder)


def is_exported(folder: str) -> bool:
    """Whether this is a folder with an exported prompt, or with what is left of one."""
    # Not by pathlib: any text may be asked about, and some are no path at all.
    return any(os.path.isfile(os.path.join(folder, name)) for name in (FACTS, VECTORS))


def _content(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except FileNotFoundError:
        raise ValueError(
            f"{folder} is no exported prompt: {name} is missing; "
            "`rlprompt export RUN --best DIR` writes one"
        ) from None
    except OSError as error:
        raise ValueError(f"{folder / name} cannot be read: {error.strerror}") from None


def _facts(path: Path, content: bytes) -> Facts:
    try:
        state = json.loads(content)
        found = state["format"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is damaged: not the JSON of an exported prompt") from None
    if isinstance(found, int) and not OLDEST <= found <= FORMAT:
        advice = "export the prompt again, or read it with the version that wrote it"
        raise ValueError(other_format(path, found, FORMAT, advice))
    try:
        return Facts.model_validate(state)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path} is damaged: {place or 'prompt'}: {reason(first)}") from None


def _vectors(folder: Path, facts: Facts) -> NDArray[np.float32]:
    path, content = folder / VECTORS, _content(folder, VECTORS)
    if hashlib.sha256(content).hexdigest() != facts.sha256:
        raise ValueError(
            f"{path} is damaged, or belongs to another prompt: its SHA-256 is not the one in "
            f"{FACTS}"
        )
    try:
        tensors = safetensors.numpy.load(content)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    vectors = tensors.get(TENSOR)
    if vectors is None or vectors.dtype != np.float32 or vectors.shape != facts.shape:
        found = {name: (tensor.shape, str(tensor.dtype)) for name, tensor in tensors.items()}
        raise ValueError(
            f"{path} holds {found}; {FACTS} says one tensor {TENSOR!r} of shape {facts.shape}, "
            "float32"
        )
    return vectors
