"""When, where and with what a study ran: kept in it by whoever computes something, and by no other.

Whoever scores controls, does a search or trains a reference says first what it runs on (`here`).
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

import rlprompt
from rlprompt._utils.clock import now
from rlprompt.store.store import Store

PACKAGES = ("torch", "transformers", "numpy")


def here() -> dict[str, Any]:
    """What this process runs on, since now, as `Store.note_environment` keeps it."""
    return {
        "started": now(),
        "platform": platform.platform(),
        "versions": {
            "rlprompt": rlprompt.__version__,
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        },
    }


def provenance(store: Store) -> dict[str, Any]:
    """`started`, `platform` and `versions` of a `Summary`; the first comes first where several are.

    Empty for a study that does not say.
    """
    seen = store.environments
    if not seen:
        return {}
    packages = dict.fromkeys(name for one in seen for name in one["versions"])
    return {
        "started": seen[0]["started"],
        "platform": _all(one["platform"] for one in seen),
        "versions": {
            name: _all(one["versions"][name] for one in seen if name in one["versions"])
            for name in packages
        },
    }


def _all(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))
