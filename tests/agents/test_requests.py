"""What a proposer is asked, word for word, and the instruction in what it answers."""

from __future__ import annotations

import pytest

from rlprompt.agents.shared.requests import (
    Shown,
    cross,
    induce,
    instruction_in,
    mend,
    rewrite,
    shorten,
)


@pytest.mark.parametrize(
    ("answer", "instruction"),
    [
        ("Write the plural.", "Write the plural."),
        ("\n\n  Write the plural.\nIt works like this.", "Write the plural."),
        ('"Write the plural."', "Write the plural."),
        ("\u201cWrite the plural.\u201d", "Write the plural."),
        ("**Write the plural.**", "Write the plural."),
        ("Instruction: Write the plural.", "Write the plural."),
        ('The new instruction is: "Write the plural."', "Write the plural."),
        ("Sure! Here is one:\n\nWrite the plural.", "Write the plural."),
        ("Yes.\n<prompt>Write\n the plural.</prompt> Done.", "Write the plural."),
        ("<instruction>Write the plural.", "Write the plural."),
        ("Here:\n```text\nWrite the plural.\n```\nGood luck.", "Write the plural."),
        ("<think>They want\nplurals.</think>\nWrite the plural.", "Write the plural."),
        ("<think>They want plurals, so", ""),
        ('Write the opposite of "hot".', 'Write the opposite of "hot".'),
        ('"Hot" or "cold"', '"Hot" or "cold"'),
        ("Write\ufffd the\x00 plural.", "Write the plural."),
        ("Answer: yes or no", "Answer: yes or no"),
        ("...\n!!!\n\n", ""),
        ("Instruction:", ""),
        ("", ""),
    ],
)
def test_the_instruction_in_an_answer(answer: str, instruction: str) -> None:
    assert instruction_in(answer) == instruction


def test_what_is_asked() -> None:
    pairs = [Shown("cat", "cats"), Shown("dog", "dogs")]
    assert induce(pairs) == (
        "I gave a friend an instruction. Following it, the friend wrote an output for every input:"
        "\n\nInput: cat\nOutput: cats\n\nInput: dog\nOutput: dogs\n\n"
        "What was the instruction? Write it in one line and nothing else.\n\nInstruction:"
    )
    assert cross("Do this.", "Do that.") == (
        "Combine these two instructions into a new one. Write one line and nothing else.\n\n"
        "Instruction 1: Do this.\n\nInstruction 2: Do that.\n\nNew instruction:"
    )
    assert mend("Do this.", [Shown("cat", "cats", "cat", "No ending."), Shown("dog", "")]) == (
        "A model was given the instruction below, and it did badly here:\n\n"
        "Input: cat\nAnswer given: cat\nRight answer: cats\nFeedback: No ending.\n\nInput: dog\n\n"
        "Write a better instruction for it. Write one line and nothing else.\n\n"
        "Instruction: Do this.\n\nNew instruction:"
    )
    for request in (rewrite("Do this."), shorten("Do this.")):
        assert request.endswith("Instruction: Do this.\n\nNew instruction:")


def test_long_texts_are_cut() -> None:
    assert induce([Shown("a b\n" * 300, "c")]).count("a b") == 100
