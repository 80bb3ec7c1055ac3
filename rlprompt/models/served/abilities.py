"""What a server is and what it can do: asked once, before anything is paid for.

An OpenAI-compatible server names its models, and may say who owns one and when it was made. Its
weights cannot be seen: what is told of the model is all that is compared (`Told`), and the name
that each answer bears. A change of `system_fingerprint`, what OpenAI calls the machinery around a
model, is no other model, and is noted.

Log-likelihoods are taken where they are exact. `echo`: the server repeats the text with the
log-probability of each of its tokens, so any candidate has one (vLLM, llama-cpp-python; once
OpenAI). Else the likeliest first tokens: a candidate that is one of them has one, any other has
none, and no bound is taken for it.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from rlprompt._utils.text import listed, listed_briefly
from rlprompt.models.served.access import Access, ServerError
from rlprompt.models.served.api import Api, Json, NotThereError
from rlprompt.models.served.bill import Usage

logger = logging.getLogger(__name__)

Endpoint = Literal["completions", "chat/completions"]
TEXTS: Endpoint = "completions"
CHATS: Endpoint = "chat/completions"

# What is asked to see what a server can: a text that every tokenizer spells word by word.
PROBE, LAST_WORD = "one two three four", " four"
# Likeliest first tokens to ask for: llama.cpp tells any number; vLLM 20, unless it was told
# otherwise; OpenAI 20 of a chat and 5 of a text.
TOPS = (1000, 20, 5)
# Nats by which a token's log-probability may differ where it is read and where it is written.
ALIKE = 0.25
# Seconds within which a model's date is the server's clock, as vLLM and llama.cpp give it.
CLOCK = 5.0


# Raise it when a change to what is asked changes answers.
ASKING = 1


class Request(NamedTuple):
    """What is asked of the server.

    Attributes:
        path: Of its API.
        content: The request's, without the model.
        read: What is kept of an answer.
        about: Words that the answer is read for, where it tells of others.
    """

    path: Endpoint
    content: Json
    read: Callable[[Json], Json]
    about: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """All of it that decides the answer."""
        return json.dumps([ASKING, self.path, self.content, self.about], sort_keys=True)


@dataclass(frozen=True)
class Abilities:
    """What a server can do.

    Attributes:
        texts: Whether it goes on with a text.
        chats: Whether it answers the messages of a chat.
        echo: Whether it tells the log-probability of each token of a text.
        top_of_text: How many of the likeliest first tokens it tells after a text, 0 for none.
        top_of_chat: The same after a chat.
    """

    texts: bool = False
    chats: bool = False
    echo: bool = False
    top_of_text: int = 0
    top_of_chat: int = 0

    def __str__(self) -> str:
        """What it can do, in a sentence's end."""
        kinds = [kind for kind in ("texts", "chats") if getattr(self, kind)]
        found = [f"it writes after {listed(kinds)}"]
        if self.echo:
            found.append("tells the log-likelihood of any answer to a text")
        tops = {"a text": self.top_of_text, "a chat": self.top_of_chat}
        if any(tops.values()):
            told = listed(f"{n} after {kind}" for kind, n in tops.items() if n)
            found.append(f"tells the likeliest first tokens, {told}")
        if not self.echo and not any(tops.values()):
            found.append("tells no log-likelihoods")
        return listed(found)


@dataclass
class Served:
    """A model on a server.

    Args:
        api: The server.
        name: The model's name there.

    Attributes:
        told: What the server says of it, by field.
        abilities: What can be asked of it.
        systems: The `system_fingerprint`s that answers bore, in order.
        asked: What finding out took, a request each.
    """

    api: Api
    name: str
    told: dict[str, str] = field(default_factory=dict)
    abilities: Abilities = field(default_factory=Abilities)
    systems: list[str] = field(default_factory=list)
    asked: list[Usage] = field(default_factory=list)
    _listed: dict[str, str] = field(default_factory=dict)
    _named: dict[str, str] = field(default_factory=dict)
    _most: str = "max_tokens"

    @classmethod
    def found(cls, access: Access, name: str = "", api: Api | None = None) -> Served:
        """A model that is there, with what it can do.

        Args:
            access: How the server is reached.
            name: The model's name; "" for the only one that there is.
            api: The server, if not the one at `access`.

        Raises:
            ServerError: There is no such server or model, it wants a key, or it cannot write.
        """
        api = api or Api(access)
        listing = _listing(api)
        if not name:
            name = _only(access, listing)
        found = cls(api, name)
        found._listed = _told(_entry(listing, name), name)
        found.told = dict(found._listed)
        found._find_out(listing)
        return found

    def post(self, path: Endpoint, content: Mapping[str, Any]) -> Json:
        """The answer of the model to a request.

        Raises:
            ServerError: There is none, or it bears the name of another model, or a server that was
                gone has come back with one.
        """
        written = {key: value for key, value in content.items() if key != "max_tokens"}
        if "max_tokens" in content:
            written[self._most if path == CHATS else "max_tokens"] = content["max_tokens"]
        answer = self.api.post(path, {"model": self.name, **written})
        if self.api.was_gone:
            self.api.was_gone = False
            self._check_unchanged()
        named = answer.get("model")
        if isinstance(named, str) and named != self._named.setdefault(path, named):
            raise ServerError(
                f"the server at {self.api.access.url} answers as the model {named!r} and answered "
                f"as {self._named[path]!r} before, so the answers of both are not mixed; have it "
                "serve the first again, or begin the study anew with --restart"
            )
        return answer

    def _check_unchanged(self) -> None:
        """See that the server says of the model what it said at first."""
        now = _told(_entry(_listing(self.api), self.name), self.name)
        changed = {
            key: f"{self._listed.get(key, 'nothing')} before, {now.get(key, 'nothing')} now"
            for key in {**self._listed, **now}
            if self._listed.get(key) != now.get(key)
        }
        if changed:
            told = listed(f"{key} {change}" for key, change in changed.items())
            raise ServerError(
                f"the server at {self.api.access.url} was gone and has come back with another "
                f"{self.name!r} ({told}), so the answers of both are not mixed; have it serve the "
                "first again, or begin the study anew with --restart"
            )

    def _find_out(self, listing: Sequence[Json] | None) -> None:
        """Ask for a token of everything that is needed, and see what is there."""
        problems, url = list[str](), self.api.access.url
        once: Json = {"prompt": PROBE, "max_tokens": 1}
        text = self._tried(TEXTS, {**once, "logprobs": 1}, problems)
        text = text or self._tried(TEXTS, once, problems)
        can_echo = text is not None and self._echoes(first_tokens(text, url), problems)
        said = [{"role": "user", "content": PROBE}]
        chat = self._tried(CHATS, {"messages": said, "max_tokens": 1}, problems)
        if chat is None and any("max_completion_tokens" in problem for problem in problems):
            self._most = "max_completion_tokens"
            chat = self._tried(CHATS, {"messages": said, "max_tokens": 1}, problems)
        if text is None and chat is None:
            raise ServerError(self._no_use(problems, listing))
        tops = [0, 0]
        for i, there in enumerate((text is not None and not can_echo, chat is not None)):
            for top in TOPS if there else ():
                asked: Json = {"prompt": PROBE, "logprobs": top}
                if i:
                    asked = {"messages": said, "logprobs": True, "top_logprobs": top}
                answer = self._tried((TEXTS, CHATS)[i], {**asked, "max_tokens": 1}, problems)
                if answer is not None and (found := first_tokens(answer, url)):
                    tops[i] = min(top, len(found))
                    break
        self.abilities = Abilities(text is not None, chat is not None, can_echo, *tops)
        for path, named in self._named.items():
            if named != self.name:
                self.told[f"answers to {path} as"] = named

    def _echoes(self, likeliest: Mapping[str, float], problems: list[str]) -> bool:
        """Whether it repeats texts with log-probabilities that are right.

        Some versions of llama-cpp-python tell those of the place after. So the token that the model
        is likeliest to write is given back to it: it has to be as likely there as where it was
        written.
        """
        known = {token: value for token, value in likeliest.items() if token.isprintable()}
        token = max(known, key=lambda one: known[one], default="")
        asked: Json = {"prompt": PROBE + token, "echo": True, "logprobs": 1, "max_tokens": 1}
        answer = self._tried(TEXTS, asked, problems)
        if answer is None:
            return False
        try:
            value = echoed(answer, PROBE + token, token or LAST_WORD, self.api.access.url)
        except ServerError as error:
            problems.append(str(error))
            return False
        if token and abs(value - known[token]) > ALIKE:
            logger.warning(
                "%s at %s repeats a text with log-probabilities that are not those of its tokens "
                "(%.2f nats for %r, and %.2f where it writes that), so they are not taken",
                *(self.name, self.api.access.url, value, token, known[token]),
            )
            return False
        return True

    def _tried(self, path: Endpoint, content: Json, problems: list[str]) -> Json | None:
        """An answer, or None with the reason where the server knows no such request."""
        try:
            answer = self.post(path, {"temperature": 0, **content})
        except NotThereError as error:
            problems.append(str(error))
            return None
        self.asked.append(Usage.of(answer))
        self.note_system(answer)
        try:
            choice(answer, self.api.access.url)
        except ServerError as error:
            problems.append(str(error))
            return None
        return answer

    def note_system(self, answer: Json) -> bool:
        """Note the `system_fingerprint` of an answer; whether it is another than any before."""
        system = answer.get("system_fingerprint")
        if not isinstance(system, str) or not system or system in self.systems:
            return False
        self.systems.append(system)
        return len(self.systems) > 1

    def _no_use(self, problems: Sequence[str], listing: Sequence[Json] | None) -> str:
        """Why the model cannot be asked."""
        url = self.api.access.url
        if listing is None and all("404" in problem for problem in problems):
            hint = "" if url.endswith("/v1") else f"; such addresses mostly end in /v1: {url}/v1"
            return f"there is no OpenAI-compatible API at {url} (404){hint}"
        names = [str(one.get("id")) for one in listing or ()]
        if names and self.name not in names:
            return f"the server at {url} has no model {self.name!r}; it has {listed_briefly(names)}"
        return f"{problems[0]}; a served model needs /completions or /chat/completions"


def _listing(api: Api) -> list[Json] | None:
    """The models that a server says it has; None where it does not say."""
    try:
        found = api.get("models").get("data")
    except NotThereError:
        return None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else None


def _entry(listing: Sequence[Json] | None, name: str) -> Json:
    """What a listing says of a model; nothing where it is not there."""
    return next((one for one in listing or () if one.get("id") == name), {})


def _only(access: Access, listing: Sequence[Json] | None) -> str:
    if listing is None:
        hint = "" if access.url.endswith("/v1") else f" (or is its address {access.url}/v1?)"
        raise ServerError(
            f"the server at {access.url} does not say which models it has{hint}; name one: "
            "model: {url: ..., name: ...}"
        )
    names = [str(one["id"]) for one in listing if one.get("id")]
    if len(names) != 1:
        raise ServerError(
            f"the server at {access.url} has {len(names)} models, {listed_briefly(names) or 'none'}"
            "; name one: model: {url: ..., name: ...}"
        )
    return names[0]


def _told(entry: Mapping[str, Any], name: str) -> dict[str, str]:
    """What a server's listing says of a model that tells it from another."""
    meta = entry.get("meta")
    sizes = meta if isinstance(meta, dict) else {}
    found = {"id": name, **{key: entry.get(key) for key in ("owned_by", "root")}}
    found |= {key: sizes.get(key) for key in ("n_params", "size")}
    created = entry.get("created")
    if isinstance(created, int | float) and abs(time.time() - created) > CLOCK and created > 0:
        made = datetime.datetime.fromtimestamp(created, datetime.UTC)
        found["created"] = made.isoformat(timespec="seconds")
    return {key: str(value) for key, value in found.items() if value not in (None, "")}


def choice(answer: Mapping[str, Any], url: str) -> Json:
    """The only choice of an answer.

    Raises:
        ServerError: It has none.
    """
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        said = answer.get("error") or f"the fields {listed(sorted(answer)) or '(none)'}"
        raise ServerError(f"the server at {url} gave an answer without choices: {str(said)[:200]}")
    found: Json = choices[0]
    return found


def written(answer: Mapping[str, Any], url: str) -> tuple[str, str]:
    """What the model wrote, and what ended it as the server calls that.

    Raises:
        ServerError: The answer has no text.
    """
    one = choice(answer, url)
    message = one.get("message")
    # A chat's content is None where a model only thought, or called a tool.
    text = message.get("content") or "" if isinstance(message, dict) else one.get("text")
    if not isinstance(text, str):
        raise ServerError(f"the server at {url} gave an answer without a text")
    return text, str(one.get("finish_reason") or "")


def echoed(answer: Mapping[str, Any], text: str, answered: str, url: str) -> float:
    """Log-probability of the answer at the end of a text that a server repeats, nats.

    Args:
        answer: The server's, with one token written beyond the text.
        text: All of it.
        answered: Its end.
        url: Of the server, for messages.

    Raises:
        ServerError: Tokens or log-probabilities are missing, or the answer has no tokens of its
            own.
    """
    told = choice(answer, url).get("logprobs")
    found = told if isinstance(told, dict) else {}
    tokens, values = found.get("tokens"), found.get("token_logprobs")
    if not isinstance(tokens, list) or not isinstance(values, list) or len(tokens) != len(values):
        raise ServerError(
            f"the server at {url} gave an answer without the log-probabilities of the text's "
            "tokens, which it told before; see whether it was started with other settings"
        )
    _, tokens_out = Usage.of(answer)
    end = len(tokens) - (1 if tokens_out is None else tokens_out)
    start, spelt = end, ""
    while start > 0 and len(spelt) < len(answered):
        start -= 1
        spelt = str(tokens[start]) + spelt
    own = values[start:end]
    if spelt != answered or not own:
        raise ServerError(
            f"the server's tokenizer joins letters over the border before the answer {answered!r} "
            f"(its tokens there spell {spelt!r}), so it has no log-likelihood of its own; put a "
            "space or a line break between text and answer"
        )
    if not all(isinstance(one, int | float) and math.isfinite(one) for one in own):
        raise ServerError(
            f"the server at {url} gave no number as a log-probability of {answered!r}: {own}"
        )
    return float(math.fsum(own))


def first_tokens(answer: Mapping[str, Any], url: str) -> dict[str, float]:
    """Log-probabilities of the likeliest first tokens, nats, as far as an answer has them.

    Raises:
        ServerError: One is no number; minus infinity, a probability of 0, is one.
    """
    choices = answer.get("choices")
    one = choices[0] if isinstance(choices, list) and choices else None
    told = one.get("logprobs") if isinstance(one, dict) else None
    if not isinstance(told, dict):
        return {}
    found = dict[str, float]()
    with contextlib.suppress(LookupError, TypeError, AttributeError, ValueError):
        if told.get("content"):
            # Of two tokens that read alike, such as halves of a letter, the likelier.
            found = {
                str(top["token"]): float(top["logprob"])
                for top in reversed(told["content"][0]["top_logprobs"])
            }
        else:
            found = {str(token): float(one) for token, one in told["top_logprobs"][0].items()}
    for token, value in found.items():
        if not value < math.inf:  # nor NaN, which would pass for a probability of 1
            raise ServerError(
                f"the server at {url} gave no number as a log-probability of {token!r}: {value}"
            )
    return found
