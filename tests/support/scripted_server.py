"""An OpenAI-compatible server on this machine: a tiny model that answers, and faults to order."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import torch
from tiny import tiny_lm

from rlprompt.models.lm import FrozenLM
from rlprompt.models.served import api

KEY_ENV = "SCRIPTED_KEY"
Json = dict[str, Any]
Fault = Callable[["Handler"], None]


@dataclass
class Script:
    """What the server does.

    Attributes:
        models: Names that it lists; the first answers to all of them.
        lists: Whether it can say which models it has.
        lm: What writes and tells log-likelihoods; chats are its contents, joined by line breaks.
        key: What it wants, or "".
        texts: Whether it has /completions.
        chats: Whether it has /chat/completions.
        newer: Whether chats call `max_tokens` `max_completion_tokens`.
        echo: Whether it repeats texts with log-probabilities.
        top: How many likeliest first tokens it tells at most.
        answers_as: The model that answers bear; "" for the one that was asked.
        system: The `system_fingerprint` of answers.
        shifted: Whether it repeats texts with the log-probabilities of the place after.
        counts: Whether it says how many tokens an answer took.
        listing: More of what it says of a model.
        faults: Done in the place of the next answers, in order; None answers.
        log: All requests to write, as (path, content), and `keys` what each had as authorisation.
        n_refused: How many of them it refused, of its own accord.
        busiest: The most requests that were under way at once.
        delay: Seconds that an answer takes.
    """

    models: list[str] = field(default_factory=lambda: ["tiny"])
    lists: bool = True
    lm: FrozenLM = field(default_factory=tiny_lm)
    key: str = ""
    texts: bool = True
    chats: bool = True
    newer: bool = False
    echo: bool = True
    top: int = 5
    answers_as: str = ""
    system: str = ""
    shifted: bool = False
    counts: bool = True
    listing: Json = field(default_factory=lambda: {"owned_by": "tests", "created": 1700000000})
    faults: list[Fault | None] = field(default_factory=list)
    log: list[tuple[str, Json]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    n_refused: int = 0
    busiest: int = 0
    delay: float = 0.0
    url: str = ""

    @property
    def asked(self) -> list[str]:
        """The requests to write, each as a text, but those that find out what the server can."""
        return [
            json.dumps([path, content], sort_keys=True)
            for path, content in self.log
            if "one two three four" not in json.dumps(content)
        ]


class Handler(BaseHTTPRequestHandler):
    """Answers one request after another of a connection."""

    protocol_version = "HTTP/1.1"
    script: Script
    lock = threading.Lock()
    busy = 0

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        if self._refused():
            return
        if not self.script.lists:
            self.say(500, b"Internal Server Error")
            return
        if self.path != "/v1/models":
            self.say(404, {"detail": "Not Found"})
            return
        entries = [{"id": name, "object": "model", **self.script.listing} for name in self._models]
        self.say(200, {"object": "list", "data": entries})

    @property
    def _models(self) -> list[str]:
        return self.script.models

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self._refused():
            return
        with self.lock:
            script, cls = self.script, type(self)
            script.log.append((self.path.removeprefix("/v1/"), content))
            script.keys.append(self.headers.get("Authorization"))
            cls.busy += 1
            script.busiest = max(script.busiest, cls.busy)
            fault = script.faults.pop(0) if script.faults else None
        try:
            time.sleep(script.delay)
            if fault is not None:
                fault(self)
            else:
                with self.lock:  # one model, and answers that depend on no company
                    status, answer = self._answer(content)
                script.n_refused += status != 200
                self.say(status, answer)
        finally:
            with self.lock:
                cls.busy -= 1

    def _refused(self) -> bool:
        key = self.script.key
        if key and self.headers.get("Authorization") != f"Bearer {key}":
            given = self.headers.get("Authorization")
            self.say(401, {"error": {"message": f"Incorrect API key provided: {given}"}})
            return True
        return False

    def say(self, status: int, answer: Any, headers: Mapping[str, str] | None = None) -> None:
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _answer(self, content: Json) -> tuple[int, Json]:
        script = self.script
        if content["model"] not in script.models:
            return 404, {"error": {"message": f"The model {content['model']!r} does not exist."}}
        chat = self.path == "/v1/chat/completions"
        if not (script.chats if chat else script.texts and self.path == "/v1/completions"):
            return 404, {"detail": "Not Found"}
        most = "max_completion_tokens" if chat and script.newer else "max_tokens"
        if most not in content:
            return 400, {"error": {"message": f"max_tokens is not supported: use {most}"}}
        if content.get("echo") and not script.echo:
            return 400, {"error": {"message": "echo is not supported"}}
        wanted = int(content.get("top_logprobs", 0) if chat else content.get("logprobs") or 0)
        if wanted > max(script.top, 1 if content.get("echo") else 0):
            return 400, {"error": {"message": f"logprobs is at most {script.top}"}}
        if chat:
            prompt = "\n".join(message["content"] for message in content["messages"])
        else:
            prompt = content["prompt"]
        return 200, self._written({**content, "max_tokens": content[most]}, prompt, wanted, chat)

    def _written(self, content: Json, prompt: str, wanted: int, chat: bool) -> Json:
        script, lm = self.script, self.script.lm
        ids, new = list(lm.encode(prompt)), list[int]()
        with torch.no_grad():
            logits = lm.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
            first = last = logits[-1]
            for _ in range(content["max_tokens"]):
                if new:
                    last = lm.model(torch.tensor([ids + new])).logits[0, -1]
                new.append(int(last.argmax()))
        text = lm.decode(new)
        for stop in content.get("stop", ()):
            text = text.partition(stop)[0]
        one: Json = {"index": 0, "finish_reason": "length", "logprobs": None}
        told = {
            lm.decode([i]): float(first[i]) for i in first.topk(max(wanted, 1)).indices.tolist()
        }
        if content.get("echo"):
            own = [None, *(float(logits[i - 1, ids[i]]) for i in range(1, len(ids)))]
            if script.shifted:
                own = [None, *(float(logits[i, ids[i]]) for i in range(1, len(ids)))]
            spelt = [lm.decode([i]) for i in ids + new]
            one["logprobs"] = {
                "tokens": spelt,
                "token_logprobs": [*own, *(float(first[i]) for i in new)],
            }
            text = prompt + text
        elif wanted and chat:
            tops = [{"token": token, "logprob": value} for token, value in told.items()]
            one["logprobs"] = {"content": [{"token": text[:1], "top_logprobs": tops}]}
        elif wanted:
            one["logprobs"] = {"tokens": [text], "top_logprobs": [told]}
        one |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        answer: Json = {
            "object": "chat.completion" if chat else "text_completion",
            "model": script.answers_as or content["model"],
            "choices": [one],
        }
        if script.system:
            answer["system_fingerprint"] = script.system
        if script.counts:
            answer["usage"] = {"prompt_tokens": len(ids), "completion_tokens": len(new)}
        return answer


def status(code: int, message: str = "not now", **headers: str) -> Fault:
    """Answers so, with headers such as `Retry_After="1"`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: handler.say(code, {"error": {"message": message}}, named)


def says(answer: Any) -> Fault:
    """Answers 200 with this, JSON or bytes."""
    return lambda handler: handler.say(200, answer)


def hang(seconds: float) -> Fault:
    """Answers after a while."""

    def wait(handler: Handler) -> None:
        time.sleep(seconds)
        handler.close_connection = True

    return wait


def drop(handler: Handler) -> None:
    """Closes the connection without an answer."""
    handler.close_connection = True


def half(handler: Handler) -> None:
    """Begins an answer and closes the connection."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [{"te')
    handler.close_connection = True


@contextmanager
def serving(**fields: Any) -> Iterator[Script]:
    """A server with a script, for as long as the context is open; clients wait next to nothing."""
    script = Script(**fields)
    handler = type("Scripted", (Handler,), {"script": script, "busy": 0, "lock": threading.Lock()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    script.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(api, "FIRST_WAIT", 0.002)
            yield script
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
