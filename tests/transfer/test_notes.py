"""What is noted beside the score of a prompt on another task."""

from __future__ import annotations

from small_experiments import examples, task

from rlprompt.data.examples import Example, Splits
from rlprompt.transfer.notes import notes_on


def test_examples_that_a_prompt_was_found_on_are_counted() -> None:
    own = task()
    train, dev, test = own.splits.parts().values()
    assert notes_on(own, own, "test") == ()
    apart = task(splits=Splits(examples("x"), examples("y"), examples("z", 5)))
    assert notes_on(own, apart, "test") == ()
    swapped = task(splits=Splits(test, dev, train))
    assert notes_on(own, swapped, "test") == (
        "found on 4 of the 4 test examples (4 in its train), so the score there is too good",
    )
    mixed = task(splits=Splits(test[:2], test[2:4], (*train[:1], *dev[:2], *test[4:])))
    assert notes_on(own, mixed, "test") == (
        "found on 3 of the 5 test examples (1 in its train and 2 in its dev), so the score "
        "there is too good",
    )
    assert notes_on(own, mixed, "dev") == ()
    # The same text under another label and spacing is the same example to a reader.
    loud = [f" {one.fields['text'].upper()}" for one in train]
    spelt = tuple(Example({"text": text}, "negative") for text in loud)
    (said,) = notes_on(own, task(splits=Splits(test, dev, spelt)), "test")
    assert said.startswith("found on 4 of the 4 test examples")
