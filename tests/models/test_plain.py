from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from tiny import tiny_lm, tiny_model, tiny_tokenizer

from rlprompt.models.lm import FrozenLM
from rlprompt.models.plain import PlainScorer
from rlprompt.prompt import Prompt, TokenPrompt
from rlprompt.template import Query, Template

PROMPTS: list[Prompt] = [TokenPrompt((10 + i, 20 + i)) for i in range(6)]


def masked_query(lm: FrozenLM, n_text: int) -> Query:
    assert lm.mask_id is not None
    return Query((1, *range(5, 5 + n_text)), (lm.mask_id, 2), ((7,), (8,)))


def test_a_masked_query_without_its_mask_is_refused() -> None:
    lm = tiny_lm("bert")
    query = Query((1, 5), (2,), ((7,), (8,)))
    with pytest.raises(ValueError, match=r"at one mask, this query has 0; put \{mask\}"):
        lm.score(PROMPTS, [query])


def test_a_mask_in_a_template_needs_a_tokenizer_with_one() -> None:
    lm = tiny_lm("llama")
    with pytest.raises(ValueError, match=r"this model's tokenizer has none; leave \{mask\} out"):
        Template("{text} {prompt} {mask}").query({"text": "film"}, lm, [(5,)])


def test_a_masked_answer_stands_at_the_mask() -> None:
    lm = tiny_lm("roberta")
    answers = [lm.encode(" good"), lm.encode(" bad")]
    query = Template("{text} {prompt} It was {mask} .").query({"text": "the film"}, lm, answers)
    assert query.tail_ids.count(lm.mask_id or 0) == 1
    assert (query.head_ids[0], query.tail_ids[-1]) == (1, 2)
    assert torch.isfinite(lm.score(PROMPTS, [query])).all()


def test_rows_of_like_length_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm("bert")
    padded: list[tuple[int, int]] = []
    fed = PlainScorer._fed

    def watching(self, ids, vectors):  # type: ignore[no-untyped-def]
        padded.append((sum(map(len, ids)), max(map(len, ids)) * len(ids)))
        return fed(self, ids, vectors)

    monkeypatch.setattr(PlainScorer, "_fed", watching)
    lm.score(PROMPTS, [masked_query(lm, n) for n in (3, 90, 4, 91, 5, 40)])
    real, computed = (sum(column) for column in zip(*padded, strict=True))
    assert computed < 1.1 * real


def test_a_text_goes_through_the_encoder_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny_lm("t5")
    rows: list[int] = []
    fed = PlainScorer._fed

    def watching(self, ids, vectors):  # type: ignore[no-untyped-def]
        rows.append(len(ids))
        return fed(self, ids, vectors)

    monkeypatch.setattr(PlainScorer, "_fed", watching)
    query = Query((5, 6, 7), (2,), ((7,), (8, 9), (9, 10, 11)))
    lm.score(PROMPTS, [query])
    assert sum(rows) == len(PROMPTS)


def test_says_once_why_it_is_not_packed(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="rlprompt"):
        lm = FrozenLM(tiny_model("bloom"), tiny_tokenizer("bloom"), "blooming")
        for _ in range(2):
            lm.score(PROMPTS, [Query((5, 6), (), ((7,), (8,)))])
    assert [record.message for record in caplog.records] == [
        "blooming is scored row by row, not packed: its forward pass refused a packed input "
        "(ValueError: too many values to unpack (expected 2))"
    ]


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> Iterator[FrozenLM]:
    """A masked model on a machine where no pass may have more than 4 rows."""
    lm = FrozenLM(tiny_model("bert"), tiny_tokenizer("bert"), "crowded")
    fed = PlainScorer._fed

    def small(self, ids, vectors):  # type: ignore[no-untyped-def]
        if len(ids) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return fed(self, ids, vectors)

    with monkeypatch.context() as patch:
        patch.setattr(PlainScorer, "_fed", small)
        yield lm


def test_halves_the_pass_where_memory_runs_out(crowded: FrozenLM) -> None:
    queries = [masked_query(crowded, n) for n in (6, 7, 8)]
    scores = crowded.score(PROMPTS, queries)
    torch.testing.assert_close(scores[:1, :1], crowded.score(PROMPTS[:1], queries[:1]))
    assert scores.shape == (6, 3, 2)
