"""Having a model write what it is asked for: the seam to whatever proposes prompts.

A `Writer` is given requests, each one message of a person, and writes an answer to each. A served
model is one; a model on this machine becomes one (`LocalWriter`).
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

from rlprompt._utils.text import listed
from rlprompt.models.conventions import n_positions
from rlprompt.models.decoding import Decoding, check_writes
from rlprompt.models.lm import FrozenLM
from rlprompt.models.served.access import ACCESS
from rlprompt.models.served.lm import ServedLM
from rlprompt.prompt import TokenPrompt
from rlprompt.template import Query, Template
from rlprompt.types import Written

logger = logging.getLogger(__name__)

# What a writer may be given by, beside the name: on this machine, and on a server.
HERE = ("revision", "load", "device", "dtype")
THERE = ("url", *ACCESS)


@runtime_checkable
class Writer(Protocol):
    """Whatever writes answers to requests.

    >>> class Echo:
    ...     name = digest = "echo"
    ...
    ...     def write(self, requests, decoding):
    ...         return [Written(request, n_read=0, n_written=0) for request in requests]
    >>> isinstance(Echo(), Writer)  # so `Instructions(proposer=Echo())` takes it
    True

    Attributes:
        name: What messages call it.
        digest: A hash of all that decides an answer besides request and `Decoding`; what it wrote
            is found again by this.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def digest(self) -> str: ...  # noqa: D102

    def write(self, requests: Sequence[str], decoding: Decoding) -> list[Written]:
        """An answer to each of the requests (R,), in order; equal ones may be answered apart."""
        ...


class LocalWriter:
    """A frozen model as a writer.

    A model with a chat template is asked in a chat, in which the last paragraph of a request that
    ends in a colon, such as `Instruction:`, begins the model's own message: small models that
    follow no request go on with what is begun. Any other goes on with the request as a text. The
    seed of the decoding, the request, and how often the same one stood before decide an answer.
    What the tokenizer takes for a control token whatever one does, as some do `<think>`, is left
    out of a request, which shows what models have written.

    >>> from rlprompt.check import toy_lm
    >>> (one,) = LocalWriter(toy_lm()).write(["Hello."], Decoding(max_new_tokens=4))
    >>> one.n_read, one.n_written  # a token a byte
    (6, 4)

    Args:
        lm: The model.

    Raises:
        ValueError: It is a masked model, which cannot write.
    """

    def __init__(self, lm: FrozenLM) -> None:
        check_writes(lm.name, lm.kind)
        self.lm = lm
        self._said_so = False

    @property
    def name(self) -> str:
        """The model's."""
        return self.lm.name

    @property
    def digest(self) -> str:
        """Hash of the model."""
        return self.lm.fingerprint.digest

    def _query(self, request: str) -> Query:
        asked, _, begun = request.rpartition("\n\n")
        if not getattr(self.lm.tokenizer, "chat_template", None):
            template = Template("{asked}{prompt}")
            asked = request
        elif asked and begun.endswith(":"):
            template = Template.of([{"user": "{asked}"}, {"assistant": "{begun}{prompt}"}])
        else:
            template = Template.of({"user": "{asked}{prompt}"})
            asked = request
        fields = {"asked": asked, "begun": begun}
        asked_for = {name: fields[name] for name in template.fields}
        return template.query(asked_for, self.lm, written=True)

    def write(self, requests: Sequence[str], decoding: Decoding) -> list[Written]:
        """See `Writer.write`; a request that the model has no room for has an empty answer."""
        queries = list(map(self._query, requests))
        found: dict[int, Written] = {}
        earlier = Counter[str]()
        rounds: dict[int, list[int]] = {}
        for place, (request, query) in enumerate(zip(requests, queries, strict=True)):
            if self._has_room(query, decoding):
                rounds.setdefault(earlier[request], []).append(place)
                earlier[request] += 1
            else:
                found[place] = Written("", 0, 0)
        for again, places in rounds.items():
            own = replace(decoding, seed=decoding.seed + again)
            asked = [queries[place] for place in places]
            (answers,) = self.lm.generate([TokenPrompt()], asked, **asdict(own))
            for place, query, answer in zip(places, asked, answers, strict=True):
                found[place] = Written(answer.text, query.n_text, len(answer.ids))
        return [found[place] for place in range(len(requests))]

    def _has_room(self, query: Query, decoding: Decoding) -> bool:
        context = self.lm.limits.context
        fed = n_positions(self.lm.kind, query.n_text, decoding.max_new_tokens)
        if context is None or fed <= context:
            return True
        if self._said_so:
            return False
        self._said_so = True
        logger.warning(
            "a request of %d tokens and an answer of %d are more than the %d of %s, so it is not "
            "answered; show shorter examples, or have a larger model propose",
            *(query.n_text, decoding.max_new_tokens, context, self.lm.name),
        )
        return False


def writer_of(setting: str | Mapping[str, Any] | Writer | None, lm: FrozenLM) -> Writer:
    """The writer that a setting names.

    Args:
        setting: None for the task's own model; a name as for `FrozenLM.load`, or a mapping with it
            and some of `HERE`, or with a `url` and some of `THERE` as for `ServedLM.connect`; or a
            writer.
        lm: The task's own model, whose device and dtype others are given where nothing is said.

    Raises:
        ValueError: There is no such model, or it cannot write.

    >>> from rlprompt.check import toy_lm
    >>> writer_of(None, toy_lm()).name
    'toy'
    """
    if setting is None:
        return lm if isinstance(lm, ServedLM) else LocalWriter(lm)
    if isinstance(setting, str):
        setting = {"name": setting}
    if isinstance(setting, Mapping):
        return _named(setting, lm)
    if isinstance(setting, Writer):
        return setting
    raise ValueError(
        f"a proposer is a model's name, or has `name`, `digest` and `write`, got {setting!r}"
    )


def _named(setting: Mapping[str, Any], lm: FrozenLM) -> Writer:
    served = "url" in setting
    unknown = sorted(set(setting) - {"name", *(THERE if served else HERE)})
    if unknown or not isinstance(setting.get("url" if served else "name"), str):
        raise ValueError(
            f"a proposer is a model's name, {{name: ...}} with {', '.join(HERE)}, or {{url: ...}} "
            f"with name, {', '.join(THERE[1:])}; got the keys {listed(sorted(setting))}"
        )
    if not served:
        # Not `auto`, which may choose otherwise when a search goes on.
        same = {"device": "auto", "dtype": "float32"}
        if not lm.served:
            same = {"device": str(lm.device), "dtype": lm.fingerprint.dtype}
        setting = {**same, **setting}
    return _kept(served, json.dumps(setting, sort_keys=True))


@lru_cache(maxsize=1)  # the searches of a study ask for the same one after another
def _kept(served: bool, setting: str) -> Writer:
    settings = json.loads(setting)
    return ServedLM.connect(**settings) if served else LocalWriter(FrozenLM.load(**settings))
