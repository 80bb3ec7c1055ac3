"""Where an encoder-decoder's answer begins: after what `generate` puts before it."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
import transformers
from tiny import tiny_model, tiny_tokenizer
from transformers import PreTrainedTokenizerBase

from rlprompt.models.lm import FrozenLM
from rlprompt.prompt import TokenPrompt
from rlprompt.template import Query, Template
from rlprompt.types import Ids

PROMPT = TokenPrompt((20, 21))


def bart(**settings: Any) -> FrozenLM:
    config = transformers.BartConfig(
        vocab_size=300, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, init_std=0.3,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model: Any = transformers.BartForConditionalGeneration(config)
    model.eval()
    for name, value in settings.items():
        setattr(model.generation_config, name, value)
    return FrozenLM(model, tiny_tokenizer("t5"), "bart")


def t5(sentinels: bool = True) -> FrozenLM:
    tokenizer: Any = tiny_tokenizer("t5")
    if sentinels:
        tokenizer.add_special_tokens({"extra_special_tokens": ["<extra_id_0>", "<extra_id_1>"]})
    return FrozenLM(
        tiny_model("t5", vocab_size=len(tokenizer)), cast(PreTrainedTokenizerBase, tokenizer), "t5"
    )


@torch.no_grad()
def plain(lm: FrozenLM, query: Query, start: Ids) -> torch.Tensor:
    """Log-likelihoods of the candidates behind this start of the decoder."""
    text, found = (*query.head_ids, *PROMPT.ids, *query.tail_ids), []
    for answer in query.candidates:
        fed = torch.tensor([[*start, *answer[:-1]]])
        logits = cast(Any, lm.model)(input_ids=torch.tensor([text]), decoder_input_ids=fed).logits
        logs = logits[0, len(start) - 1 :].log_softmax(-1)
        found.append(sum(logs[i, token] for i, token in enumerate(answer)))
    return torch.stack([torch.as_tensor(one) for one in found])


class TestForcedToken:
    query = Query((5, 6, 7), (8, 2), ((9,), (11, 13)))

    def test_comes_before_a_label(self) -> None:
        lm = bart(forced_bos_token_id=1)
        found, expected = lm.score([PROMPT], [self.query])[0, 0], plain(lm, self.query, (2, 1))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
        assert float((expected - plain(lm, self.query, (2,))).abs().max()) > 0.01

    def test_comes_before_what_is_written(self) -> None:
        lm = bart(forced_bos_token_id=1, forced_eos_token_id=None)
        text = torch.tensor([[*self.query.head_ids, *PROMPT.ids, *self.query.tail_ids]])
        model: Any = lm.model
        written = model.generate(text, max_new_tokens=5, do_sample=False)[0].tolist()
        assert written[:2] == [2, 1]
        answer = lm.generate([PROMPT], [self.query], max_new_tokens=4)[0][0]
        assert answer.ids == tuple(token for token in written[2:] if token != 2)

    def test_enters_the_fingerprint(self) -> None:
        digests = {bart(**s).fingerprint.digest for s in ({}, {"forced_bos_token_id": 1})}
        assert len(digests) == 2

    def test_a_decoder_without_a_start_is_refused(self) -> None:
        model: Any = tiny_model("t5")
        model.config.decoder_start_token_id = None
        model.generation_config.decoder_start_token_id = None
        model.generation_config.bos_token_id = None
        with pytest.raises(ValueError, match="does not say what its decoder starts with; set"):
            FrozenLM(model, tiny_tokenizer("t5"), "t5")


class TestSentinel:
    template = Template("{text} {prompt} {mask} .")

    def query(self, lm: FrozenLM, template: Template) -> Query:
        words = [template.answer_text(word, lm.kind) for word in ("good", "bad")]
        answers = [template.answer_ids(lm, word) for word in words]
        return template.query({"text": "the film"}, lm, answers)

    def test_stands_in_the_text_and_begins_the_answer(self) -> None:
        lm = t5()
        query, gap = self.query(lm, self.template), lm.mask_id
        assert gap is not None
        assert (lm.mask_token, query.tail_ids.count(gap)) == ("<extra_id_0>", 1)
        assert query.candidates == (lm.encode(" good"), lm.encode(" bad"))
        found = lm.score([PROMPT], [query])[0, 0]
        torch.testing.assert_close(found, plain(lm, query, (0, gap)), rtol=0, atol=1e-4)
        answer = lm.generate([PROMPT], [query], max_new_tokens=3)[0][0]
        text = torch.tensor([[*query.head_ids, *PROMPT.ids, *query.tail_ids]])
        model: Any = lm.model
        begun = torch.tensor([[0, gap]])
        written = model.generate(text, decoder_input_ids=begun, max_new_tokens=3, do_sample=False)
        assert answer.ids == tuple(token for token in written[0, 2:].tolist() if token != 2)

    def test_an_answer_may_say_it_itself(self) -> None:
        lm = t5()
        assert lm.mask_id is not None
        query = self.query(lm, self.template)
        said = Query(query.head_ids, query.tail_ids, ((lm.mask_id, 9), (lm.mask_id, 11)))
        found = lm.score([PROMPT], [said])[0, 0]
        torch.testing.assert_close(found, plain(lm, said, (0,)), rtol=0, atol=1e-4)

    def test_a_text_without_a_gap_is_answered_as_ever(self) -> None:
        lm = t5()
        query = self.query(lm, Template("{text} {prompt}"))
        assert query.candidates == (lm.encode("good"), lm.encode("bad"))
        found = lm.score([PROMPT], [query])[0, 0]
        torch.testing.assert_close(found, plain(lm, query, (0,)), rtol=0, atol=1e-4)

    def test_a_tokenizer_without_sentinels_takes_no_mask(self) -> None:
        with pytest.raises(ValueError, match=r"tokenizer has none; leave \{mask\} out"):
            self.query(t5(sentinels=False), self.template)
