"""What `import rlprompt` offers."""

from __future__ import annotations

import sys
from types import FunctionType, ModuleType

import pytest

import rlprompt
import rlprompt.compare
import rlprompt.search


@pytest.mark.parametrize("name", rlprompt.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(rlprompt, name) is not None
    assert name in dir(rlprompt)


@pytest.mark.parametrize("name", ["search", "compare"])
def test_a_function_is_not_hidden_by_its_module(name: str) -> None:
    assert isinstance(sys.modules[f"rlprompt.{name}"], ModuleType)
    assert isinstance(getattr(rlprompt, name), FunctionType)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'rlprompt' has no attribute 'serach'"):
        _ = rlprompt.serach  # type: ignore[attr-defined]
