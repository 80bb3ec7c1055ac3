"""Data sets of the Hugging Face hub, and folders that `datasets` saved.

A hub data set is written `hub:NAME`, `hub:NAME:CONFIG`, or either with `@REVISION`, such as
`hub:nyu-mll/glue:sst2@main`. The revision is a branch, a tag or a commit; `main` where none is
given. It is looked up once, and the commit it stands for is what is loaded and recorded. Scripts
that come with a data set are never run.

>>> HubName.parse("hub:nyu-mll/glue:sst2@v1")
HubName(name='nyu-mll/glue', config='sst2', revision='v1')
>>> str(HubName("SetFit/sst2"))
'hub:SetFit/sst2@main'
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlprompt._utils.text import error_line, first_line
from rlprompt.data.read_table import BATCH, chosen_columns
from rlprompt.data.row_table import RowTable

logger = logging.getLogger(__name__)

# What the name of a data set of the hub begins with.
HUB = "hub:"
PATTERN = re.compile(
    rf"{HUB}(?P<name>\w[\w.-]*(/[\w.-]+)?)(:(?P<config>[\w.+-]+))?(@(?P<revision>[\w./-]+))?"
)
COMMIT = re.compile(r"[0-9a-f]{40}")
UNLABELLED = -1  # what a hub data set has for a class that is kept secret

DataSets = dict[str, Any]
"""A `datasets.Dataset` or `IterableDataset` a split."""


@dataclass(frozen=True)
class HubName:
    """A data set of the hub.

    Attributes:
        name: Such as `nyu-mll/glue`.
        config: Which of its configurations, "" for the only one.
        revision: Branch, tag or commit.
    """

    name: str
    config: str = ""
    revision: str = "main"

    @classmethod
    def parse(cls, source: str) -> HubName:
        """Read `hub:NAME:CONFIG@REVISION`.

        Raises:
            ValueError: It is written otherwise.
        """
        match = PATTERN.fullmatch(source)
        if match is None:
            raise ValueError(
                f"data {source!r} is no hub data set; write hub:NAME, hub:NAME:CONFIG or "
                "hub:NAME:CONFIG@REVISION, such as hub:nyu-mll/glue:sst2"
            )
        return cls(match["name"], match["config"] or "", match["revision"] or "main")

    def __str__(self) -> str:
        config = f":{self.config}" if self.config else ""
        return f"{HUB}{self.name}{config}@{self.revision}"


def load_hub(source: HubName) -> tuple[DataSets, HubName]:
    """The splits of a hub data set, and its name with the commit they are of.

    Raises:
        ValueError: `datasets` is not installed, the hub cannot be reached, or it has no such data
            set, configuration or revision, or its files do not make one.
    """
    datasets = _library(str(source))
    from httpx2 import HTTPError

    pinned = HubName(source.name, source.config, _commit(source))
    try:
        loaded = datasets.load_dataset(pinned.name, pinned.config or None, revision=pinned.revision)
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"{source} cannot be loaded: {first_line(error)}") from error
    except (datasets.exceptions.DatasetsError, HTTPError) as error:
        # What is wrong with the files is said in further lines, or left to the cause.
        causes = [error] if "\n" in str(error) else filter(None, (error, error.__cause__))
        why = ": ".join(dict.fromkeys(map(error_line, causes)))
        raise ValueError(f"{source} cannot be loaded: {why}") from error
    logger.info("loaded %s", pinned)
    return dict(loaded), pinned


def is_saved(path: Path) -> bool:
    """Whether `datasets` saved something in that folder."""
    return any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))


def load_saved(path: Path) -> DataSets:
    """The splits in a folder that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote.

    Raises:
        ValueError: `datasets` is not installed, or the folder is damaged.
    """
    datasets = _library(str(path))
    try:
        loaded = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path} cannot be loaded: {first_line(error)}") from error
    return dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {path.name: loaded}


def held_out(parts: DataSets, label: str | None) -> str | None:
    """The split to test on: `test`, or where that has no labels the first `validation...`.

    Returns:
        Its name; None where there is neither.
    """
    names = ["test", *(name for name in parts if name.startswith("validation"))]
    return next((name for name in names if name in parts and _labelled(parts[name], label)), None)


def split_table(
    name: str, part: Any, columns: tuple[str, ...], optional: tuple[str, ...] = ()
) -> RowTable:
    """The rows of a split, counted from 1, with the class names that its numbers have.

    Raises:
        ValueError: It is a stream whose columns nobody knows before they are read.
    """
    if part.column_names is None:
        raise ValueError(
            f"{name} is a stream that does not name its columns (datasets.IterableDataset); read "
            "it first, with datasets.Dataset.from_list(list(stream)), or make it with features="
        )
    chosen = chosen_columns(part.column_names, columns, optional)
    names = {
        column: feature.names
        for column, feature in part.features.items()
        if hasattr(feature, "names")
    }
    return RowTable(name, _rows(name, part.select_columns(chosen)), uniform=True, names=names)


def _rows(name: str, part: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    number = 1
    for batch in part.with_format("arrow").iter(BATCH):
        for values in batch.to_pylist():
            yield f"{name}:{number}", values
            number += 1


def _labelled(part: Any, label: str | None) -> bool:
    if label is None or label not in (part.column_names or ()):
        return True  # whoever reads it says what is missing
    # Row by row: a stream has no `unique`, and lists and objects have no values to count.
    secret = (row[label] == UNLABELLED for _, row in _rows("", part.select_columns([label])))
    return not (next(secret, False) and all(secret))


def _commit(source: HubName) -> str:
    """The commit that a revision stands for now."""
    if COMMIT.fullmatch(source.revision):
        return source.revision
    from httpx2 import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.constants import ENDPOINT

    from rlprompt._utils import network

    if not network.hub_answers():
        raise ValueError(
            f"{ENDPOINT} cannot be reached to look up {source}. Where it can be, save the data "
            "set with datasets' save_to_disk and give that folder; or give the commit as "
            "@REVISION, if the data set is in the local cache"
        )
    try:
        info = HfApi().dataset_info(source.name, revision=source.revision)
    except (OSError, HTTPError) as error:
        raise ValueError(f"{source} cannot be found: {first_line(error)}") from error
    return str(info.sha)


def _library(what: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise ValueError(f"{what} needs datasets to be read: pip install 'rlprompt[hub]'") from None
    return datasets
