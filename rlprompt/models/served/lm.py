"""A frozen model behind an OpenAI-compatible server: text in, text and log-likelihoods out.

Nothing of the model is here, its tokenizer neither. What stands for tokens are characters, so that
templates put texts together as they do for a model on this machine, letter by letter, and the
server's own tokenizer reads the whole. Prompts are texts, therefore; what needs tokens, vectors or
gradients is refused. The messages of a chat go to the server as messages, and its own chat template
writes them.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial, reduce
from typing import Any, NoReturn

import torch
from torch import Tensor

from rlprompt._utils.chats import Message
from rlprompt.models.decoding import Decoding, Ended, Generated
from rlprompt.models.fingerprint import SERVED, TOLD, Fingerprint
from rlprompt.models.lm import FrozenLM
from rlprompt.models.noise import Noise
from rlprompt.models.scorer import Over
from rlprompt.models.served import characters
from rlprompt.models.served.abilities import (
    CHATS,
    TEXTS,
    Endpoint,
    Request,
    Served,
    echoed,
    first_tokens,
    written,
)
from rlprompt.models.served.access import Access, ServerError
from rlprompt.models.served.api import Json
from rlprompt.models.served.bill import Answers, Bill, InMemory, Prices, Usage
from rlprompt.prompt import Prompt, TokenPrompt
from rlprompt.template import ASSISTANT, Query
from rlprompt.types import Ids, Piece, Written

logger = logging.getLogger(__name__)


class Asked(Exception):  # noqa: N818  # not an error: what was wanted
    """A server would have been asked; see `ServedLM.unasked`."""


class ServedLM(FrozenLM):
    """A model on a server, as far as tasks of classes and of written answers need one.

    ```python
    lm = ServedLM.connect("http://127.0.0.1:8000/v1")  # asks what it is, and what it can do
    result = search(task, lm, Instructions(), budget=3200)
    ```

    Args:
        served: The model on its server.
        name: What results call it; "" for its name there.
        prices: Of its tokens, if money is to be shown.

    Attributes:
        answers: Where answers are kept, in memory unless a study gives it a place.
        prices: As given.
        abilities: What the server can do.
    """

    served = True

    def __init__(self, served: Served, name: str = "", prices: Prices | None = None) -> None:
        self.server = served
        self.name = name or served.name
        self.prices = prices
        self.abilities = served.abilities
        self.revision, self.kind = "", "causal"
        self.mask_id, self.mask_token = None, ""
        self.prefix_ids, self.suffix_ids = (), ()
        self.options: dict[str, Any] = {}
        self.dtype_reason = "the server's"
        self.obstacle = "it is on a server"
        self.tells_next = False
        self.context = None
        told = served.told.get("n_params", "")
        self.n_parameters = int(told) if told.isdecimal() else 0
        self.fingerprint = self._fingerprint()
        self.own_noise = Noise(0.0, 0.0, 0.0, 0.0, 0.0)
        self._asked, self._sends = served.asked, True
        found_out = reduce(Bill.plus, served.asked, Bill())
        self.answers: Answers = InMemory({}, {self.digest: found_out})

    @classmethod
    def connect(
        cls,
        url: str,
        name: str = "",
        *,
        title: str = "",
        prices: Prices | None = None,
        **access: Any,
    ) -> ServedLM:
        """The model of a server.

        Args:
            url: Where its API begins, such as `http://127.0.0.1:8000/v1`.
            name: The model's name there; "" for the only one.
            title: What results call it; "" for that name.
            prices: Of its tokens, if money is to be shown.
            **access: More of `Access`: `key_env`, `concurrency`, `timeout`, `attempts`.

        Raises:
            ValueError: A setting is none, there is no such server or model, it wants a key, or it
                can do nothing that is of use (`ServerError`).
        """
        found = cls(Served.found(Access(url, **access), name), title, prices)
        logger.info("%s at %s: %s", found.name, found.where, found.abilities)
        logger.info(
            "%s at %s: its weights cannot be seen; what the server says of it is compared: %s",
            *(found.name, found.where, json.dumps(found.server.told)),
        )
        return found

    def again(self) -> Callable[[str], ServedLM]:
        """What connects to the same model in another process, with the key of that process."""
        named = {"name": self.server.name, "title": self.name, "prices": self.prices}
        return partial(_connected, {**asdict(self.server.api.access), **named})

    def _fingerprint(self) -> Fingerprint:
        """What the server says of the model, which is not to say that it is true."""
        said = {"url": self.where, **self.server.told}
        return Fingerprint(
            model=self.server.name,
            revision="",
            kind=SERVED,
            weights=f"{TOLD}{json.dumps(said, sort_keys=True)}",
            tokenizer="the server's",
            dtype="the server's",
            quantisation="",
        )

    @property
    def where(self) -> str:
        """The server's address."""
        return self.server.api.access.url

    @property
    def digest(self) -> str:
        """Hash of what the server says of the model."""
        return self.fingerprint.digest

    @property
    def bill(self) -> Bill:
        """What answers so far come to, those of earlier processes included that were kept."""
        return self.answers.bill(self.digest)

    @property
    def cost(self) -> float | None:
        """The bill's money, None without prices."""
        return None if self.prices is None else self.bill.cost(self.prices)

    def keep_answers(self, answers: Answers) -> None:
        """Look for answers, and keep them, there from now on."""
        self.answers = answers
        for usage in self._asked:  # what finding out took is on that bill as well
            answers.put(uuid.uuid4().bytes, self.digest, {}, usage)
        self._asked = []

    def let_go(self) -> None:
        """Keep answers in memory again; the bill stays."""
        self.answers = InMemory({}, {self.digest: self.bill})

    def unasked(self) -> ServedLM:
        """The model, sending nothing: in the place of its first answer is `Asked`."""
        made = copy.copy(self)
        made._sends = False
        return made

    # Text as ids.

    def encode(self, text: str, *, plain: bool = False) -> Ids:
        """Characters of a text, as ids."""
        return self.spell((Piece(text, "field"),))

    def spell(
        self, pieces: Sequence[Piece], after: Sequence[Piece] = (), *, cut: bool = False
    ) -> Ids:
        """Characters of pieces, wherever they stand.

        Raises:
            ControlTokenError: A field holds a character that stands for the border of a message.
        """
        return characters.spelt(pieces)

    def decode(self, ids: Sequence[int], after: Sequence[int] = ()) -> str:
        """The text of characters.

        Raises:
            ServerError: They are no characters.
        """
        if not characters.are_characters(ids):
            self._refuse("token prompts", "it is given text; search texts (prompt: {kind: text})")
        return characters.read(ids)

    def chat(self, messages: tuple[Message, ...]) -> str:
        """The messages of a chat in one text, from which they are read again when it is sent.

        Raises:
            ServerError: The server answers no chats, or the last message is how an answer begins.
        """
        if not self.abilities.chats:
            self._refuse("the messages of a chat", "it goes on with texts: write a template as one")
        if messages[-1].role == ASSISTANT:
            self._refuse(
                "a last message of the assistant",
                "an OpenAI-compatible server writes that message itself; leave it out",
            )
        return characters.joined(messages)

    def is_dated(self, messages: tuple[Message, ...]) -> bool:
        """Not that one could know: the server writes the chat."""
        return False

    # What tasks ask.

    def keep(self, queries: Sequence[Query]) -> None:
        """Nothing: what is read before the prompt is the server's business."""

    def score(
        self, prompts: Sequence[Prompt], queries: Sequence[Query], *, over: Over = "vocabulary"
    ) -> Tensor:
        """See `FrozenLM.score`; every candidate of every pair is a request, if it is new.

        Raises:
            ServerError: The server tells no log-likelihoods of these, or does not answer.
            ValueError: Nothing to score, or unequal numbers of candidates.
        """
        n_candidates = {len(query.candidates) for query in queries}
        if not prompts or len(n_candidates) != 1 or 0 in n_candidates:
            raise ValueError(
                "nothing to score: give a prompt and a query or more, each with as many candidates"
            )
        pairs = [(prompt, query) for prompt in prompts for query in queries]
        found = torch.tensor(self._logliks(pairs), dtype=torch.float64)
        found = found.view(len(prompts), len(queries), -1)
        return (found.log_softmax(-1) if over == "candidates" else found).float()

    def score_pairs(
        self, pairs: Sequence[tuple[Prompt, Query]], *, over: Over = "vocabulary"
    ) -> list[Tensor]:
        """See `FrozenLM.score_pairs`; errors as for `score`."""
        found = [torch.tensor(own, dtype=torch.float64) for own in self._logliks(pairs)]
        return [(one.log_softmax(-1) if over == "candidates" else one).float() for one in found]

    def generate(
        self,
        prompts: Sequence[Prompt],
        queries: Sequence[Query],
        *,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
        min_new_tokens: int = 0,
    ) -> list[list[Generated]]:
        """See `FrozenLM.generate`; the ids of an answer are its characters.

        Where a temperature has the server draw, it is given a seed; what it makes of that is its
        own affair, and an answer that was kept is given again.

        Raises:
            ServerError: The server does not write after such texts, or does not answer.
            ValueError: A setting is out of its range, or none that servers have.
        """
        decoding = Decoding(max_new_tokens, stop, temperature, top_k, top_p, seed, min_new_tokens)
        requests = [
            self._writing(self._text(prompt, query), decoding, prompt.digest)
            for prompt in prompts
            for query in queries
        ]
        answers = [self._generated(answer, decoding) for answer in self._answers(requests)]
        n = len(queries)
        return [answers[i * n : (i + 1) * n] for i in range(len(prompts))]

    def write(self, requests: Sequence[str], decoding: Decoding) -> list[Written]:
        """Answers to requests, each a person's message, or a text where it answers no chats.

        Args:
            requests: (R,) of them; equal ones are answered apart where a temperature draws.
            decoding: How it is to write.

        Raises:
            ServerError: As for `generate`.
        """
        asked, earlier = list[Request](), dict[str, int]()
        for request in requests:
            again = earlier[request] = earlier.get(request, -1) + 1
            text = f"{request}\n\n"
            if self.abilities.chats:
                text = self.chat((Message("user", request),))
            asked.append(self._writing(text, decoding, str(again)))
        return [
            Written(self._generated(answer, decoding).text, answer["in"] or 0, answer["out"] or 0)
            for answer in self._answers(asked)
        ]

    def _text(self, prompt: Prompt, query: Query) -> str:
        """All that is before the answer."""
        fed = self.fed(prompt)
        if not isinstance(fed, TokenPrompt):
            kind = "prefix prompts" if fed.kind == "prefix" else "soft prompts"
            self._refuse(kind, "it is given text; search texts (prompt: {kind: text})")
        return self.decode(query.head_ids + fed.ids + query.tail_ids)

    def _writing(self, text: str, decoding: Decoding, apart: str) -> Request:
        """A request to write what follows."""
        if decoding.min_new_tokens or decoding.top_k:
            self._refuse(
                "min_new_tokens and top_k", "OpenAI's API has no such settings; leave them out"
            )
        settings: Json = {"max_tokens": decoding.max_new_tokens, "temperature": 0}
        if decoding.temperature:
            state = repr((decoding.seed, apart, text)).encode()
            drawn = int.from_bytes(hashlib.blake2b(state, digest_size=4).digest()) >> 1
            settings |= {"temperature": decoding.temperature, "seed": drawn}
            settings |= {"top_p": decoding.top_p} if decoding.top_p < 1 else {}
        if decoding.stop:
            settings["stop"] = list(decoding.stop)

        def read(answer: Json) -> Json:
            text, ended = written(answer, self.where)
            usage = Usage.of(answer)
            return {"text": text, "ended": ended, "in": usage.tokens_in, "out": usage.tokens_out}

        path, content = self._place(text)
        return Request(path, {**content, **settings}, read)

    def _place(self, text: str) -> tuple[Endpoint, Json]:
        """Where a text goes, and as what."""
        if messages := characters.parted(text):
            return CHATS, {"messages": [message._asdict() for message in messages]}
        if not self.abilities.texts:
            self._refuse(
                "plain texts", "it answers chats: write the template as messages, {user: '...'}"
            )
        return TEXTS, {"prompt": text}

    @staticmethod
    def _generated(answer: Mapping[str, Any], decoding: Decoding) -> Generated:
        """What was written, cut at the first stop string: some servers know none."""
        text, ended = str(answer["text"]), answer["ended"]
        places = [place for stop in decoding.stop if (place := text.find(stop)) >= 0]
        text = text[: min(places)] if places else text
        end: Ended = "length" if ended == "length" and not places else "end token"
        return Generated(characters.spelt([Piece(text)]), text, end)

    def _logliks(self, pairs: Sequence[tuple[Prompt, Query]]) -> list[list[float]]:
        """Log-likelihoods of each pair's candidates, nats."""
        texts = [self._text(prompt, query) for prompt, query in pairs]
        words = [[self.decode(ids) for ids in query.candidates] for _, query in pairs]
        requests = list[Request]()
        for text, own in zip(texts, words, strict=True):
            requests += self._scoring(text, own)
        answers = iter(self._answers(requests))
        found = list[list[float]]()
        for text, own in zip(texts, words, strict=True):
            if self._echoes(text):
                found.append([float(next(answers)["loglik"]) for _ in own])
            else:
                found.append(self._among(next(answers)["top"], own, text))
        return found

    def _echoes(self, text: str) -> bool:
        return self.abilities.echo and not characters.parted(text)

    def _n_top(self, text: str) -> int:
        """How many of the likeliest first tokens are told after a text."""
        return self.abilities.top_of_chat if characters.parted(text) else self.abilities.top_of_text

    def _scoring(self, text: str, words: Sequence[str]) -> list[Request]:
        """The requests that tell log-likelihoods of words after a text."""
        path, content = self._place(text)
        once: Json = {"max_tokens": 1, "temperature": 0}
        if self._echoes(text):

            def reader(whole: str, word: str) -> Callable[[Json], Json]:
                return lambda answer: {"loglik": echoed(answer, whole, word, self.where)}

            asked: Json = {"echo": True, "logprobs": 1, **once}
            return [
                Request(path, {"prompt": text + word, **asked}, reader(text + word, word))
                for word in words
            ]
        n_top = self._n_top(text)
        if not n_top:
            what = "chat" if path == CHATS else "text"
            self._refuse(
                f"log-likelihoods after a {what}",
                f"it tells none ({self.abilities}); take a task in which the model writes and "
                "`reward: exact_match`, or a server that repeats texts with their log-probabilities"
                " (vLLM, llama-cpp-python) and a template that is one text",
            )
        told: Json = {"logprobs": n_top}
        if path == CHATS:
            told = {"logprobs": True, "top_logprobs": n_top}

        def top(answer: Json) -> Json:
            if found := first_tokens(answer, self.where):
                return {"top": {word: found[word] for word in words if word in found}}
            raise ServerError(
                f"the server at {self.where} gave an answer without the log-probabilities of first "
                "tokens, which it told before; see whether it was started with other settings"
            )

        return [Request(path, {**content, **told, **once}, top, tuple(words))]

    def _among(self, top: Mapping[str, float], words: Sequence[str], text: str) -> list[float]:
        """Log-likelihoods of words, each of which has to be one of the likeliest first tokens."""
        n_top = self._n_top(text)
        missing = [word for word in words if word not in top]
        if missing:
            after = f"...{characters.plain(text)[-60:]}"
            raise ServerError(
                f"the server at {self.where} tells the log-likelihoods of the {n_top} likeliest "
                f"first tokens alone, and {missing[0]!r} is none of them after {after!r}, so it "
                "has none that is exact; choose label words that the model is likely to write, "
                "each one token, a task in which it writes (`reward: exact_match`), or a server "
                "that repeats texts with their log-probabilities (vLLM, llama-cpp-python)"
            )
        return [min(0.0, top[word]) for word in words]

    def _answers(self, requests: Sequence[Request]) -> list[Mapping[str, Any]]:
        """What was answered to each request: kept answers, and new ones, kept as they arrive."""
        if not self._sends:
            raise Asked
        keys = [hashlib.sha256(f"{self.digest} {one.kind}".encode()).digest() for one in requests]
        found: dict[bytes, Mapping[str, Any]] = {}
        new: dict[bytes, Request] = {}
        for key, request in zip(keys, requests, strict=True):
            if key in found or key in new:
                continue
            kept = self.answers.get(key)
            if kept is None:
                new[key] = request
            else:
                found[key] = kept

        def ask(key: bytes) -> Json:
            return self.server.post(new[key].path, new[key].content)

        def keep(key: bytes, answer: Json) -> None:
            if self.server.note_system(answer):
                logger.warning(
                    "%s: what computes the answers has changed (system_fingerprint %s, before %s), "
                    "so new ones may differ from those that are kept",
                    *(self.name, self.server.systems[-1], self.server.systems[-2]),
                )
            found[key] = new[key].read(answer)
            self.answers.put(key, self.digest, found[key], Usage.of(answer))

        self.server.api.each(ask, list(new), keep)
        return [found[key] for key in keys]

    # What a server cannot be asked.

    def _refuse(self, what: str, why: str) -> NoReturn:
        raise ServerError(f"{self.name}, served by {self.where}, takes no {what}: {why}")

    def _refuse_vectors(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse what needs more of a model than texts.

        Raises:
            ServerError: Always.
        """
        self._refuse(
            "vectors, gradients, training or look at its weights",
            "they are on the server; search texts (prompt: {kind: text}) by a method that needs "
            "rewards alone, or load the model here",
        )

    embeddings = nearest_tokens = keys_and_values = score_with_grad = _refuse_vectors
    last_hidden = next_logits = noise = hash_weights = _refuse_vectors
    model = tokenizer = device = hidden_size = n_vocabulary = property(_refuse_vectors)
    limits = head = spelling = memory = property(_refuse_vectors)


def _connected(settings: Mapping[str, Any], _: str) -> ServedLM:
    return ServedLM.connect(**settings)
