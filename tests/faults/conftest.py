"""A stack of their own for tests that kill its servers, and the real application on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from faults_app import Application
from faults_watch import Watch

from heddle.local import Stack, running_stack


@pytest.fixture(scope="module")
def own_stack() -> Iterator[Stack]:
    """One per module: what is killed here nobody else is using."""
    with running_stack() as started:
        yield started


@pytest.fixture(scope="module")
def app(own_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Application:
    """Applied, not running."""
    application = Application(tmp_path_factory.mktemp("app"), own_stack)
    application.apply()
    return application


@pytest.fixture(scope="module")
def running_app(app: Application) -> Iterator[Application]:
    """Running from the first test that asks for it to the end of the module: each leaves it as it found it, with
    nothing left to do."""
    with app.running():
        yield app


@pytest.fixture
def watch(app: Application) -> Iterator[Watch]:
    watch = Watch(app)
    yield watch
    watch.close()
