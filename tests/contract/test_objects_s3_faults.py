"""What an S3 service, or something before it, may answer wrongly; played by a server that does only that."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from email.utils import formatdate
from pathlib import Path

import pytest
import urllib3

from services.runtime.errors import Code, KinoError
from services.runtime.objects import (
    PATIENCE_S,
    ObjectDamaged,
    ObjectNotFound,
    ObjectStoreFailed,
    ObjectStoreFull,
    ObjectStoreUnavailable,
)
from services.runtime.objects_s3 import S3Objects
from services.runtime.s3 import Bucket, ClockDiffers, ObjectStoreRefuses

CONTENT = bytes(range(256)) * 16
HALF = len(CONTENT) // 2
OURS = {
    "ETag": '"one"',
    "x-amz-meta-sha256": hashlib.sha256(CONTENT).hexdigest(),
    "x-amz-meta-created": "2026-01-02T03:04:05+00:00",
}
ERROR = b"<?xml version='1.0'?><Error><Code>%s</Code><Message>m</Message></Error>"
#: No more than this many threads and streams exist, see `objects_s3`.
ALL_THREADS = 16


def answer(
    status: int, body: bytes = b"", headers: dict[str, str] | None = None, *, claims: int | None = None
) -> bytes:
    """A whole answer; `claims` is the length it announces when that is another."""
    lines = [
        f"HTTP/1.1 {status} Whatever",
        f"Content-Length: {len(body) if claims is None else claims}",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def error(status: int, code: str, **headers: str) -> bytes:
    return answer(status, ERROR % code.encode(), {"Content-Type": "application/xml", **headers})


def part(start: int, end: int, **other: str) -> bytes:
    given = {**OURS, "Content-Range": f"bytes {start}-{end - 1}/{len(CONTENT)}"}
    return answer(206, CONTENT[start:end], {**given, **{n.replace("_", "-"): v for n, v in other.items()}})


WHOLE = answer(200, CONTENT, OURS)
CUT = answer(200, CONTENT[:HALF], OURS, claims=len(CONTENT))
HANGS = b""


class Faulty:
    """Gives each request the next of `answers`, the last for ever; `HANGS` keeps it waiting."""

    def __init__(self) -> None:
        self.answers: list[bytes] = [WHOLE]
        self.requests: list[str] = []
        #: Released by each request that is kept waiting.
        self.hanging = asyncio.Semaphore(0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            lengths = [line[15:] for line in head.splitlines() if line.lower().startswith("content-length:")]
            await reader.readexactly(int(lengths[0]) if lengths else 0)
            self.requests.append(head)
            given = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            writer.write(given)
            await writer.drain()
            if given == HANGS:
                self.hanging.release()
                await reader.read()
        finally:
            writer.close()


@pytest.fixture
async def faulty() -> Faulty:
    return Faulty()


@pytest.fixture
async def store(faulty: Faulty, tmp_path: Path) -> AsyncIterator[S3Objects]:
    server = await asyncio.start_server(faulty.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    PATIENCE_S.set(0.5)
    bucket = Bucket(
        url=f"http://127.0.0.1:{port}", name="b", region="us-east-1", access_key="a", secret_key="s"
    )
    made = S3Objects(bucket, scratch=tmp_path)
    made._conditions = True
    yield made
    await made.close()
    server.close()


async def streamed(store: S3Objects) -> bytes:
    return b"".join([piece async for piece in store.stream("a", piece_bytes=1_000)])


WAYS: list[Callable[[S3Objects], Awaitable[bytes]]] = [lambda store: store.get("a"), streamed]


@pytest.mark.parametrize("read", WAYS, ids=["get", "stream"])
@pytest.mark.parametrize(
    "given",
    [
        CUT,
        answer(200, CONTENT, OURS, claims=len(CONTENT) + 1),
        answer(206, CONTENT, {**OURS, "Content-Range": f"bytes 1-{len(CONTENT)}/{len(CONTENT) + 1}"}),
        answer(206, CONTENT, OURS),
        error(500, "InternalError"),
        error(503, "SlowDown"),
        answer(502, b"<html>Bad gateway</html>"),
        error(200, "InternalError"),
        b"HTTP/1.1 200 OK\r\n\r\n" + CONTENT,
        b"not even HTTP\r\n\r\n",
    ],
)
async def test_a_wrong_answer_is_never_taken_as_content(
    store: S3Objects, faulty: Faulty, given: bytes, read: Callable[[S3Objects], Awaitable[bytes]]
) -> None:
    faulty.answers = [given]
    with pytest.raises((ObjectStoreUnavailable, ObjectStoreFailed)):
        await read(store)


@pytest.mark.parametrize("given", [CUT, error(503, "SlowDown"), error(500, "InternalError")])
async def test_a_right_answer_after_a_wrong_one_is_content(
    store: S3Objects, faulty: Faulty, given: bytes
) -> None:
    faulty.answers = [given, given, WHOLE]
    assert await store.get("a") == CONTENT


@pytest.mark.parametrize("read", WAYS, ids=["get", "stream"])
async def test_other_bytes_are_asked_for_once_more_and_then_damage(
    store: S3Objects, faulty: Faulty, read: Callable[[S3Objects], Awaitable[bytes]]
) -> None:
    faulty.answers = [answer(200, CONTENT[:-1] + b"!", OURS)]
    with pytest.raises(ObjectDamaged):
        await read(store)


async def test_a_broken_stream_goes_on_where_it_was_with_the_same_object(
    store: S3Objects, faulty: Faulty
) -> None:
    faulty.answers = [CUT, part(2_000, len(CONTENT))]
    assert await streamed(store) == CONTENT
    assert 'If-Match: "one"' in faulty.requests[1]
    assert "Range: bytes=2000-4095" in faulty.requests[1]


@pytest.mark.parametrize("given", [part(2_000, len(CONTENT), ETag='"two"'), error(412, "PreconditionFailed")])
async def test_a_broken_stream_does_not_go_on_with_another_object(
    store: S3Objects, faulty: Faulty, given: bytes
) -> None:
    faulty.answers = [CUT, given]
    with pytest.raises(ObjectDamaged):
        await streamed(store)


async def test_a_store_that_is_away_says_so_and_when_to_come_again(store: S3Objects, faulty: Faulty) -> None:
    faulty.answers = [error(503, "SlowDown")]
    with pytest.raises(ObjectStoreUnavailable, match="SlowDown") as caught:
        await store.get("a")
    assert (caught.value.code, caught.value.retry_after_ms) == (Code.UNAVAILABLE, 1_000)
    assert len(faulty.requests) > 1
    faulty.answers = [error(503, "SlowDown"), answer(200, b"", {**OURS})]
    assert (await store.stat("a")).size_bytes == 0


async def test_an_answer_that_does_not_come_is_given_up(store: S3Objects, faulty: Faulty) -> None:
    store._bucket._pool.timeout = urllib3.Timeout(0.2)
    faulty.answers = [HANGS]
    with pytest.raises(ObjectStoreUnavailable, match="no answer in time"):
        await store.get("a")


async def test_cancelling_frees_the_threads_at_once(store: S3Objects, faulty: Faulty) -> None:
    faulty.answers = [HANGS]
    hanging = [asyncio.create_task(store.get("a")) for _ in range(ALL_THREADS)]
    async with asyncio.timeout(10):
        for _ in hanging:
            await faulty.hanging.acquire()
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)
        faulty.answers = [WHOLE]
        assert await store.get("a") == CONTENT


LISTING = b"<ListBucketResult><IsTruncated>%s</IsTruncated>%s</ListBucketResult>"
ENTRY = (
    b"<Contents><Key>%s</Key><Size>1</Size><LastModified>2026-01-02T03:04:05.000Z</LastModified></Contents>"
)


@pytest.mark.parametrize(
    "given",
    [
        answer(200, LISTING % (b"true", ENTRY % b"a@")),
        answer(200, (LISTING % (b"false", ENTRY % b"a@"))[:-20]),
        answer(200, b"<html/>"),
        answer(200, LISTING % (b"false", b"<Contents><Key>a@</Key></Contents>")),
        error(200, "InternalError"),
    ],
)
async def test_half_a_listing_is_no_listing(store: S3Objects, faulty: Faulty, given: bytes) -> None:
    faulty.answers = [given]
    with pytest.raises(ObjectStoreUnavailable):
        _ = [entry async for entry in store.list()]


async def test_a_listing_shows_what_kino_wrote_alone(store: S3Objects, faulty: Faulty) -> None:
    entries = b"".join(ENTRY % name for name in (b"b@", b"foreign", b".kino/x@", b"a@", b"a//b@"))
    faulty.answers = [answer(200, LISTING % (b"false", entries))]
    assert [entry.key async for entry in store.list()] == ["a", "b"]


async def test_a_write_that_ends_in_an_error_after_its_200_is_none(store: S3Objects, faulty: Faulty) -> None:
    faulty.answers = [error(200, "InternalError")]
    with pytest.raises(ObjectStoreUnavailable):
        await store.put("a", CONTENT)


async def test_a_write_whose_answer_was_lost_is_found_again(store: S3Objects, faulty: Faulty) -> None:
    faulty.answers = [error(500, "InternalError"), error(412, "PreconditionFailed"), answer(200, b"", OURS)]
    assert (await store.put("a", CONTENT)).sha256 == OURS["x-amz-meta-sha256"]


@pytest.mark.parametrize(
    ("given", "expected", "words"),
    [
        (error(507, "XMinioStorageFull"), ObjectStoreFull, "nothing was stored"),
        (error(403, "QuotaExceeded"), ObjectStoreFull, "nothing was stored"),
        (error(403, "AccessDenied"), ObjectStoreRefuses, "allow the access key"),
        (answer(403), ObjectStoreRefuses, "allow the access key"),
        (error(404, "NoSuchBucket"), ObjectStoreRefuses, "makes the bucket"),
        (error(400, "Surprise"), ObjectStoreFailed, "Surprise"),
    ],
)
async def test_a_refusal_is_typed_and_not_repeated(
    store: S3Objects, faulty: Faulty, given: bytes, expected: type[KinoError], words: str
) -> None:
    faulty.answers = [given]
    with pytest.raises(expected, match=words):
        await store.put("a", CONTENT)
    assert len(faulty.requests) == 1


async def test_clocks_that_differ_are_told_as_such(store: S3Objects, faulty: Faulty) -> None:
    faulty.answers = [error(403, "RequestTimeTooSkewed", Date=formatdate(0, usegmt=True))]
    with pytest.raises(ClockDiffers, match=r"clocks differ by -[0-9]+ s; set this machine's clock"):
        await store.put("a", CONTENT)


async def test_what_is_not_there_is_not_found_whoever_says_it(store: S3Objects, faulty: Faulty) -> None:
    faulty.answers = [answer(404, b"<html>no</html>")]
    with pytest.raises(ObjectNotFound):
        await store.get("a")


async def test_a_store_that_nobody_serves_is_away(tmp_path: Path) -> None:
    PATIENCE_S.set(0.2)
    bucket = Bucket(url="http://127.0.0.1:1", name="b", region="r", access_key="a", secret_key="s")
    store = S3Objects(bucket, scratch=tmp_path)
    asks: list[Callable[[], Awaitable[object]]] = [store.open, store.check, lambda: store.get("a")]
    for ask in asks:
        with pytest.raises(ObjectStoreUnavailable, match="it can't be reached"):
            await ask()
    await store.close()
