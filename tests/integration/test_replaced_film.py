"""Two films, encoded for real: the second takes the place of the first while somebody watches that."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration

from kino.catalog.v1 import catalog_pb2 as catalog
from kino.catalog.v1 import resources_pb2 as titles
from kino.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from kino.history.v1 import history_pb2 as history
from kino.history.v1.history_pb2_grpc import HistoryServiceStub
from kino.ingest.v1 import ingest_pb2 as ingest
from kino.ingest.v1.ingest_pb2_grpc import IngestServiceStub
from kino.playback.v1 import playback_pb2 as pb
from kino.playback.v1.playback_pb2_grpc import PlaybackServiceStub
from kino.scheduler.v1 import resources_pb2 as jobs
from kino.scheduler.v1 import scheduler_pb2 as scheduler
from kino.scheduler.v1.scheduler_pb2_grpc import SchedulerServiceStub
from services.catalog.bootstrap import build as build_catalog
from services.encoder.bootstrap import build as build_encoder
from services.history.bootstrap import build as build_history
from services.ingest.bootstrap import build as build_ingest
from services.media.testfilm import FilmSpec, make_film
from services.playback.bootstrap import build as build_playback
from services.preprocessor.bootstrap import build as build_preprocessor
from services.runtime.app import Running
from services.runtime.status import error_of
from services.runtime.testing import channel_of, serving, settings_in, user_token
from services.scheduler.bootstrap import build as build_scheduler
from tests.support.decoding import decode_pictures
from tests.support.published import PUBLISHER
from tests.support.streams import play
from tests.support.watching import OWNERS_PROFILE, Plans, accounts, start

LONG = FilmSpec(seconds=Fraction(12), width=426, height=240, cuts=(5.4,), loud=None)
SHORT = FilmSpec(seconds=Fraction(7), width=320, height=180, cuts=(3.4,), loud=None)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    folder = tmp_path_factory.mktemp("films")
    made = []
    for name, spec in (("long", LONG), ("short", SHORT)):
        asyncio.run(make_film(folder / f"{name}.mp4", spec))
        made.append((folder / f"{name}.mp4").read_bytes())
    return made[0], made[1]


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[Running]:
    async with serving(
        tmp_path,
        settings=settings_in(tmp_path, video_codecs=["h264"]),
        catalog=build_catalog,
        scheduler=build_scheduler,
        preprocessor=build_preprocessor,
        encoder=build_encoder,
        ingest=build_ingest,
        history=build_history,
        billing=Plans(limits={}).build,
        identity=accounts,
        playback=build_playback,
    ) as running:
        yield running


@pytest.fixture
async def channel(process: Running) -> AsyncIterator[grpc.aio.Channel]:
    async with channel_of(process, user_token(process, PUBLISHER, "publisher")) as channel:
        yield channel


async def upload(channel: Any, title: str, data: bytes, *, replace: bool) -> str:
    """Upload a file as a source; its job."""
    stub, digest = IngestServiceStub(channel), hashlib.sha256(data).digest()
    request = ingest.CreateUploadRequest(
        title=title, size_bytes=len(data), request_id=str(uuid.uuid4()), replace=replace
    )
    name = (await stub.CreateUpload(request)).upload.name
    for at in range(0, len(data), 1 << 20):
        piece = data[at : at + (1 << 20)]
        part = ingest.Part(offset_bytes=at, data=piece, sha256=hashlib.sha256(piece).digest())
        await stub.UploadPart(ingest.UploadPartRequest(name=name, part=part))
    done = await stub.CompleteUpload(ingest.CompleteUploadRequest(name=name, sha256=digest))
    return str(done.upload.job)


async def end_of(channel: Any, job: str) -> jobs.Job:
    """A job, once it has ended."""
    last = jobs.Job()
    async for answer in SchedulerServiceStub(channel).WatchJob(scheduler.WatchJobRequest(name=job)):
        last = answer.job
    return last


async def test_a_film_is_replaced_while_it_is_watched(
    channel: grpc.aio.Channel, films: tuple[bytes, bytes]
) -> None:
    shelf, player = CatalogServiceStub(channel), PlaybackServiceStub(channel)
    request = catalog.CreateTitleRequest(request_id=str(uuid.uuid4()))
    request.title.display_name = "Film"
    title = (await shelf.CreateTitle(request)).title.name
    get = catalog.GetTitleRequest(name=title)
    long, short = films

    first = await upload(channel, title, long, replace=False)
    assert (await end_of(channel, first)).state == jobs.Job.STATE_SUCCEEDED
    token = (await start(player, title, profile=OWNERS_PROFILE)).lease.token
    undisturbed = await play(player, token, 0)
    assert decode_pictures(undisturbed.stream()).numbers == list(range(LONG.timeline.frame_count))
    stopped = history.RecordProgressRequest(
        lease_token=token, sequence=1, position=Duration(seconds=9), intervals=[]
    )
    await HistoryServiceStub(channel).RecordProgress(stopped)

    # What is no film, and a job that is cancelled, leave the film as it is.
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await upload(channel, title, b"hello, this is no film" * 99, replace=True)
    assert error_of(refused.value).reason == "SOURCE_NOT_MEDIA"
    cancelled = await upload(channel, title, short, replace=True)
    await SchedulerServiceStub(channel).CancelJob(scheduler.CancelJobRequest(name=cancelled))
    assert (await end_of(channel, cancelled)).state == jobs.Job.STATE_CANCELED
    while not (await shelf.GetTitle(get)).title.replacement.HasField("error"):  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    told = (await shelf.GetTitle(get)).title
    assert (told.job, told.state) == (first, titles.Title.STATE_COMPLETE)
    assert told.replacement.error.message == "Processing was cancelled."

    # A newer film: who watches sees the old one to its end.
    running = aiter(player.Play(pb.PlayRequest(lease_token=token, offset=Duration())))
    data = (await anext(running)).header.combined_init
    second = await upload(channel, title, short, replace=True)
    assert (await end_of(channel, second)).state == jobs.Job.STATE_SUCCEEDED
    now = (await shelf.GetTitle(get)).title
    assert (now.job, now.state, now.HasField("replacement")) == (second, titles.Title.STATE_COMPLETE, False)
    async for message in running:
        data += message.media.data
    assert data == undisturbed.stream()
    assert (await play(player, token, 0)).stream() == undisturbed.stream()

    # Who starts now sees the new one, from its start where the old position lies beyond its end.
    started = await start(player, title, profile=OWNERS_PROFILE)
    assert started.resume_offset == Duration()
    fresh = decode_pictures((await play(player, started.lease.token)).stream())
    assert fresh.numbers == list(range(SHORT.timeline.frame_count))
    assert started.choice.duration.ToNanoseconds() == now.duration.ToNanoseconds() < 8 * 10**9
