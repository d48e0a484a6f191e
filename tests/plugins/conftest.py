from __future__ import annotations

import os

import pytest

from tests.plugins.environment import Environment, prepare


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The environment in which everything is installed from wheels; one for all workers of a run."""
    base = tmp_path_factory.getbasetemp()
    return prepare((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "plugins")
