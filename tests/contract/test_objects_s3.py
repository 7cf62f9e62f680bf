from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from services.runtime.objects_s3 import S3Objects
from services.runtime.s3 import Bucket
from tests.contract.objects_contract import ObjectsContract
from tests.engines.s3 import S3Server

pytestmark = pytest.mark.engine


def bucket_of(server: S3Server, name: str = "contract") -> Bucket:
    return Bucket(
        url=server.url,
        name=name,
        region="us-east-1",
        access_key=server.access_key,
        secret_key=server.secret_key,
    )


@pytest.fixture(params=["seaweedfs", "minio"], scope="module")
def server(request: pytest.FixtureRequest, s3_server: Callable[[str], S3Server]) -> S3Server:
    return s3_server(request.param)


@pytest.fixture
async def store(server: S3Server, tmp_path: Path) -> AsyncIterator[S3Objects]:
    limits = {"whole_bytes": 6 << 20, "part_bytes": 5 << 20, "page_keys": 3}
    made = S3Objects(bucket_of(server), scratch=tmp_path / "scratch", **limits)
    await made.open()
    yield made
    for entry in [entry async for entry in made.list()]:
        await made.delete(entry.key)
    await made.close()


class TestS3Objects(ObjectsContract):
    pass
