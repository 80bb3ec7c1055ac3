"""Writes with any Hugging Face model, one row a sequence.

transformers' own `generate` is run on rows of one length, so that nothing is padded: that holds for
layers of every kind, recurrent ones and sliding windows too. Settings that a checkpoint brings
along (sampling, penalties, suppressed tokens) are left out; what an answer is, `Decoding` says.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
)

from rlprompt.models.decoding import AnswerEnd, Draws, Generated
from rlprompt.models.examination import agree, some_ids
from rlprompt.models.memory import out_of_memory, split_evenly
from rlprompt.models.plain import PlainScorer
from rlprompt.models.scorer import embed, to_device
from rlprompt.models.weights import input_device
from rlprompt.template import Query
from rlprompt.types import Ids

logger = logging.getLogger(__name__)


class PlainGenerator:
    """Writes with any causal or encoder-decoder model.

    Args:
        scorer: Scores it.
    """

    def __init__(self, scorer: PlainScorer) -> None:
        self.scorer, self.model, self.memory = scorer, scorer.model, scorer.memory

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[Ids],
        vectors: Tensor | None,
        queries: Sequence[Query],
        draws: Draws,
        end: AnswerEnd,
    ) -> list[Generated]:
        """See `Generator.generate`."""
        texts = [
            query.head_ids + prompt + query.tail_ids for prompt in prompts for query in queries
        ]
        starts = [self.scorer.decoder_start(query) for query in queries]
        answers: dict[int, Generated] = {}

        def step(pairs: list[int]) -> None:
            writing = _Writing(end, draws[pairs], len(pairs))
            begun = [starts[pair % len(queries)] for pair in pairs]
            self._run([texts[pair] for pair in pairs], begun, vectors, writing)
            answers.update(zip(pairs, writing.whole(), strict=True))

        alike: dict[tuple[int, int], list[int]] = {}
        for pair, text in enumerate(texts):
            alike.setdefault((len(text), len(starts[pair % len(queries)])), []).append(pair)
        for (length, _), pairs in alike.items():
            most = self.memory.tokens() // (length + end.decoding.max_new_tokens)
            for part in split_evenly(len(pairs), most):
                self.memory.run(pairs[part.start : part.stop], step)
        return [answers[pair] for pair in range(len(texts))]

    def _run(
        self,
        texts: Sequence[Ids],
        starts: Sequence[Ids],
        vectors: Tensor | None,
        writing: _Writing,
    ) -> None:
        ids = to_device(np.array(texts), input_device(self.model))
        fed = (
            {"input_ids": ids}
            if vectors is None
            else {"inputs_embeds": embed(self.model, ids, vectors)}
        )
        # What `generate` hands on begins with the text's ids, if it was fed ids, or with the
        # decoder's first tokens.
        if self.scorer.kind == "encoder-decoder":
            writing.n_before = len(starts[0])
            fed["decoder_input_ids"] = to_device(np.array(starts), input_device(self.model))
        elif vectors is None:
            writing.n_before = ids.shape[1]
        fed["attention_mask"] = torch.ones_like(ids)
        legs = self._legs(ids.shape[1], writing.end.decoding.max_new_tokens)
        with self.scorer.kernels.applied(), _bare(self.model, self.scorer.start):
            goes_on = self._goes_on  # which is asked on short texts
            self.scorer.sparse.attend_as_alone(ids.shape[1])
            if not goes_on:
                self._read_again(fed, writing)
                return
            for n_new in legs:
                written = cast(Any, self.model).generate(
                    **fed,
                    max_new_tokens=n_new,
                    do_sample=False,
                    logits_processor=LogitsProcessorList([_Choice(writing)]),
                    stopping_criteria=StoppingCriteriaList([_End(writing)]),
                )
                if writing.is_done:
                    return
                fed = self._gone_on(fed, written, writing)  # what was read is read again

    def _legs(self, n_text: int, n_new: int) -> list[int]:
        """How many tokens to write before each limit and after the last, one at least each."""
        cuts = [b + 1 - n_text for b in self.scorer.rope_limits if n_text <= b < n_text + n_new - 1]
        return [b - a for a, b in pairwise([0, *cuts, n_new])]

    def _gone_on(
        self, fed: dict[str, Tensor], written: Tensor, writing: _Writing
    ) -> dict[str, Tensor]:
        """What `generate` is fed to go on behind what it has written."""
        new = written[:, writing.n_before :]
        writing.earlier = [a + b for a, b in zip(writing.earlier, new.tolist(), strict=True)]
        if "input_ids" in fed:
            fed, writing.n_before = {"input_ids": written}, written.shape[1]
        else:
            more = embed(self.model, new, None).to(fed["inputs_embeds"])
            fed = {"inputs_embeds": torch.cat([fed["inputs_embeds"], more], 1)}
        (given,) = fed.values()
        return fed | {"attention_mask": given.new_ones(given.shape[:2], dtype=torch.int64)}

    @cached_property
    def _goes_on(self) -> bool:
        """Whether `generate` writes on as the model itself does that reads all again.

        Some types count positions otherwise there (RoBERTa, M2M-100), and of some it cannot be
        asked at all.
        """
        model: Any = self.model
        ids = some_ids(model, 14).view(2, 7)
        fed = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        place = "input_ids"
        if self.scorer.kind == "encoder-decoder":
            place = "decoder_input_ids"
            fed[place] = torch.tensor([self.scorer.start] * 2, device=input_device(model))
        try:
            written = model.generate(
                **fed,
                max_new_tokens=4,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
            )
        except Exception as error:
            if out_of_memory(error):
                raise
            logger.info(
                "%s is read again for every token that it writes: %s",
                self.model.config.model_type,
                error,
            )
            return False
        for step, logits in enumerate(written.logits):
            fed[place] = written.sequences[:, : written.sequences.shape[1] - 4 + step]
            if not agree(logits[None], self._next(fed)[None]):
                logger.info(
                    "%s is read again for every token that it writes", self.model.config.model_type
                )
                return False
        return True

    def _next(self, fed: dict[str, Tensor]) -> Tensor:
        """Logits (B, V) of the next token, with nothing kept from the last one."""
        n_given = fed.get("input_ids", fed.get("inputs_embeds", fed["attention_mask"])).shape[1]
        mask = fed["attention_mask"].new_ones((len(fed["attention_mask"]), n_given))
        model: Any = self.model
        logits: Tensor = model(**fed | {"attention_mask": mask}, use_cache=False).logits
        return logits[:, -1]

    def _read_again(self, fed: dict[str, Tensor], writing: _Writing) -> None:
        """Write with all that stands there read again for every token."""
        decoded, soft = "decoder_input_ids" in fed, "inputs_embeds" in fed
        ids = fed["decoder_input_ids" if decoded else "input_ids"] if decoded or not soft else None
        n_rows = len(fed["attention_mask"])
        written = torch.zeros((n_rows, 0), dtype=torch.int64, device=input_device(self.model))
        choose, end = _Choice(writing), _End(writing)
        while True:
            so_far = written if ids is None else torch.cat([ids, written], 1)
            if decoded:
                now = fed | {"decoder_input_ids": so_far}
            elif ids is None:
                more = embed(self.model, written, None).to(fed["inputs_embeds"])
                now = fed | {"inputs_embeds": torch.cat([fed["inputs_embeds"], more], 1)}
            else:
                now = fed | {"input_ids": so_far}
            chosen = choose(so_far, self._next(now)).argmax(-1, keepdim=True)
            written = torch.cat([written, chosen], 1)
            so_far = torch.cat([so_far, chosen], 1)
            if bool(end(so_far, chosen).all()):
                return


@contextmanager
def _bare(model: PreTrainedModel, start: Ids) -> Iterator[None]:
    """Without the checkpoint's own settings, which `generate` takes for all that is not said."""
    holder = cast(Any, model)
    before = holder.generation_config
    config = model.config
    make: Any = GenerationConfig  # not annotated
    holder.generation_config = make(
        pad_token_id=getattr(config, "pad_token_id", None) or 0,
        decoder_start_token_id=start[0] if start else None,
    )
    try:
        yield
    finally:
        holder.generation_config = before


class _Writing:
    """The answers of one batch as they grow.

    Attributes:
        n_before: Ids that stand before the new ones where `generate` hands ids on.
        earlier: What was written of each row before `generate` was called.
        answers: Those that are whole.
    """

    def __init__(self, end: AnswerEnd, draws: Draws, n_rows: int) -> None:
        self.end, self.draws = end, draws
        self.answers: list[Generated | None] = [None] * n_rows
        self.n_before = 0
        self.earlier: list[list[int]] = [[] for _ in range(n_rows)]

    @property
    def is_done(self) -> bool:
        """Whether all answers are whole."""
        return None not in self.answers

    def whole(self) -> list[Generated]:
        """All answers; the length ends the last of them."""
        return [answer for answer in self.answers if answer is not None]


class _Choice(LogitsProcessor):
    """Leaves nothing to choose but the token that `Decoding.choose` takes."""

    def __init__(self, writing: _Writing) -> None:
        self.writing = writing

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        step = len(self.writing.earlier[0]) + input_ids.shape[1] - self.writing.n_before
        chosen = self.writing.end.choose(scores, self.writing.draws[:, step], step)
        return torch.full_like(scores, -torch.inf).scatter(-1, chosen[:, None], 0)


class _End(StoppingCriteria):
    """Ends the rows whose answers are whole."""

    def __init__(self, writing: _Writing) -> None:
        self.writing = writing

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        answers = self.writing.answers
        for row, ids in enumerate(input_ids[:, self.writing.n_before :].tolist()):
            if answers[row] is None:
                answers[row] = self.writing.end.finished(self.writing.earlier[row] + ids)
        return torch.tensor([answer is not None for answer in answers], device=input_ids.device)
