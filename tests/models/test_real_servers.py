"""Real servers with the default model, where the package that has one is installed."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from rlprompt._utils.assets import fetch
from rlprompt.models.access import ServerError
from rlprompt.models.lm import FrozenLM
from rlprompt.models.served_lm import ServedLM
from rlprompt.prompt import TextPrompt
from rlprompt.template import Template

TEMPLATE = Template("{text} {prompt}")
ROWS = ({"text": "A wonderful film, I loved it."}, {"text": "A dull and stupid film."})
PROMPT = TextPrompt(" It was")


@pytest.fixture
def llama_cpp() -> Iterator[str]:
    if not importlib.util.find_spec("xllamacpp"):
        pytest.skip("xllamacpp, which brings the server of llama.cpp along, is not installed")
    xllamacpp: Any = importlib.import_module("xllamacpp")
    settings = xllamacpp.CommonParams()
    settings.model.path = str(fetch("smollm2-135m"))
    settings.n_ctx, settings.n_parallel, settings.warmup = 1024, 2, False
    server = xllamacpp.Server(settings)
    yield f"{server.listening_address}/v1"
    del server


@pytest.mark.slow
def test_a_server_that_repeats_texts_scores_as_here() -> None:
    """Against one that was started by hand on the default model: `vllm serve FOLDER`, float32."""
    if not (url := os.environ.get("RLPROMPT_ECHO_SERVER")):
        pytest.skip("RLPROMPT_ECHO_SERVER names no server of the default model")
    there = ServedLM.connect(url)
    assert there.abilities.echo

    def scored(lm: FrozenLM) -> torch.Tensor:
        words = [TEMPLATE.answer_ids(lm, word) for word in (" great", " not good at all")]
        return lm.score([PROMPT], [TEMPLATE.query(row, lm, words) for row in ROWS])

    here = FrozenLM.load("smollm2-135m", device="cpu", dtype="float32")
    torch.testing.assert_close(scored(there), scored(here), atol=1e-3, rtol=0)


@pytest.mark.slow
def test_the_server_of_llama_cpp_tells_first_tokens_and_writes_as_here(
    llama_cpp: str,
) -> None:
    default_lm = FrozenLM.load("smollm2-135m", device="cpu", dtype="float32")
    lm = ServedLM.connect(llama_cpp)
    assert (lm.abilities.texts, lm.abilities.chats, lm.abilities.echo) == (True, True, False)
    assert lm.abilities.top_of_text >= 20
    assert lm.n_parameters == default_lm.n_parameters

    def scored(lm: FrozenLM) -> torch.Tensor:
        words = [TEMPLATE.answer_ids(lm, word) for word in (" a", " the")]
        return lm.score([PROMPT], [TEMPLATE.query(row, lm, words) for row in ROWS])

    # It multiplies in 4 and 8 bits, and here all is float32.
    torch.testing.assert_close(scored(lm), scored(default_lm), atol=0.3, rtol=0)
    written = [
        [answer.text for answer in one.generate([PROMPT], queries, max_new_tokens=6)[0]]
        for one in (lm, default_lm)
        for queries in [[TEMPLATE.query(row, one) for row in ROWS]]
    ]
    assert written[0] == written[1]
    two_tokens = [TEMPLATE.answer_ids(lm, " xylophonist")]
    with pytest.raises(ServerError, match="likeliest first tokens alone"):
        lm.score([PROMPT], [TEMPLATE.query(ROWS[0], lm, two_tokens)])
