"""An engine, the image under test, and the stack with two versions of the tiny model."""

from __future__ import annotations

import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.containers.stack import BASE, HAPROXY, PROMETHEUS, Engine, Stack
from tests.support import with_another_temperature

if TYPE_CHECKING:
    from collections.abc import Iterator

BUILT = pytest.StashKey[dict[str, Future[str]]]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin to build the images before the first test: they are ready when their tests, which come late, want them."""
    wanted = any(Path(__file__).parent in item.path.parents for item in session.items)
    found = Engine.find() if wanted and not session.config.option.collectonly else None
    if found and all(map(found.has, (BASE, HAPROXY, PROMETHEUS))):
        one_by_one = ThreadPoolExecutor(1)
        session.config.stash[BUILT] = {name: one_by_one.submit(found.build, name) for name in ("serve", "batch")}


@pytest.fixture(scope="session")
def engine() -> Engine:
    """What runs containers here."""
    found = Engine.find()
    if found is None:
        pytest.skip("neither Docker with Compose nor podman with podman-compose works on this machine")
    for needed in (BASE, HAPROXY, PROMETHEUS):
        if not found.has(needed):
            pytest.skip(f"{needed} is not on this machine and cannot be fetched")
    return found


@pytest.fixture(scope="session")
def image(engine: Engine, request: pytest.FixtureRequest) -> str:  # noqa: ARG001  skips where there is none
    """The serving image, built from this tree."""
    return request.config.stash[BUILT]["serve"].result()


@pytest.fixture(scope="session")
def batch_image(engine: Engine, request: pytest.FixtureRequest) -> str:  # noqa: ARG001  skips where there is none
    """The image of batch jobs, built from this tree."""
    return request.config.stash[BUILT]["batch"].result()


@pytest.fixture(scope="module")
def stack(
    engine: Engine,
    image: str,  # noqa: ARG001  what the replicas run
    model_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    """Two replicas that serve the tiny model; with another version of it beside."""
    if not shutil.which("wrk"):
        pytest.skip("wrk is missing, which makes the load (on Debian: apt-get install wrk)")
    stack = Stack(engine, tmp_path_factory.mktemp("stack"))
    shutil.copytree(model_folder, stack.models / "tiny-1")
    with_another_temperature(model_folder, stack.models / "tiny-2")
    (stack.models / "current").symlink_to("tiny-1")
    try:
        stack.up()
        yield stack
    finally:
        stack.down()
