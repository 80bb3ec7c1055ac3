"""Real servers with the default model, started here."""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch

from rlprompt._utils.assets import fetch
from rlprompt.models.gguf_cache import dense_folder
from rlprompt.models.lm import FrozenLM
from rlprompt.models.served.access import ServerError
from rlprompt.models.served.lm import ServedLM
from rlprompt.prompt import TextPrompt
from rlprompt.template import Template

TEMPLATE = Template("{text} {prompt}")
ROWS = ({"text": "A wonderful film, I loved it."}, {"text": "A dull and stupid film."})
PROMPT = TextPrompt(" It was")


@pytest.fixture
def llama_cpp() -> Iterator[str]:
    xllamacpp: Any = importlib.import_module("xllamacpp")
    settings = xllamacpp.CommonParams()
    settings.model.path = str(fetch("smollm2-135m"))
    settings.n_ctx, settings.n_parallel, settings.warmup = 1024, 2, False
    server = xllamacpp.Server(settings)
    yield f"{server.listening_address}/v1"
    del server


@pytest.fixture
def transformers_serve(tmp_path: Path) -> Iterator[str]:
    """The server that transformers brings along, a process of its own."""
    folder = dense_folder(fetch("smollm2-135m"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = "127.0.0.1", free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder)]
    options = ["--host", place[0], "--port", str(place[1]), "--device", "cpu", "--dtype", "float32"]
    log = tmp_path / "server.log"
    with log.open("w") as said:
        environment = os.environ | {"HF_HUB_OFFLINE": "1"}
        server = subprocess.Popen(
            [*command, *options], stdout=said, stderr=said, env=environment, text=True
        )
    try:
        deadline = time.monotonic() + 120
        while not is_there(f"http://{place[0]}:{place[1]}/health"):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield f"http://{place[0]}:{place[1]}/v1"
    finally:
        server.kill()
        server.wait(30)


def is_there(url: str) -> bool:
    try:
        return httpx2.get(url).is_success
    except httpx2.TransportError:
        return False


def written(lm: FrozenLM, template: Template) -> list[str]:
    """The likeliest six tokens after each row."""
    queries = [template.query(row, lm) for row in ROWS]
    return [answer.text for answer in lm.generate([PROMPT], queries, max_new_tokens=6)[0]]


@pytest.mark.slow
def test_the_server_of_transformers_writes_as_here(
    transformers_serve: str, default_lm: FrozenLM
) -> None:
    # Its model's name is its folder.
    lm = ServedLM.connect(transformers_serve, str(dense_folder(fetch("smollm2-135m"))))
    assert (lm.abilities.texts, lm.abilities.chats, lm.abilities.echo) == (True, True, False)
    assert lm.abilities.top_of_text == lm.abilities.top_of_chat == 0
    for template in (TEMPLATE, Template.of({"user": TEMPLATE.text})):
        assert written(lm, template) == written(default_lm, template)
    words = [TEMPLATE.answer_ids(lm, " great")]
    with pytest.raises(ServerError, match="log-likelihood"):
        lm.score([PROMPT], [TEMPLATE.query(ROWS[0], lm, words)])


@pytest.mark.slow
def test_a_server_that_repeats_texts_scores_as_here(default_lm: FrozenLM) -> None:
    """Against one that was started by hand on the default model: `vllm serve FOLDER`, float32."""
    if not (url := os.environ.get("RLPROMPT_ECHO_SERVER")):
        pytest.skip("RLPROMPT_ECHO_SERVER names no server of the default model")
    there = ServedLM.connect(url)
    assert there.abilities.echo

    def scored(lm: FrozenLM) -> torch.Tensor:
        words = [TEMPLATE.answer_ids(lm, word) for word in (" great", " not good at all")]
        return lm.score([PROMPT], [TEMPLATE.query(row, lm, words) for row in ROWS])

    torch.testing.assert_close(scored(there), scored(default_lm), atol=1e-3, rtol=0)


@pytest.mark.slow
def test_the_server_of_llama_cpp_tells_first_tokens_and_writes_as_here(
    llama_cpp: str, default_lm: FrozenLM
) -> None:
    lm = ServedLM.connect(llama_cpp)
    assert (lm.abilities.texts, lm.abilities.chats, lm.abilities.echo) == (True, True, False)
    assert lm.abilities.top_of_text >= 20
    assert lm.n_parameters == default_lm.n_parameters

    def scored(lm: FrozenLM) -> torch.Tensor:
        words = [TEMPLATE.answer_ids(lm, word) for word in (" a", " the")]
        return lm.score([PROMPT], [TEMPLATE.query(row, lm, words) for row in ROWS])

    # It multiplies in 4 and 8 bits, and here all is float32.
    torch.testing.assert_close(scored(lm), scored(default_lm), atol=0.3, rtol=0)
    assert written(lm, TEMPLATE) == written(default_lm, TEMPLATE)
    two_tokens = [TEMPLATE.answer_ids(lm, " xylophonist")]
    with pytest.raises(ServerError, match="likeliest first tokens alone"):
        lm.score([PROMPT], [TEMPLATE.query(ROWS[0], lm, two_tokens)])
