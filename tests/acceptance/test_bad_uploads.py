from __future__ import annotations

import asyncio
import hashlib
import socket
import subprocess
import wave
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cli.client import Kino
from cli.commands.jobs import ensure_succeeded, watch_job
from cli.output import Mute
from kino.catalog.v1 import resources_pb2 as catalog
from kino.ingest.v1 import ingest_pb2, resources_pb2
from services.media.sandbox import ffmpeg
from tests.support.stack import Stack, refusal
from tests.support.uploads import (
    PART_BYTES,
    begin,
    cancel,
    complete,
    delete_title,
    get_title,
    get_upload,
    new_title,
    part_of,
    send,
    send_all,
    uploads,
)


@pytest.fixture
def nothing_half_made(stack: Stack) -> Iterator[None]:
    before = stored_files(stack.suite.data_dir)
    yield
    assert stored_files(stack.suite.data_dir) == before


def stored_files(data_dir: Path) -> set[str]:
    """Everything stored but databases, logs and the state of running processes."""
    passing = {"sql", "logs", "run", "search", "workflows"}
    paths = (path.relative_to(data_dir) for path in data_dir.rglob("*") if path.is_file())
    return {
        str(path) for path in paths if path.parts[0] not in passing and path.suffix not in (".db", ".log")
    }


@pytest.mark.usefixtures("nothing_half_made")
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("not a video", "SOURCE_NOT_MEDIA"),
        ("empty", "SOURCE_EMPTY"),
        ("truncated", "SOURCE_TRUNCATED"),
        ("sound alone", "SOURCE_NOT_MEDIA"),
        ("sound in mp4", "SOURCE_HAS_NO_VIDEO"),
    ],
)
async def test_a_file_that_is_no_film_is_refused_with_its_reason(
    operator: Kino, short_film: Path, tmp_path: Path, kind: str, reason: str
) -> None:
    data = bad_file(kind, short_film, tmp_path)
    title = await new_title(operator)

    refused = await refusal(send_all(operator, title.name, data, "film.mp4"))
    left = await get_title(operator, title.name)
    await delete_title(operator, title.name)

    assert refused == ("INVALID_ARGUMENT", reason)
    assert (left.state, left.job) == (catalog.Title.STATE_CREATED, "")


@pytest.mark.usefixtures("nothing_half_made")
async def test_after_a_refused_file_a_good_one_can_be_sent_for_the_same_title(
    operator: Kino, short_data: bytes
) -> None:
    title = await new_title(operator)
    refused = await refusal(send_all(operator, title.name, b"no film" * 1000, "film.mp4"))
    again = await begin(operator, title.name, len(short_data))
    await cancel(operator, again.name)
    await delete_title(operator, title.name)

    assert refused == ("INVALID_ARGUMENT", "SOURCE_NOT_MEDIA")
    assert again.state == resources_pb2.Upload.STATE_RECEIVING


@pytest.mark.usefixtures("nothing_half_made")
@pytest.mark.parametrize("scheme", ["file", "http"])
@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{target}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile {target}\n",
        '<?xml version="1.0"?><MPD><Period><BaseURL>{target}</BaseURL></Period></MPD>',
    ],
    ids=["hls", "concat", "dash"],
)
async def test_a_playlist_in_disguise_is_refused_and_not_followed(
    operator: Kino, short_film: Path, scheme: str, text: str
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        port = listener.getsockname()[1]
        target = f"file://{short_film}" if scheme == "file" else f"http://127.0.0.1:{port}/secret.mp4"
        title = await new_title(operator)
        data = text.replace("{target}", target).encode()

        refused = await refusal(send_all(operator, title.name, data, "film.mp4"))
        await delete_title(operator, title.name)

        assert refused == ("INVALID_ARGUMENT", "SOURCE_IS_PLAYLIST")
        with pytest.raises(BlockingIOError):
            listener.accept()


def bad_file(kind: str, film: Path, folder: Path) -> bytes:
    if kind == "not a video":
        return b"The quick brown fox jumps over the lazy dog. " * 2000
    if kind == "empty":
        return b""
    if kind == "truncated":
        data = film.read_bytes()
        return data[: len(data) * 6 // 10]
    wav = folder / "sound.wav"
    with wave.open(str(wav), "wb") as out:
        out.setparams((1, 2, 48_000, 0, "NONE", ""))
        out.writeframes(bytes(48_000 * 2))
    if kind == "sound alone":
        return wav.read_bytes()
    sound = folder / "sound.mp4"
    argv = [ffmpeg(), "-loglevel", "error", "-i", str(wav), "-c:a", "aac", str(sound)]
    subprocess.run(argv, check=True)
    return sound.read_bytes()


@pytest.mark.usefixtures("nothing_half_made")
async def test_parts_that_do_not_fit_are_refused_and_leave_what_was_received(
    operator: Kino, short_data: bytes
) -> None:
    title = await new_title(operator)
    upload = await begin(operator, title.name, len(short_data))
    first, third = part_of(short_data, 0), part_of(short_data, 2 * PART_BYTES)
    wrong = part_of(short_data, PART_BYTES)
    wrong.sha256 = bytes(32)
    other = part_of(bytes(PART_BYTES), 0)
    beyond = ingest_pb2.Part(
        offset_bytes=PART_BYTES, data=short_data + b"!", sha256=hashlib.sha256(short_data + b"!").digest()
    )

    received = await send(operator, upload.name, first)
    again = await send(operator, upload.name, first)
    refused = [await refusal(send(operator, upload.name, part)) for part in (third, wrong, other)]
    too_much = (await refusal(send(operator, upload.name, beyond)))[0]
    early = (await refusal(complete(operator, upload.name, short_data)))[0]
    left = await get_upload(operator, upload.name)
    await cancel(operator, upload.name)
    await delete_title(operator, title.name)

    assert (received, again, left.received_bytes) == (PART_BYTES, PART_BYTES, PART_BYTES)
    assert [reason for _, reason in refused] == [
        "UPLOAD_OFFSET_MISMATCH",
        "UPLOAD_CHECKSUM_MISMATCH",
        "UPLOAD_PART_DIFFERS",
    ]
    assert too_much in ("INVALID_ARGUMENT", "OUT_OF_RANGE", "FAILED_PRECONDITION")
    assert early == "FAILED_PRECONDITION"


@pytest.mark.usefixtures("nothing_half_made")
async def test_a_whole_with_another_checksum_is_refused(operator: Kino, short_data: bytes) -> None:
    title = await new_title(operator)
    upload = await begin(operator, title.name, len(short_data))
    for start in range(0, len(short_data), 1 << 20):
        await send(operator, upload.name, part_of(short_data, start, 1 << 20))

    _, reason = await refusal(complete(operator, upload.name, short_data + b"!"))
    left = await get_title(operator, title.name)
    await cancel(operator, upload.name)
    await delete_title(operator, title.name)

    assert reason == "UPLOAD_CHECKSUM_MISMATCH"
    assert left.job == ""


async def test_an_upload_that_broke_off_goes_on_where_it_stopped_and_becomes_a_film(
    operator: Kino, short_data: bytes
) -> None:
    title = await new_title(operator, "Broken off")
    upload = await begin(operator, title.name, len(short_data))
    arrived = asyncio.Event()

    async def stalling() -> AsyncIterator[ingest_pb2.UploadPartsRequest]:
        for start in (0, PART_BYTES):
            yield ingest_pb2.UploadPartsRequest(name=upload.name, part=part_of(short_data, start))
        for _ in range(1000):
            if (await get_upload(operator, upload.name)).received_bytes == 2 * PART_BYTES:
                arrived.set()
                break
            await asyncio.sleep(0.02)
        await asyncio.Event().wait()

    call = uploads(operator).UploadParts(stalling())
    await asyncio.wait_for(arrived.wait(), 30)
    call.cancel()
    kept = (await get_upload(operator, upload.name)).received_bytes

    async def rest() -> AsyncIterator[ingest_pb2.UploadPartsRequest]:
        for start in range(kept, len(short_data), PART_BYTES):
            yield ingest_pb2.UploadPartsRequest(name=upload.name, part=part_of(short_data, start))

    answer = await uploads(operator).UploadParts(rest())
    done = await complete(operator, upload.name, short_data)
    repeated = await complete(operator, upload.name, short_data)
    job = await watch_job(operator, done.job, Mute())

    assert kept == 2 * PART_BYTES
    assert answer.received_bytes == len(short_data)
    assert done.sha256 == hashlib.sha256(short_data).digest()
    assert (repeated.name, repeated.job) == (done.name, done.job)
    ensure_succeeded(job)
    assert (await get_title(operator, title.name)).state == catalog.Title.STATE_COMPLETE


@pytest.mark.usefixtures("nothing_half_made")
async def test_more_than_the_size_limit_is_refused_before_a_byte_is_sent(operator: Kino) -> None:
    title = await new_title(operator)

    refused = await refusal(begin(operator, title.name, 1 << 50))
    await delete_title(operator, title.name)

    assert refused[1] == "UPLOAD_TOO_LARGE"


async def test_a_second_source_for_a_title_is_refused(stack: Stack, operator: Kino) -> None:
    assert (await refusal(begin(operator, stack.title, 1000)))[1] == "TITLE_HAS_SOURCE"
