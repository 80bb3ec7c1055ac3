"""The frozen language model: text and vectors in, log-likelihoods out.

`FrozenLM.load` takes the name of a pinned asset, a hub name, a folder or a `.gguf` file.
How scores are computed is hidden behind it, in `Engine`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any, ClassVar, cast
from weakref import WeakValueDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlprompt._utils.chats import Message
from rlprompt.models import precision
from rlprompt.models.conventions import end_ids, gap_token, model_kind, special_ids
from rlprompt.models.decoding import AnswerEnd, Decoding, Generated, check_texts, check_writes
from rlprompt.models.engine import Engine, PairReward
from rlprompt.models.examination import unwrap
from rlprompt.models.fingerprint import Fingerprint, hash_weights, take_fingerprint
from rlprompt.models.head import Head
from rlprompt.models.load_options import checked_options
from rlprompt.models.loading import load as read_model
from rlprompt.models.loading import place
from rlprompt.models.noise import Noise
from rlprompt.models.packed.model import COLUMNS
from rlprompt.models.prefixes import keys_and_values
from rlprompt.models.request import Limits, prepare
from rlprompt.models.scorer import Over, token_vectors, write
from rlprompt.models.spelling import Spelling
from rlprompt.models.weights import input_device, keep_layout, n_parameters
from rlprompt.prompt import FedPrompt, Prompt, SoftPrompt, TextPrompt, TokenPrompt
from rlprompt.template import Query
from rlprompt.types import Ids, Piece

logger = logging.getLogger(__name__)

# What `load` gave, by name, device and dtype.
_LIVING: WeakValueDictionary[tuple[str, str, str], FrozenLM] = WeakValueDictionary()


def living(name: str, device: str, dtype: str) -> FrozenLM | None:
    """A model of that name that `FrozenLM.load` gave, with no more said, and that is in use."""
    where = torch.zeros(0, device=place(device, {})).device
    return _LIVING.get((name, str(where), dtype))


class FrozenLM:
    """A language model whose weights never change.

    `FrozenLM.load` takes a model by its name. One of random weights that knows four words:

    >>> from tokenizers import Tokenizer, models
    >>> from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    >>> words = models.WordLevel({"?": 0, "good": 1, "bad": 2, "film": 3}, unk_token="?")
    >>> size = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1}
    >>> config = LlamaConfig(vocab_size=4, num_hidden_layers=1, **size)
    >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words))
    >>> lm = FrozenLM(LlamaForCausalLM(config), tokenizer, "tiny")
    >>> query = Query(lm.encode("film"), (), (lm.encode("good"), lm.encode("bad")))
    >>> lm.score([TokenPrompt((1, 3)), TokenPrompt((2,))], [query]).shape  # nats
    torch.Size([2, 1, 2])

    Args:
        model: Any Hugging Face causal, masked or encoder-decoder model, one with a PEFT adapter on
            it included. It is put into evaluation mode and its weights are frozen.
        tokenizer: Its tokenizer.
        name: What results call it.
        revision: Commit of the hub, if it came from one.
        memory_limit: Bytes that scoring may use beyond the weights; None for a quarter of what is
            free now.

    Attributes:
        obstacle: Why prompts are not packed, or None.
        tells_next: Whether it tells what it would write next (`next_logits`).
        dtype_reason: Why the weights are in the dtype they are in.
        options: What it was loaded with beside name and revision; see `load`.
        n_parameters: How many numbers the weights stand for, however many bits each takes.
        served: Whether it is on a server, so that ids stand for characters (`ServedLM`).
    """

    served: ClassVar[bool] = False

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        name: str = "",
        *,
        revision: str = "",
        memory_limit: int | None = None,
    ) -> None:
        keep_layout(model)
        self.model = model = unwrap(model, name).requires_grad_(False)
        torch.nn.Module.eval(model)
        self.tokenizer = tokenizer
        self.name = name or str(getattr(model.config, "_name_or_path", "")) or "unnamed"
        self.revision = revision
        self.kind = model_kind(model.config, type(model).__name__)
        self.mask_id, self.mask_token = gap_token(tokenizer, self.kind, self.name)
        self.prefix_ids, self.suffix_ids = special_ids(tokenizer, self.kind)
        self.spelling = Spelling(tokenizer)
        self.dtype_reason = "given"
        self.options: dict[str, Any] = {}
        self.n_parameters = n_parameters(model)
        made_of = (model, self.kind, self.name, self.mask_id, self.prefix_ids)
        self._engine = Engine(*made_of, memory_limit)
        self.obstacle = self._engine.obstacle
        self.memory = self._engine.memory
        self.tells_next = self._engine.head is not None

    @classmethod
    def load(
        cls,
        name: str,
        *,
        device: str = "auto",
        dtype: str = "auto",
        revision: str | None = None,
        memory_limit: int | None = None,
        load: Mapping[str, Any] | None = None,
    ) -> FrozenLM:
        """Load a model by name.

        Args:
            name: `"smollm2-135m"`, a hub name or a folder, a PEFT adapter's too, or a `.gguf` file.
            device: `"cpu"`, `"cuda"`, `"cuda:1"`, ..., or `"auto"`: a GPU where there is one.
            dtype: `"float32"`, `"bfloat16"`, `"float16"`, or `"auto"`: float32 unless 16 bits
                are measured to be faster and exact enough (`choose_dtype`).
            revision: Commit, branch or tag of a hub model.
            memory_limit: As for the class.
            load: More for `from_pretrained` of transformers (`load_options.ALLOWED`).

        Raises:
            ValueError: The name leads nowhere, or device, dtype or what `load` says cannot be had.
        """
        options = checked_options(load or {})
        where, read = place(device, options), read_model(name, dtype, revision, options=options)
        make = partial(cls, tokenizer=read.tokenizer, name=name, revision=read.revision)
        make = partial(make, memory_limit=memory_limit)
        model, why = precision.settle(read.model, where, dtype, lambda m: make(m).own_noise)
        lm = make(model)
        lm.dtype_reason, lm.options = why, options
        if revision is None and not options:
            _LIVING[name, str(lm.device), str(model.dtype).removeprefix("torch.")] = lm
        if why != "given":
            logger.info("%s is scored in %s on %s: %s", name, lm.fingerprint.dtype, lm.device, why)
        return lm

    @property
    def device(self) -> torch.device:
        """Where the model takes its inputs: where the weights are, or the first of them."""
        return input_device(self.model)

    @property
    def where(self) -> str:
        """Where it is: a device of this machine, or the address of a server."""
        return str(self.device)

    @property
    def hidden_size(self) -> int:
        """Width of the embedding vectors, H."""
        return self._engine.hidden_size

    @property
    def n_vocabulary(self) -> int:
        """Rows of the embedding table, V; may exceed the tokenizer's size."""
        return self._engine.n_vocabulary

    @cached_property
    def context(self) -> int | None:
        """Longest sequence that the model takes, in tokens; None where there is no limit."""
        return self._engine.context

    @property
    def rope_limits(self) -> tuple[int, ...]:
        """Lengths beyond which all positions of a text are scaled otherwise (LongRoPE)."""
        return self._engine.rope_limits

    @property
    def limits(self) -> Limits:
        """What the model takes."""
        return self._engine.limits

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """What answers depend on; hashes all weights, once."""
        # Once, pieces of a text were tokenised apart, a decoder's forced first token left out, and
        # models packed whose windows count columns.
        marks = ["in place"] * (self.spelling.moves or self.kind == "encoder-decoder")
        marks += [
            f"decoder starts with {start}" for start in (self._engine.plain.start,) if start[1:]
        ]
        marks += ["plain"] * (self._engine.obstacle == COLUMNS)
        marks += self._engine.marks
        options = json.dumps(self.options, sort_keys=True) if self.options else ""
        named = self.name, self.revision, self.kind, options
        ids = {
            "before": self.prefix_ids,
            "after": self.suffix_ids,
            "start": self._engine.plain.start,
            "gap": () if self.mask_id is None else (self.mask_id,),
        }
        special = ", ".join(f"{at} {' '.join(map(str, own))}" for at, own in ids.items() if own)
        writes = self.kind != "masked"
        ends = sorted(end_ids(self.model, self.tokenizer)) if writes else ()
        return take_fingerprint(
            self.model, self.tokenizer, *named, marks, special, " ".join(map(str, ends))
        )

    def hash_weights(self) -> str:
        """SHA-256 of every parameter and buffer as they are now, hexadecimal."""
        return hash_weights(self.model)

    def encode(self, text: str, *, plain: bool = False) -> Ids:
        """Token ids of a whole text, without the special tokens around it.

        Args:
            text: The text.
            plain: Whether what looks like a control token is text.

        Raises:
            ValueError: It holds what the tokenizer always takes for a control token.
        """
        return self.spelling.whole((Piece(text, "field" if plain else "own"),))

    def spell(
        self, pieces: Sequence[Piece], after: Sequence[Piece] = (), *, cut: bool = False
    ) -> Ids:
        """Ids that pieces have in a text behind others: see `Spelling.spell`."""
        return self.spelling.spell(pieces, after, cut=cut)

    def chat(self, messages: tuple[Message, ...]) -> str:
        """A chat as the tokenizer's own template writes it, up to where the model goes on.

        Raises:
            ValueError: The tokenizer has no template for chats, or that refuses these messages.
        """
        return self.spelling.chat(messages)

    def is_dated(self, messages: tuple[Message, ...]) -> bool:
        """Whether a chat reads otherwise on another day, as where the template writes the date.

        Raises:
            ValueError: As for `chat`.
        """
        return self.spelling.is_dated(messages)

    def decode(self, ids: Sequence[int], after: Sequence[int] = ()) -> str:
        """Text of token ids behind others, exactly as the tokenizer spells them."""
        return self.spelling.decode(ids, after)

    def fed(self, prompt: Prompt) -> FedPrompt:
        """The prompt as the model reads it: of a text its tokens (`encode`); others as they are.

        Raises:
            ValueError: As for `encode`.
        """
        return TokenPrompt(self.encode(prompt.text)) if isinstance(prompt, TextPrompt) else prompt

    def embeddings(self, ids: Sequence[int] | None = None) -> NDArray[np.float32]:
        """The vectors that tokens are fed as, (V, H) float32 for all of them or (N, H), a copy."""
        return cast("NDArray[np.float32]", token_vectors(self.model, ids).cpu().numpy())

    def nearest_tokens(self, prompt: SoftPrompt) -> TokenPrompt:
        """The vocabulary tokens nearest to each vector, by Euclidean distance."""
        table = token_vectors(self.model)
        vectors = torch.tensor(prompt.vectors, device=table.device)
        return TokenPrompt(torch.cdist(vectors, table).argmin(-1).tolist())

    def keys_and_values(self, prompts: Sequence[SoftPrompt]) -> NDArray[np.float32]:
        """What the layers make of soft prompts of one length, each read by itself.

        Args:
            prompts: (P,) of L vectors each.

        Returns:
            (P, L, layers, 2, heads, width) float32: the vectors of prefix prompts, keys and values.

        Raises:
            ValueError: The model takes no prefix prompts, or not these soft prompts.
        """
        packed = self._engine.packed
        return keys_and_values(packed.packed if packed else None, self.limits, prompts)

    def score(
        self, prompts: Sequence[Prompt], queries: Sequence[Query], *, over: Over = "vocabulary"
    ) -> Tensor:
        """Log-likelihood of every candidate answer under every prompt.

        Args:
            prompts: (P,) of one kind; text counts as tokens. Equal prompts are computed once.
            queries: (Q,), each with the same number C of candidates.
            over: `"vocabulary"`: log p(candidate | text), summed over its tokens.
                `"candidates"`: the same, renormalised among the query's candidates; for
                single-token candidates the output head is applied to their rows only.

        Returns:
            (P, Q, C) float32 on the CPU, nats, <= 0.

        Raises:
            ValueError: Nothing to score, prompts of several kinds, ids outside the vocabulary,
                vectors of wrong shape, text before a prefix, unequal numbers of candidates, or text
                that is empty or too long; or answers that are no finite numbers (`NotFiniteError`).
        """
        return self._engine.score([*map(self.fed, prompts)], queries, over)

    def keep(self, queries: Sequence[Query]) -> None:
        """Read what precedes the prompt in all queries now, together.

        The last bit of a score depends on what its text was first read together with. Who scores
        some of the queries at a time, and is to be told the same again by another process that
        asks in another order, has all of them read first. Of more than fits into memory at once,
        the last ones stay.
        """
        self._engine.keep(queries)

    @property
    def vectors_obstacle(self) -> str | None:
        """Why soft prompts cannot be scored, or None."""
        return self._engine.vectors_obstacle

    @property
    def gradient_obstacle(self) -> str | None:
        """Why no gradient with respect to soft prompts can be had, or None.

        Where weights are quantised it is tried, once, on a few random tokens.
        """
        return self._engine.gradient_obstacle

    def score_pairs(
        self, pairs: Sequence[tuple[Prompt, Query]], *, over: Over = "vocabulary"
    ) -> list[Tensor]:
        """Log p(candidate | text) of each query's candidates under its own prompt, in one batch.

        Args:
            pairs: Prompts of any kind, and queries with any number C of candidates each.
            over: As for `score`, with which it agrees in 16 bits where both are given the same.

        Returns:
            Of each pair (C,) float32 on the CPU, nats, <= 0.

        Raises:
            ValueError: As for `score`.
        """
        fed = [(self.fed(prompt), query) for prompt, query in pairs]
        return self._engine.score_pairs(fed, over)

    def noise(self, prompts: Sequence[Prompt], queries: Sequence[Query]) -> Noise:
        """How much these rows' log-likelihoods depend on how they are computed.

        Scores every row five times, one of them in a pass of its own: give it a few.

        Args:
            prompts: (P,) as for `score`.
            queries: (Q,) as for `score`.

        Raises:
            ValueError: As for `score`.
        """
        return self._engine.noise([*map(self.fed, prompts)], queries)

    @cached_property
    def own_noise(self) -> Noise:
        """`noise` on a few rows of random tokens, measured once."""
        return self.noise(*self._engine.probe)

    def score_with_grad(
        self,
        prompts: Sequence[SoftPrompt],
        queries: Sequence[Query],
        reward: PairReward,
        *,
        over: Over = "vocabulary",
    ) -> tuple[Tensor, Tensor]:
        """Scores, and the gradient of a reward of them with respect to each soft prompt.

        Args:
            prompts: (P,), all of one length; each is computed on its own, equal ones too.
            queries: (Q,), as for `score`.
            reward: Maps log-likelihoods (n, C) of pairs and their query indices (n,) to rewards
                (n,), each from its own pair alone.
            over: As for `score`.

        Returns:
            Log-likelihoods (P, Q, C), and the gradient (P, *shape of its vectors) of each prompt's
            rewards summed over the queries; both float32 on the CPU.

        Raises:
            ValueError: As for `score`, unequal lengths, or quantised layers carry no gradient.
        """
        return self._engine.score_with_grad(prompts, queries, reward, over)

    @torch.no_grad()
    def last_hidden(
        self, texts: Sequence[Ids], after: Sequence[Sequence[Ids]] = ()
    ) -> NDArray[np.float32]:
        """What the output head of a causal model is given at the end of each text.

        Args:
            texts: (B,) token ids, one or more each, computed in one forward pass.
            after: What was asked before, call by call, of texts that these ones go on with. What
                it takes to read them is remembered from the last call, or else done again in the
                same order: the answer is the same to the last bit.

        Returns:
            (B, W) float32, W as wide as the head's rows.

        Raises:
            ValueError: There is no text, one is empty, the model is not causal, or it has no
                output head of its own.
        """
        check_texts(self.name, self.kind, texts)
        last = self._engine.last_hidden(texts, after)
        return cast("NDArray[np.float32]", last.float().cpu().numpy())

    @torch.no_grad()
    def next_logits(
        self, hidden: NDArray[np.float32], among: NDArray[np.int64] | None = None
    ) -> Tensor:
        """Logits of the next token, of what `last_hidden` gave.

        Args:
            hidden: (B, W).
            among: (N,) ids of the tokens that are asked for; None for all V.

        Returns:
            (B, N) or (B, V), on the model's device.
        """
        weight = self.head.weight
        ids = None if among is None else torch.from_numpy(among).to(weight.device)
        return self.head.logits(torch.from_numpy(hidden).to(weight), ids)

    @property
    def head(self) -> Head:
        """What makes logits of the next token of last hidden states, with gradients for these.

        Raises:
            ValueError: The model tells no next token (`tells_next`).
        """
        if self._engine.head is None:
            raise ValueError(f"{self.name} does not tell the next token; take another search")
        return self._engine.head

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
        """What the model writes after every query under every prompt.

        A checkpoint's own sampling, penalties and forced tokens are left out. An answer depends on
        its own prompt and query alone, as far as rounding does not turn a tie of two tokens around.

        Args:
            prompts: (P,) of one kind. Equal ones are computed once, as equal queries are.
            queries: (Q,); their candidates are not looked at.
            max_new_tokens: For this and what follows see `Decoding`.
            stop: Strings that end an answer, which is cut right before.
            temperature: 0 for the likeliest token every time.
            top_k: Draw from so many tokens; 0 for all.
            top_p: Draw from tokens of so much probability; 1 for all.
            seed: Decides what is drawn, with the content of prompt and query.
            min_new_tokens: Tokens at the least.

        Returns:
            (P, Q) answers.

        Raises:
            ValueError: As for `score`; a masked model; or a setting out of its range.
        """
        decoding = Decoding(max_new_tokens, stop, temperature, top_k, top_p, seed, min_new_tokens)
        check_writes(self.name, self.kind)
        fed = [*map(self.fed, prompts)]
        request = prepare(self.limits, fed, queries, n_answer=max_new_tokens - 1)
        end = AnswerEnd(self.decode, end_ids(self.model, self.tokenizer), decoding)
        digests, vectors = [fed[i].digest for i in request.firsts], self._engine.vectors(request)
        answers = write(self._engine.generator, request.ids, digests, vectors, queries, end)
        return [answers[i] for i in request.inverse]
