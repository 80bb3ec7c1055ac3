"""Frozen models that judge a transfer of style: what a sentence means, and which style it has.

Both run rows of one length together, so nothing is padded and a text's judgement does not depend on
its company beyond rounding. A text longer than the model takes is cut at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModel, AutoModelForSequenceClassification

from rlprompt._utils.suggest import advice
from rlprompt.models.devices import pick_device
from rlprompt.models.fingerprint import Fingerprint, take_fingerprint
from rlprompt.models.lm import FrozenLM
from rlprompt.models.loading import load
from rlprompt.types import Ids

# Tokens in one forward pass.
PASS = 2048


@dataclass(frozen=True, eq=False)
class Judge:
    """A frozen model that reads texts.

    Args:
        name: As for `FrozenLM.load`.
        model: A transformers model in evaluation mode.
        tokenizer: Its tokenizer.
    """

    name: str
    model: Any
    tokenizer: Any

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """What its judgements depend on; hashes all weights, once."""
        return take_fingerprint(self.model, self.tokenizer, self.name, "", "judge")

    def _encode(self, texts: Sequence[str]) -> list[Ids]:
        limits = [
            self.tokenizer.model_max_length,
            getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
            or 1 << 30,
        ]
        found = self.tokenizer(list(texts), truncation=True, max_length=min(limits))["input_ids"]
        return [tuple(ids) for ids in found]

    @torch.no_grad()
    def _read(self, texts: Sequence[str], step: Callable[[Tensor], Tensor]) -> Tensor:
        """`step` of ids (n, L) of one length, (n, ...), put together for all texts."""
        ids = self._encode(texts)
        out: dict[int, Tensor] = {}
        for rows in _of_one_length(ids):
            fed = torch.tensor([ids[row] for row in rows], device=self.model.device)
            out |= zip(rows, step(fed).float().cpu(), strict=True)
        return torch.stack([out[row] for row in range(len(ids))])


@dataclass(frozen=True, eq=False)
class SentenceEncoder(Judge):
    """Texts as vectors: the mean of an encoder's last hidden states.

    That is the pooling of Sentence-BERT (Reimers & Gurevych 2019, arXiv 1908.10084).
    """

    @classmethod
    def load(cls, name: str, device: str = "auto") -> SentenceEncoder:
        """An encoder of the hub or of a folder, in float32.

        Raises:
            ValueError: The name leads nowhere, or the device cannot be had.
        """
        return cls(*_loaded(name, device, AutoModel))

    @classmethod
    def of(cls, lm: FrozenLM) -> SentenceEncoder:
        """A language model as encoder; that of an encoder-decoder.

        Weaker than a model that was trained for it: the mean states of a causal model lie close
        together, whatever the text.
        """
        model: Any = lm.model
        inner = model.get_encoder() if lm.kind == "encoder-decoder" else model.base_model
        return cls(lm.name, inner, lm.tokenizer)

    def vectors(self, texts: Sequence[str]) -> Tensor:
        """Vectors of length 1, (n, H) float32 on the CPU, of texts that are not empty."""

        def mean(ids: Tensor) -> Tensor:
            hidden: Tensor = self.model(input_ids=ids).last_hidden_state
            return hidden.float().mean(1)

        return F.normalize(self._read(texts, mean), dim=-1)


@dataclass(frozen=True, eq=False)
class StyleClassifier(Judge):
    """How probable one class is to a sequence-classification model.

    Args:
        label: The class.

    Raises:
        ValueError: The model has no such class.
    """

    label: str

    def __post_init__(self) -> None:
        """Look for the class."""
        known = self._classes
        if self.label not in known:
            raise ValueError(
                f"the model {self.name} has no class {self.label!r}{advice(self.label, known)}; "
                "set style_label to its class for the target style"
            )

    @property
    def _classes(self) -> dict[str, int]:
        """The classes that the model knows, and their places."""
        return {label: int(place) for place, label in self.model.config.id2label.items()}

    @classmethod
    def load(cls, name: str, label: str, device: str = "auto") -> StyleClassifier:
        """A classifier of the hub or of a folder, in float32.

        Raises:
            ValueError: The name leads nowhere, the model has no such class, or the device cannot
                be had.
        """
        return cls(*_loaded(name, device, AutoModelForSequenceClassification), label)

    def probabilities(self, texts: Sequence[str]) -> Tensor:
        """Probability of the class, (n,) float32 in [0, 1], of texts that are not empty."""
        place = self._classes[self.label]

        def probability(ids: Tensor) -> Tensor:
            logits: Tensor = self.model(input_ids=ids).logits
            return logits.float().softmax(-1)[:, place]

        return self._read(texts, probability)


def _loaded(name: str, device: str, auto_class: Any) -> tuple[str, Any, Any]:
    where = pick_device(device)
    loaded = load(name, "float32", None, auto_class)
    model: Any = loaded.model
    return name, model.requires_grad_(False).eval().to(where), loaded.tokenizer


def _of_one_length(ids: Sequence[Ids]) -> Iterator[list[int]]:
    """Rows of one length, as many as a pass takes."""
    groups: dict[int, list[int]] = {}
    for row, own in enumerate(ids):
        groups.setdefault(len(own), []).append(row)
    for length, rows in sorted(groups.items()):
        most = max(1, PASS // length)
        for start in range(0, len(rows), most):
            yield rows[start : start + most]
