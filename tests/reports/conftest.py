"""A study of three tasks and its page, made once; change nothing in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from study_folder import Plan, make_study

from rlprompt.reports.page import Page, page_of
from rlprompt.reports.study_data import read_study


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tasks, six methods, five seeds."""
    folder = tmp_path_factory.mktemp("study")
    make_study(folder, Plan(points=60))
    return folder


@pytest.fixture(scope="session")
def page(study: Path) -> Page:
    return page_of(read_study(study))
