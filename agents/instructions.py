"""Instructions that a language model proposes, rewrites and mends."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from rlprompt.agents.shared.pareto import front
from rlprompt.agents.shared.proposer import Proposer
from rlprompt.agents.shared.ranges import check_ranges
from rlprompt.agents.shared.requests import cross, mend, rewrite, shorten
from rlprompt.models.decoding import Decoding
from rlprompt.models.lm import FrozenLM
from rlprompt.models.writing import Writer, writer_of
from rlprompt.prompt import TextPrompt
from rlprompt.search.allocation import PaidOnce, halve, halving_size, race
from rlprompt.search.objective import Evaluation, Objective
from rlprompt.search.space import TextSpace
from rlprompt.types import Floats, PromptKind

logger = logging.getLogger(__name__)

Move = Literal["rewrite", "cross", "shorten", "mend"]

# Share of the budget that the first population may cost.
FIRST = 1 / 2
# Rounds in a row without a prompt that is new, after which the proposer has nothing more to say.
IDLE = 8


@dataclass(frozen=True)
class Instructions:
    """Have a language model write instructions, and breed them by what they earn on train.

    The first population has the starts, or else the task's hand prompt, and what the proposer takes
    for the instruction behind a few train examples (APE, Zhou et al. 2023, arXiv 2211.01910;
    `generate_prompts` of its code), by successive halving. Each child then comes of one of four
    moves, drawn alike: say a parent in other words (APE), in fewer words, cross two (EvoPrompt, Guo
    et al. 2024, arXiv 2309.08532; `GAEvoluter`), or mend one from examples on which it does badly,
    with what the model answered there, what is right and what the task says about that (ProTeGi,
    Pryzant et al. 2023, arXiv 2305.03495; `get_gradients` and `apply_gradient`, here one request;
    GEPA, Agrawal et al. 2025, arXiv 2507.19457; `Task.feedback`). Parents are drawn from GEPA's
    front, by the number of train examples on which none is better
    (`select_program_candidate_from_pareto_front`).

    Departures: no request shows earlier instructions with what they earned, which is the method of
    OPRO (Yang et al. 2024, arXiv 2309.03409), in its place here; children race the best prompt so
    far on common blocks of examples and are scored on all of train where they are not clearly worse
    (`search.allocation.race`), in the place of GEPA's three examples that a child must win against
    its parent; failures are drawn of the worse half of a parent's examples; and no prompt races
    twice.

    What the model answered costs the rows of scoring it on those examples, or, where a task scores
    its examples together, on all of train once a parent. The proposer's tokens cost no rows: they
    are a meter of their own, and shown beside the rows.

    >>> from rlprompt import Length, search
    >>> from rlprompt.check import ToyTask, toy_lm
    >>> method = Instructions(max_new_tokens=8)
    >>> result = search(ToyTask(), toy_lm(), method, budget=80, start="Sort it.", length=Length(64))
    >>> result.best.prompt.kind, result.proposer_written > 0
    ('text', True)

    Args:
        proposer: What proposes: None for the task's own frozen model, or a model as for
            `FrozenLM.load`, `{name: ..., revision: ..., load: ..., device: ..., dtype: ...}`. From
            Python any `Writer`. Small models propose badly, and what they write is scored all the
            same.
        population: Prompts of the first population, 1 or more. Ours; APE: 50 or more; EvoPrompt 10.
        children: Proposals of each later round, 1 or more, which the proposer writes side by side.
            Ours, half the population; EvoPrompt as many as the population, GEPA one.
        shown: Train examples that an instruction is guessed from, 1 or more. As in APE's code.
        failures: Examples, 1 or more, that a prompt is mended from. GEPA: 3. ProTeGi: 4.
        temperature: Of the proposer, as in `Decoding`. APE's released configuration: 0.9.
        top_p: Of the proposer, as in `Decoding`. APE's released configuration: 0.9.
        max_new_tokens: Tokens of a proposal at most, 1 or more. Ours, for an instruction of a line
            or two; APE's released configuration has 50, EvoPrompt's 128.

    Raises:
        ValueError: A setting is out of range.
    """

    searches: ClassVar[PromptKind] = "text"

    proposer: str | Mapping[str, Any] | Writer | None = None
    population: int = 8
    children: int = 4
    shown: int = 5
    failures: int = 3
    temperature: float = 0.9
    top_p: float = 0.9
    max_new_tokens: int = 64

    def __post_init__(self) -> None:
        """Check the settings."""
        check_ranges(self, {"population": 1, "children": 1, "shown": 1, "failures": 1})
        self.decoding(0)

    def decoding(self, seed: int) -> Decoding:
        """How the proposer writes."""
        return Decoding(
            self.max_new_tokens, temperature=self.temperature, top_p=self.top_p, seed=seed
        )

    def prepare(self, lm: FrozenLM) -> None:
        """Refuse a proposer that is none, before anything is paid.

        Raises:
            ValueError: There is no such model, or it cannot write.
        """
        writer_of(self.proposer, lm)

    def run(self, objective: Objective, space: TextSpace, rng: np.random.Generator) -> None:
        """See `Optimiser.run`.

        Raises:
            ValueError: There is nothing to begin with, or the proposer writes nothing.
        """
        writer = writer_of(self.proposer, objective.lm)
        proposer = Proposer(writer, objective, space, rng, self.decoding)
        try:
            self._search(proposer)
        finally:
            logger.info("proposals by %s", proposer)

    def _search(self, proposer: Proposer) -> None:
        objective, pool = proposer.objective, self._founders(proposer)
        size = halving_size(objective, FIRST * objective.remaining)
        paid_once = PaidOnce(objective)
        known = _texts(halve(paid_once, pool[:size]))
        while objective.affordable() and proposer.idle < IDLE:
            requests = self._requests(proposer, known)
            if children := proposer.proposed(requests):
                best = max(known, key=lambda prompt: float(known[prompt].mean()))
                incumbent = Evaluation((best,), known[best][None])
                known |= _texts(race(paid_once, incumbent, children, rows=objective.remaining))
        if proposer.idle == IDLE:
            logger.warning(
                "nothing new came of %d rounds of proposals by %s, so the search ends with %d rows "
                "left; take a larger proposer, or a higher temperature",
                *(IDLE, proposer, objective.remaining),
            )

    def _founders(self, proposer: Proposer) -> list[TextPrompt]:
        """The first population, not scored yet."""
        task, starts, why = proposer.objective.task, proposer.space.starts, ""
        if not starts and task.hand_prompt:
            by_hand = proposer.prompt(task.hand_prompt)
            why = proposer.obstacle(by_hand)
            starts = () if why else (by_hand,)
        if not starts and not proposer.labelled:
            raise ValueError(
                f"task {task.name!r} has no hand prompt to begin with{why and f' (its own {why})'},"
                " and its train examples no answers that an instruction could be guessed from; "
                "give `start:`"
            )
        proposer.seen.update(starts)
        pool, lacking = list(starts), self.population - len(starts)
        while proposer.labelled and lacking > 0 and proposer.idle < IDLE:
            pool += proposer.proposed([proposer.guess(self.shown) for _ in range(lacking)])
            if pool:
                return pool
        if not pool:
            raise ValueError(
                f"no instruction came of {proposer}; give `start:` to begin with, or take a larger "
                "proposer"
            )
        return pool

    def _requests(self, proposer: Proposer, known: Mapping[TextPrompt, Floats]) -> list[str]:
        """What the proposer is asked in a round."""
        rng, prompts, rewards = proposer.rng, list(known), list(known.values())
        weights = front(np.stack(rewards))
        requests = []
        for _ in range(self.children):
            move = rng.choice(get_args(Move))
            # Two parents of the front, if there are so many.
            count = min(2, int(np.count_nonzero(weights)))
            places = rng.choice(len(prompts), count, replace=False, p=weights / weights.sum())
            texts = [prompts[place].text.strip() for place in places]
            if move == "cross" and len(texts) > 1:
                requests.append(cross(*texts))
            elif move == "shorten":
                requests.append(shorten(texts[0]))
            elif move == "mend":
                shown = proposer.failures(prompts[places[0]], rewards[places[0]], self.failures)
                requests.append(mend(texts[0], shown))
            else:
                requests.append(rewrite(texts[0]))
        return requests


def _texts(scored: Evaluation) -> dict[TextPrompt, Floats]:
    """Prompts with their rewards (E,), all of train."""
    pairs = zip(scored.prompts, scored.per_example, strict=True)
    return {prompt: rewards for prompt, rewards in pairs if isinstance(prompt, TextPrompt)}
