"""Tasks of instruction induction: which instruction makes the model do what the examples show?

After Honovich et al. 2022 (arXiv 2205.10782) and APE (Zhou et al. 2022, arXiv 2211.01910), whose
tasks of these names ask for the same with data of their own; the facts here are the project's
(`induction_data`). The model writes an answer after `Input: ... Output:`, as in APE's template for
evaluation, and the reward is an exact match. Where a small model never has one, `reward:
log_likelihood` tells prompts apart all the same.

>>> task = antonyms(shots=16)
>>> task.name, task.hand_prompt
('antonyms', 'Write the opposite of the word.')
>>> example = task.splits.train[0]
>>> (dict(example.fields)["text"], example.label) in induction_data.antonyms()
True
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from rlprompt.data.examples import Example
from rlprompt.data.few_shot import check_sizes, few_shot, too_few
from rlprompt.tasks import induction_data
from rlprompt.tasks.generation import GenerationTask, MetricSettings
from rlprompt.tasks.induction_data import Fact
from rlprompt.template import Template, TemplateText, literal

# A question and its answer, worked or to be worked, and where the prompt goes before them.
QUESTION, ANSWER = "\nInput: {text}\nOutput:", " {answer}"
TEMPLATE = "{prompt}" + QUESTION
# What SQuAD's own script drops from an answer: words with it are left out.
ARTICLE = "a"


@dataclass(frozen=True)
class Induction:
    """One thing that an instruction can ask for.

    Attributes:
        facts: Gives what is asked and the right answer, the same on every call.
        instruction: A person's instruction, the control.
        max_new_tokens: Enough for the longest answer and the end of its line, for tokenizers that
            spell a digit or letter a token.
        reward: What searches go by where nothing is said, as for `GenerationTask`.
        metric: What reports give where nothing is said, as there.
    """

    facts: Callable[[], Sequence[Fact]]
    instruction: str
    max_new_tokens: int
    reward: str = "exact_match"
    metric: str = ""


def _first_letters() -> list[Fact]:
    """Words and their first letters."""
    return [(word, word[0]) for word in induction_data.words() if word[0] != ARTICLE]


def _last_letters() -> list[Fact]:
    """Words and their last letters."""
    return [(word, word[-1]) for word in induction_data.words() if word[-1] != ARTICLE]


def _spellings() -> list[Fact]:
    """Words and their letters with spaces between."""
    return [(word, " ".join(word)) for word in induction_data.words() if ARTICLE not in word]


def _numerals() -> list[Fact]:
    """Numbers in words and in digits."""
    return [(words, digits) for digits, words in induction_data.number_words()]


INDUCTIONS: Mapping[str, Induction] = {
    "antonyms": Induction(induction_data.antonyms, "Write the opposite of the word.", 6),
    "plurals": Induction(induction_data.plurals, "Write the plural of the noun.", 6),
    "past-tense": Induction(
        induction_data.past_tenses, "Write the verb in the simple past tense.", 6
    ),
    "capitals": Induction(induction_data.capitals, "Write the capital of the country.", 8),
    "number-words": Induction(induction_data.number_words, "Write the number in words.", 8),
    "numerals": Induction(_numerals, "Write the number in digits.", 8),
    "first-letter": Induction(_first_letters, "Write the first letter of the word.", 4),
    "last-letter": Induction(_last_letters, "Write the last letter of the word.", 4),
    "spelling": Induction(
        _spellings, "Write the letters of the word with a space between each and the next.", 20
    ),
    "larger-animal": Induction(
        induction_data.animal_pairs, "Write the larger of the two animals.", 8
    ),
    "sum": Induction(induction_data.sums, "Add the two numbers.", 6),
}


def preset(name: str, induction: Induction) -> Callable[..., GenerationTask]:
    """The factory of one task: what `task: {name: ..., ...}` of an experiment file calls."""

    def make(
        *,
        shots: int = 32,
        test: int | None = None,
        demonstrations: int = 0,
        seed: int = 0,
        template: TemplateText = TEMPLATE,
        reward: MetricSettings = induction.reward,
        hand_prompt: str = induction.instruction,
        max_new_tokens: int = induction.max_new_tokens,
        metric: str = induction.metric,
        select_by: str = "reward",
    ) -> GenerationTask:
        examples = [
            Example({"text": question}, answer, f"{name}:{i}")
            for i, (question, answer) in enumerate(induction.facts(), 1)
        ]
        made = Template.of(template)
        if made.messages and demonstrations:
            raise ValueError("demonstrations need a template of one text; write a chat's as turns")
        if made.fields != ("text",) or made.masked:
            raise ValueError(
                f"template is {template!r}; it needs {{prompt}} and {{text}}, the question, no "
                "other field, and no {mask}, for the model writes at the end"
            )
        if demonstrations < 0:
            raise ValueError(f"demonstrations is {demonstrations}; give 0 or more")
        check_sizes(shots, test)
        splits = few_shot(examples, shots=shots, seed=seed, by_class=False)
        worked, left = splits.test[:demonstrations], splits.test[demonstrations:][:test]
        notes = (*splits.notes, *too_few(left, test))
        return GenerationTask(
            name=name,
            splits=replace(splits, test=left, notes=notes),
            template=_demonstrated(made, worked) if worked else made,
            reward=reward,
            max_new_tokens=max_new_tokens,
            stop=("\n",),
            hand_prompt=hand_prompt,
            metric=metric,
            select_by=select_by,
        )

    make.__name__ = make.__qualname__ = name.replace("-", "_")
    make.__doc__ = f"""Find the instruction: {induction.instruction.removesuffix(".").lower()}.

    Args:
        shots: Examples in train and again in dev.
        test: Examples to test on; None for all that are left.
        demonstrations: Examples that are shown with their answers between the prompt and the
            question, APE's few-shot setting (section 4.1).
        seed: Decides which are drawn.
        template: Where the prompt, the question (`{{text}}`) and the answer go.
        reward: As for `GenerationTask`: a metric's name, metrics with their weights, or
            `log_likelihood`.
        hand_prompt: A prompt written by hand, the control.
        max_new_tokens: Where an answer ends that has not ended its line.
        metric: As for `GenerationTask`.
        select_by: As for `GenerationTask`.

    Raises:
        ValueError: More is asked for than there are facts, or a setting is not allowed.
    """
    return make


def _demonstrated(template: Template, worked: Sequence[Example]) -> Template:
    """The template with worked examples right after the prompt."""
    shown = [
        QUESTION.replace("{text}", literal(example.fields["text"]))
        + ANSWER.replace("{answer}", literal(example.label))
        for example in worked
    ]
    return Template(template.text.replace("{prompt}", "{prompt}" + "".join(shown)))


antonyms = preset("antonyms", INDUCTIONS["antonyms"])
plurals = preset("plurals", INDUCTIONS["plurals"])
past_tense = preset("past-tense", INDUCTIONS["past-tense"])
capitals = preset("capitals", INDUCTIONS["capitals"])
number_words = preset("number-words", INDUCTIONS["number-words"])
numerals = preset("numerals", INDUCTIONS["numerals"])
first_letter = preset("first-letter", INDUCTIONS["first-letter"])
last_letter = preset("last-letter", INDUCTIONS["last-letter"])
spelling = preset("spelling", INDUCTIONS["spelling"])
larger_animal = preset("larger-animal", INDUCTIONS["larger-animal"])
sum_of_two = preset("sum", INDUCTIONS["sum"])
