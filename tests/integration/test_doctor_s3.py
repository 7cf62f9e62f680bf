from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cli.disk import examine_disk
from cli.doctor_s3 import examine_s3
from services.runtime.objects_s3 import bucket_of, open_s3
from services.runtime.s3_objects import open_bucket
from services.runtime.settings import Settings
from services.runtime.testing import settings_in
from tests.engines.s3 import S3Server

pytestmark = pytest.mark.engine


def settings_of(server: S3Server, folder: Path, **other: Any) -> Settings:
    values = {
        "objects_store": "s3",
        "s3_url": server.url,
        "s3_bucket": "doctor",
        "s3_access_key": server.access_key,
        "s3_secret_key": server.secret_key,
    }
    return settings_in(folder, **(values | other))


async def found(settings: Settings) -> dict[str, tuple[str, str]]:
    return {one.check: (one.state, one.sentence) for one in await examine_s3(settings)}


async def test_a_service_that_does_all_that_kino_asks_is_found_so(s3: S3Server, tmp_path: Path) -> None:
    settings = settings_of(s3, tmp_path)
    open_bucket(bucket_of(settings))
    states = {check: state for check, (state, _) in (await found(settings)).items()}
    assert states == dict.fromkeys(
        ["S3", "S3 clock", "S3 objects", "S3 large objects", "S3 write-once", "S3 checksums", "S3 deletion"],
        "ok",
    )


@pytest.mark.parametrize(
    ("other", "advice"),
    [
        ({"s3_bucket": "missing"}, "start Kino, which makes the bucket"),
        ({"s3_secret_key": "wrong"}, "allow the access key"),
        ({"s3_url": "http://127.0.0.1:1"}, "it can't be reached"),
        ({"s3_url": "s3:8333"}, "KINO_S3_URL must be the address"),
        ({"s3_access_key": ""}, "Set KINO_S3_ACCESS_KEY"),
    ],
)
async def test_what_is_wrong_is_told_with_what_to_do(
    s3: S3Server, tmp_path: Path, other: dict[str, str], advice: str
) -> None:
    [(state, sentence)] = (await found(settings_of(s3, tmp_path, **other))).values()
    assert state == "wrong"
    assert advice in sentence


async def test_versions_that_keep_what_was_deleted_are_warned_of(s3: S3Server, tmp_path: Path) -> None:
    settings = settings_of(s3, tmp_path, s3_bucket="doctor-versions")
    bucket = bucket_of(settings)
    open_bucket(bucket)
    on = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    bucket.call("test", "PUT", query={"versioning": ""}, body=on)
    state, sentence = (await found(settings))["S3 deletion"]
    assert (state, "add a lifecycle rule" in sentence) == ("warning", True)


async def test_a_local_folder_is_no_s3(tmp_path: Path) -> None:
    assert await examine_s3(settings_in(tmp_path)) == []


async def test_the_look_at_the_disk_lists_objects_there_or_tells_why_not(
    s3: S3Server, tmp_path: Path
) -> None:
    settings = settings_of(s3, tmp_path, s3_bucket="disk")
    open_bucket(bucket_of(settings))
    store = open_s3(settings)
    await store.put("media/t/j/h264-240/000000-1.m4s", b"segment")
    await store.close()
    [one] = [one for one in (await examine_disk(settings)).holdings if one.kind == "media"]
    assert (one.owner, one.size_bytes, one.state) == ("t/j h264-240", 7, "unknown")
    [problem] = (await examine_disk(settings_of(s3, tmp_path, s3_url="http://127.0.0.1:1"))).problems
    assert problem.startswith("The object store can't be read: ")
