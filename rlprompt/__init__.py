"""rlprompt finds better prompts for a frozen language model.

The names of `rlprompt` and of its rooms (`rlprompt.tasks`, `rlprompt.search`, ...) are loaded when
they are first used, so that `import rlprompt` is quick; `__init__.pyi` beside each `__init__.py`
lists them. The methods are in `rlprompt.agents`. Import from `rlprompt` or from a room, never from
a module in one: modules move.
"""

from typing import Any

import lazy_loader

_load, _names, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]


def __getattr__(name: str) -> Any:
    if name != "__version__":
        return _load(name)
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(__name__)
    except PackageNotFoundError:  # a checkout that is not installed
        return "0+unknown"


def __dir__() -> list[str]:
    return sorted([*_names(), "__version__"])
