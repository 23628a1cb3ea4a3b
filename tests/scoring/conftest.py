"""An object store for jobs, on the loopback."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import s3fs
from moto.server import ThreadedMotoServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def keys() -> Iterator[dict[str, str]]:
    """The variables by which a user of an object store has it found; they are not set in this process."""
    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    server.stop()


@pytest.fixture
def store(keys: dict[str, str]) -> Iterator[s3fs.S3FileSystem]:
    """The store with an empty bucket `jobs`."""
    files = s3fs.S3FileSystem(
        key=keys["AWS_ACCESS_KEY_ID"],
        secret=keys["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=keys["AWS_ENDPOINT_URL"],
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    files.mkdir("jobs")
    yield files
    files.rm("jobs", recursive=True)
