from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import status_pb2

from kino.catalog.v1 import catalog_pb2 as pb
from kino.catalog.v1 import catalog_pb2_grpc
from kino.catalog.v1.resources_pb2 import Media, Replacement, Title
from kino.media.v1 import media_pb2
from kino.search.v1 import search_pb2
from services.catalog.bootstrap import build
from services.runtime.app import Running
from services.runtime.auth import VIEWER
from services.runtime.clock import ManualClock
from services.runtime.status import error_of
from services.runtime.testing import channel_of, service_token, serving, user_token

JOB = "jobs/j1"
FPS_TIMESCALE, FRAME_TICKS = 30000, 1001
GRID = [0, 150150, 300300, 450450]  # every 150 frames, 5.005 s
TIMELINE = media_pb2.Timeline(
    timescale=FPS_TIMESCALE, frame_runs=[media_pb2.FrameRun(count=600, duration_ticks=FRAME_TICKS)]
)
H264 = media_pb2.VideoTrack(codec=media_pb2.VIDEO_CODEC_H264, width=1280, height=720)
AV1 = media_pb2.VideoTrack(codec=media_pb2.VIDEO_CODEC_AV1, width=854, height=480)
LOW = media_pb2.VideoTrack(codec=media_pb2.VIDEO_CODEC_H264, width=854, height=480)
AAC = media_pb2.AudioTrack(
    codec=media_pb2.AUDIO_CODEC_AAC, sample_rate_hz=48000, channel_count=2, language="und"
)
RENDITIONS = [
    media_pb2.Rendition(rendition_id="aac-128-und-0", audio=AAC),
    media_pb2.Rendition(rendition_id="h264-480", video=LOW),
    media_pb2.Rendition(rendition_id="h264-720", video=H264),
]


class FakeSearch:
    """Hears what the outbox sends; answers UNAVAILABLE while `down`."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}
        self.heard: list[tuple[str, int]] = []
        self.down = False
        self.changed = asyncio.Event()

    async def index_titles(self, request: Any, context: Any) -> Any:
        self.changed.set()
        if self.down:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "down")
        for document in request.documents:
            self.heard.append((document.title, document.version))
            self.known[document.title] = document
        return search_pb2.IndexTitlesResponse()

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(20):
            while not condition(self.known):
                self.changed.clear()
                await self.changed.wait()


@dataclass
class World:
    process: Running
    stack: AsyncExitStack
    clock: ManualClock
    search: FakeSearch

    async def stub(self, user: str | None, *roles: str) -> Any:
        token = user_token(self.process, user, *roles) if user else service_token(self.process, "scheduler")
        channel = await self.stack.enter_async_context(channel_of(self.process, token))
        return catalog_pb2_grpc.CatalogServiceStub(channel)


def build_with(search: FakeSearch) -> Any:
    async def build_both(ctx: Any) -> Any:
        app = await build(ctx)

        def register(server: Any) -> None:
            app.register(server)
            methods = {
                "IndexTitles": grpc.unary_unary_rpc_method_handler(
                    search.index_titles,
                    request_deserializer=search_pb2.IndexTitlesRequest.FromString,
                    response_serializer=search_pb2.IndexTitlesResponse.SerializeToString,
                )
            }
            handler = grpc.method_handlers_generic_handler("kino.search.v1.SearchService", methods)
            server.add_generic_rpc_handlers((handler,))

        return replace(app, register=register)

    return build_both


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    clock, search = ManualClock(), FakeSearch()
    async with AsyncExitStack() as stack:
        process = await stack.enter_async_context(serving(tmp_path, clock=clock, catalog=build_with(search)))
        yield World(process, stack, clock, search)


async def create(stub: Any, name: str = "Solaris", **fields: Any) -> Title:
    request = pb.CreateTitleRequest(title=Title(display_name=name, **fields), request_id=str(uuid.uuid4()))
    title: Title = (await stub.CreateTitle(request)).title
    return title


async def begin(service: Any, title: Title, job: str = JOB) -> Media:
    request = pb.BeginMediaRequest(title=title.name, job=job, timeline=TIMELINE, renditions=RENDITIONS)
    media: Media = (await service.BeginMedia(request)).media
    return media


def segment(
    title: Title, rendition: str, number: int, attempt: int = 1, size: int = 1000
) -> media_pb2.Segment:
    start = number * 150 * FRAME_TICKS
    fragment = media_pb2.Fragment(size_bytes=size, start_ticks=start, duration_ticks=150 * FRAME_TICKS)
    return media_pb2.Segment(
        number=number,
        start_ticks=start,
        duration_ticks=150 * FRAME_TICKS,
        object_key=f"media/{title.name[7:]}/j1/{rendition}/{number:06d}-{attempt}.m4s",
        size_bytes=size,
        sha256=bytes([attempt]) * 32,
        fragments=[fragment],
    )


def publication(title: Title, rendition: str, *segments: media_pb2.Segment, **fields: Any) -> Any:
    values: dict[str, Any] = {
        "job": JOB,
        "init_object_key": f"media/{title.name[7:]}/j1/{rendition}/init.mp4",
        "init_sha256": b"i" * 32,
        "codecs": "avc1.64001f",
        "timescale": FPS_TIMESCALE,
    }
    return pb.PublishSegmentsRequest(
        title=title.name, rendition_id=rendition, segments=segments, **(values | fields)
    )


async def publish(service: Any, title: Title, rendition: str, *numbers: int, **fields: Any) -> Any:
    wanted = [segment(title, rendition, number) for number in numbers]
    return await service.PublishSegments(publication(title, rendition, *wanted, **fields))


def extension(title: Title, starts: list[int], *, planned: bool = True, job: str = JOB, **fields: Any) -> Any:
    return pb.ExtendTimelineRequest(
        title=title.name, job=job, segment_start_ticks=starts, planned=planned, **fields
    )


async def playable(world: World, owner: Any) -> tuple[Title, Any]:
    service = await world.stub(None)
    title = await create(owner)
    await begin(service, title)
    await service.ExtendTimeline(extension(title, GRID))
    await publish(service, title, "h264-480", 0, 1)
    await publish(service, title, "aac-128-und-0", 0, 1)
    return title, service


async def refused(call: Any) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = error_of(caught.value)
    return error.code.name, error.reason


async def test_a_title_lives_from_its_creation_to_completeness(world: World) -> None:
    owner, viewer, service = await world.stub("users/ann", "publisher"), await world.stub("users/bob"), None
    service = await world.stub(None)
    title = await create(owner, "Солярис", description="Tarkovsky", release_year=1972, genres=["drama"])
    assert (title.state, title.owner, title.release_year) == (Title.STATE_CREATED, "users/ann", 1972)
    assert await refused(viewer.GetTitle(pb.GetTitleRequest(name=title.name))) == (
        "NOT_FOUND",
        "TITLE_NOT_FOUND",
    )

    await service.BeginMedia(pb.BeginMediaRequest(title=title.name, job=JOB))
    now = (await owner.GetTitle(pb.GetTitleRequest(name=title.name))).title
    assert (now.state, now.job, now.HasField("duration")) == (Title.STATE_PROCESSING, JOB, False)

    media = await begin(service, title)
    assert [r.rendition_id for r in media.renditions] == ["h264-720", "h264-480", "aac-128-und-0"]
    await service.ExtendTimeline(extension(title, GRID[:2], planned=False))
    assert (await publish(service, title, "h264-480", 0, 1)).state == Title.STATE_PROCESSING
    world.clock.advance(5)
    assert (await publish(service, title, "aac-128-und-0", 1)).state == Title.STATE_PROCESSING
    assert (await publish(service, title, "aac-128-und-0", 0)).state == Title.STATE_PROCESSING
    await service.ExtendTimeline(extension(title, GRID[:3], planned=False))
    now = (await viewer.GetTitle(pb.GetTitleRequest(name=title.name))).title
    assert (now.state, now.duration.ToNanoseconds()) == (Title.STATE_PLAYABLE, 20_020_000_000)
    assert now.playable_time.ToDatetime() == world.clock.now().replace(tzinfo=None)

    await service.ExtendTimeline(extension(title, GRID))
    await publish(service, title, "h264-480", 3, 2)
    await publish(service, title, "h264-720", 0, 1, 2, 3)
    answer = await publish(service, title, "aac-128-und-0", 2, last=True)
    assert answer.state == Title.STATE_COMPLETE
    got = await service.GetMedia(pb.GetMediaRequest(title=title.name))
    assert got.title.state == got.media.state == Title.STATE_COMPLETE
    assert list(got.media.timeline.segment_start_ticks) == GRID
    assert got.media.timeline.planned
    assert got.media.timeline.frame_runs == TIMELINE.frame_runs
    best = got.media.renditions[0]
    assert (best.rendition_id, best.video.height, best.codecs, best.timescale) == (
        "h264-720",
        720,
        "avc1.64001f",
        30000,
    )
    assert (best.ready_segment_count, best.complete, best.peak_bits_per_second) == (4, True, 1599)
    assert best.mean_bits_per_second == 1598
    sound = got.media.renditions[2]
    assert (sound.ready_segment_count, sound.complete) == (3, True)


async def test_a_title_without_sound_is_playable_without_it(world: World) -> None:
    owner, service = await world.stub("users/ann", "publisher"), await world.stub(None)
    title = await create(owner)
    await service.BeginMedia(
        pb.BeginMediaRequest(title=title.name, job=JOB, timeline=TIMELINE, renditions=RENDITIONS[1:])
    )
    await service.ExtendTimeline(extension(title, GRID))
    assert (await publish(service, title, "h264-480", 0, 1)).state == Title.STATE_PLAYABLE


async def test_creating_twice_with_one_request_id_makes_one_title(world: World) -> None:
    owner = await world.stub("users/ann", "publisher")
    request = pb.CreateTitleRequest(title=Title(display_name="Stalker"), request_id=str(uuid.uuid4()))
    first, second = await owner.CreateTitle(request), await owner.CreateTitle(request)
    assert first == second
    request.title.display_name = "Mirror"
    assert await refused(owner.CreateTitle(request)) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")


async def test_invisible_titles_do_not_exist_for_strangers(world: World) -> None:
    owner, stranger = await world.stub("users/ann", "publisher"), await world.stub("users/eve", "publisher")
    operator = await world.stub("users/root", "operator")
    title = await create(owner)
    missing = ("NOT_FOUND", "TITLE_NOT_FOUND")
    assert await refused(stranger.GetTitle(pb.GetTitleRequest(name=title.name))) == missing
    assert await refused(stranger.DeleteTitle(pb.DeleteTitleRequest(name=title.name))) == missing
    assert await refused(owner.GetTitle(pb.GetTitleRequest(name="titles/none"))) == missing
    assert (await operator.GetTitle(pb.GetTitleRequest(name=title.name))).title == title


async def test_several_titles_come_at_once_in_the_order_asked_for(world: World) -> None:
    owner, viewer = await world.stub("users/ann", "publisher"), await world.stub("users/bob")
    hidden, shown, other = await create(owner), *[(await playable(world, owner))[0] for _ in range(2)]
    names = [other.name, hidden.name, "titles/none", shown.name]
    request = pb.BatchGetTitlesRequest(names=names)
    assert [one.name for one in (await viewer.BatchGetTitles(request)).titles] == [other.name, shown.name]
    assert len((await owner.BatchGetTitles(request)).titles) == 3


async def test_a_visible_title_can_only_be_changed_by_its_owner(world: World) -> None:
    owner, stranger = await world.stub("users/ann", "publisher"), await world.stub("users/eve", "publisher")
    title, _ = await playable(world, owner)
    change = pb.UpdateTitleRequest(
        title=Title(name=title.name, display_name="x"), update_mask=FieldMask(paths=["display_name"])
    )
    assert await refused(stranger.UpdateTitle(change)) == ("PERMISSION_DENIED", "NOT_OWNER")
    assert await refused(stranger.DeleteTitle(pb.DeleteTitleRequest(name=title.name))) == (
        "PERMISSION_DENIED",
        "NOT_OWNER",
    )


async def test_an_update_changes_the_masked_fields_only(world: World) -> None:
    owner = await world.stub("users/ann", "publisher")
    title = await create(owner, "Solaris", description="old", release_year=1972)
    request = pb.UpdateTitleRequest(
        title=Title(name=title.name, description="new", release_year=1, etag=title.etag),
        update_mask=FieldMask(paths=["description"]),
    )
    changed = (await owner.UpdateTitle(request)).title
    assert (changed.display_name, changed.description, changed.release_year) == ("Solaris", "new", 1972)
    assert changed.etag != title.etag
    assert changed.version > title.version
    assert await refused(owner.UpdateTitle(request)) == ("ABORTED", "ETAG_MISMATCH")


@pytest.mark.parametrize("paths", [[], ["owner"], ["display_name", "state"], ["*"]])
async def test_an_update_refuses_masks_of_other_fields(world: World, paths: list[str]) -> None:
    owner = await world.stub("users/ann", "publisher")
    title = await create(owner)
    request = pb.UpdateTitleRequest(
        title=Title(name=title.name, display_name="x"), update_mask=FieldMask(paths=paths)
    )
    assert await refused(owner.UpdateTitle(request)) == ("INVALID_ARGUMENT", "INVALID_ARGUMENT")


@pytest.mark.parametrize(
    "name", ["🎬🍿", "مدينة الملائكة", "שלום", "千と千尋の神隠し", "x" * 500, "a\u0301" * 250]
)
async def test_names_of_every_script_are_kept_as_they_are(world: World, name: str) -> None:
    owner = await world.stub("users/ann", "publisher")
    title = await create(owner, name)
    assert (await owner.GetTitle(pb.GetTitleRequest(name=title.name))).title.display_name == name


@pytest.mark.parametrize("name", ["", "   ", "x" * 10_240, "x" * 501, "a\x00b", "line\nbreak"])
async def test_names_that_cannot_be_shown_are_refused(world: World, name: str) -> None:
    owner = await world.stub("users/ann", "publisher")
    request = pb.CreateTitleRequest(title=Title(display_name=name), request_id=str(uuid.uuid4()))
    assert (await refused(owner.CreateTitle(request)))[0] == "INVALID_ARGUMENT"


async def test_lists_are_paged_newest_first_and_hold_what_the_caller_may_see(world: World) -> None:
    owner, viewer = await world.stub("users/ann", "publisher"), await world.stub("users/bob", VIEWER)
    names = []
    for number in range(5):
        world.clock.advance(timedelta(seconds=number % 2))  # some at the same instant
        names.append((await create(owner, f"Film {number}")).name)
    shown, _ = await playable(world, owner)
    seen, token = [], ""
    while True:
        page = await owner.ListTitles(pb.ListTitlesRequest(page_size=2, page_token=token))
        seen += [title.name for title in page.titles]
        token = page.next_page_token
        if not token:
            break
    assert seen == [shown.name, *reversed(names)]
    page = await viewer.ListTitles(pb.ListTitlesRequest())
    assert ([title.name for title in page.titles], page.next_page_token) == ([shown.name], "")


async def test_page_tokens_of_others_and_forged_ones_are_refused(world: World) -> None:
    owner, other = await world.stub("users/ann", "publisher"), await world.stub("users/eve", "operator")
    for number in range(3):
        await create(owner, f"Film {number}")
    token = (await owner.ListTitles(pb.ListTitlesRequest(page_size=1))).next_page_token
    for stub, forged in (
        (other, token),
        (owner, token[:-2] + "AA"),
        (owner, "x"),
        (owner, "'; DROP TABLE titles"),
    ):
        assert (await refused(stub.ListTitles(pb.ListTitlesRequest(page_size=1, page_token=forged))))[0] == (
            "INVALID_ARGUMENT"
        )


async def test_a_page_of_huge_descriptions_stays_a_message(world: World) -> None:
    owner, count = await world.stub("users/ann", "publisher"), 120
    for number in range(count):
        await create(owner, f"Film {number}", description="🎬" * 10_000)
    seen, token = 0, ""
    while True:
        page = await owner.ListTitles(pb.ListTitlesRequest(page_size=200, page_token=token))
        assert page.ByteSize() < 3 << 20
        seen, token = seen + len(page.titles), page.next_page_token
        if not token:
            break
    assert seen == count


async def test_media_calls_are_for_services_and_creation_for_publishers(world: World) -> None:
    owner, viewer = await world.stub("users/ann", "operator"), await world.stub("users/bob")
    title = await create(owner)
    assert await refused(owner.GetMedia(pb.GetMediaRequest(title=title.name))) == (
        "PERMISSION_DENIED",
        "SERVICE_ONLY",
    )
    assert await refused(create(viewer)) == ("PERMISSION_DENIED", "ROLE_MISSING")


async def test_only_failed_media_can_be_replaced(world: World) -> None:
    owner = await world.stub("users/ann", "publisher")
    title, service = await playable(world, owner)
    viewer = await world.stub("users/bob")
    assert await refused(begin(service, title, "jobs/j2")) == ("FAILED_PRECONDITION", "MEDIA_EXISTS")
    again = await begin(service, title)
    assert again == (await service.GetMedia(pb.GetMediaRequest(title=title.name))).media

    failure = status_pb2.Status(code=9, message="the source ends early")
    assert await refused(
        service.FailMedia(pb.FailMediaRequest(title=title.name, job="jobs/j2", error=failure))
    ) == (
        "FAILED_PRECONDITION",
        "NOT_THE_TITLES_JOB",
    )
    await service.FailMedia(pb.FailMediaRequest(title=title.name, job=JOB, error=failure))
    await service.FailMedia(pb.FailMediaRequest(title=title.name, job=JOB, error=status_pb2.Status(code=1)))
    failed = (await viewer.GetTitle(pb.GetTitleRequest(name=title.name))).title
    assert (failed.state, failed.error) == (Title.STATE_FAILED, failure)
    assert await refused(publish(service, title, "h264-480", 2)) == ("FAILED_PRECONDITION", "MEDIA_FAILED")

    media = await begin(service, title, "jobs/j2")
    assert (media.job, media.state, media.renditions[0].ready_segment_count) == (
        "jobs/j2",
        Title.STATE_PROCESSING,
        0,
    )
    assert await refused(viewer.GetTitle(pb.GetTitleRequest(name=title.name))) == (
        "NOT_FOUND",
        "TITLE_NOT_FOUND",
    )
    assert await refused(publish(service, title, "h264-480", 2)) == (
        "FAILED_PRECONDITION",
        "NOT_THE_TITLES_JOB",
    )


async def test_a_replacement_is_its_owners_to_see_and_plays_for_all_once_it_can(world: World) -> None:
    owner, viewer = await world.stub("users/ann", "publisher"), await world.stub("users/bob")
    title, service = await playable(world, owner)
    get = pb.GetTitleRequest(name=title.name)
    request = pb.BeginMediaRequest(title=title.name, job="jobs/j2", replace=True)
    request.timeline.CopyFrom(TIMELINE)
    request.renditions.extend(RENDITIONS)
    begun = await service.BeginMedia(request)
    assert (begun.current_job, begun.media.job, begun.media.state) == (JOB, "jobs/j2", Title.STATE_PROCESSING)
    await service.ExtendTimeline(extension(title, GRID, job="jobs/j2"))
    failure = status_pb2.Status(code=9, message="the source ends early")
    await service.FailMedia(pb.FailMediaRequest(title=title.name, job="jobs/j2", error=failure))
    told = (await owner.GetTitle(get)).title
    assert (told.state, told.job, told.HasField("error")) == (Title.STATE_PLAYABLE, JOB, False)
    assert told.replacement == Replacement(job="jobs/j2", state=Replacement.STATE_FAILED, error=failure)
    assert not (await viewer.GetTitle(get)).title.HasField("replacement")

    assert (await service.BeginMedia(request)).current_job == JOB
    assert (await owner.GetTitle(get)).title.replacement.state == Replacement.STATE_PROCESSING
    before = (await service.GetMedia(pb.GetMediaRequest(title=title.name))).media
    await publish(service, title, "h264-480", 0, 1, job="jobs/j2")
    answer = await publish(service, title, "aac-128-und-0", 0, 1, job="jobs/j2")
    assert answer.state == Title.STATE_PLAYABLE
    now = (await viewer.GetTitle(get)).title
    assert (now.job, now.state, now.HasField("replacement")) == ("jobs/j2", Title.STATE_PLAYABLE, False)
    after = (await service.GetMedia(pb.GetMediaRequest(title=title.name))).media
    assert (after.job, after.replaced, after.etag == before.etag) == ("jobs/j2", False, False)
    old = (await service.GetMedia(pb.GetMediaRequest(title=title.name, job=JOB))).media
    assert (old.job, old.replaced, old.renditions) == (JOB, True, before.renditions)
    listed = pb.ListSegmentsRequest(title=title.name, rendition_id="h264-480", job=JOB)
    assert len((await service.ListSegments(listed)).segments) == 2
    assert await refused(service.GetMedia(pb.GetMediaRequest(title=title.name, job="jobs/j9"))) == (
        "NOT_FOUND",
        "MEDIA_NOT_FOUND",
    )
    request.job = JOB
    assert await refused(service.BeginMedia(request)) == ("FAILED_PRECONDITION", "MEDIA_REPLACED")


async def test_the_first_publication_of_a_segment_stays(world: World) -> None:
    owner = await world.stub("users/ann", "publisher")
    title, service = await playable(world, owner)
    before = (await service.GetMedia(pb.GetMediaRequest(title=title.name))).media
    late = [segment(title, "h264-480", number, attempt=2, size=5) for number in (0, 1)]
    answer = await service.PublishSegments(
        publication(title, "h264-480", *late, segment(title, "h264-480", 2))
    )
    assert list(answer.superseded_object_keys) == [one.object_key for one in late]
    repeated = await publish(service, title, "h264-480", 0, 1)
    assert list(repeated.superseded_object_keys) == []
    listed = await service.ListSegments(pb.ListSegmentsRequest(title=title.name, rendition_id="h264-480"))
    assert list(listed.segments) == [segment(title, "h264-480", number) for number in range(3)]
    after = (await service.GetMedia(pb.GetMediaRequest(title=title.name))).media
    assert before.etag != after.etag
    assert (after.renditions[1].ready_segment_count, after.renditions[1].peak_bits_per_second) == (3, 1599)


async def test_contradicting_publications_are_refused(world: World) -> None:
    owner = await world.stub("users/ann", "publisher")
    title, service = await playable(world, owner)
    one = segment(title, "h264-480", 2)
    foreign = media_pb2.Segment()
    foreign.CopyFrom(one)
    foreign.object_key = "sources/secret"
    cases = [
        (
            publication(title, "h264-480", one, init_sha256=b"x" * 32),
            "FAILED_PRECONDITION",
            "INIT_SEGMENT_DIFFERS",
        ),
        (publication(title, "h264-480", one, timescale=1), "FAILED_PRECONDITION", "INIT_SEGMENT_DIFFERS"),
        (
            publication(title, "h264-480", segment(title, "h264-480", 4)),
            "FAILED_PRECONDITION",
            "SEGMENT_OUTSIDE_GRID",
        ),
        (publication(title, "h264-999", one), "NOT_FOUND", "RENDITION_NOT_FOUND"),
        (publication(title, "h264-480", one, one), "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        (publication(title, "h264-480", foreign), "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
        (publication(title, "h264-480", one, job="jobs/j9"), "FAILED_PRECONDITION", "NOT_THE_TITLES_JOB"),
    ]
    for request, code, reason in cases:
        assert await refused(service.PublishSegments(request)) == (code, reason)
    await publish(service, title, "aac-128-und-0", 2, last=True)
    assert await refused(publish(service, title, "aac-128-und-0", 3)) == (
        "FAILED_PRECONDITION",
        "SEGMENT_AFTER_LAST",
    )


async def test_extras_may_come_at_any_time_and_are_the_titles_own_jobs_only(world: World) -> None:
    title, service = await playable(world, await world.stub("users/ann", "publisher"))
    before = (await service.GetMedia(pb.GetMediaRequest(title=title.name))).media
    extras = media_pb2.Extras(
        text_tracks=[
            media_pb2.TextTrack(
                track_id="vtt-eng-0", language="eng", object_key="k", size_bytes=9, sha256=bytes(32)
            )
        ],
        chapters=[
            media_pb2.Chapter(
                start_offset=Duration(seconds=0), end_offset=Duration(seconds=3), name="Opening"
            )
        ],
    )
    wanted = pb.PublishExtrasRequest(title=title.name, job=JOB, extras=extras)
    for _ in range(2):
        await service.PublishExtras(wanted)
    after = (await service.GetMedia(pb.GetMediaRequest(title=title.name))).media
    assert (after.extras, after.etag != before.etag) == (extras, True)
    assert list(after.timeline.segment_start_ticks) == GRID
    wanted.job = "jobs/other"
    assert (await refused(service.PublishExtras(wanted)))[1] == "NOT_THE_TITLES_JOB"


async def test_a_published_grid_never_changes(world: World) -> None:
    owner, service = await world.stub("users/ann", "publisher"), await world.stub(None)
    title = await create(owner)
    assert await refused(service.ExtendTimeline(extension(title, GRID))) == (
        "FAILED_PRECONDITION",
        "NOT_THE_TITLES_JOB",
    )
    await service.BeginMedia(pb.BeginMediaRequest(title=title.name, job=JOB))
    assert await refused(service.ExtendTimeline(extension(title, GRID))) == (
        "FAILED_PRECONDITION",
        "MEDIA_NOT_READ",
    )
    await begin(service, title)
    highlight = media_pb2.Highlight(
        start_offset=Duration(seconds=1), end_offset=Duration(seconds=3), reason="loud"
    )
    await service.ExtendTimeline(extension(title, GRID[:3], planned=False, highlights=[highlight]))
    for starts in ([0, 150151], GRID[:2], []):
        assert await refused(service.ExtendTimeline(extension(title, starts))) == (
            "FAILED_PRECONDITION",
            "GRID_CHANGED",
        )
    for starts in ([*GRID[:3], GRID[2]], [*GRID, 600600]):
        assert (await refused(service.ExtendTimeline(extension(title, starts))))[0] == "INVALID_ARGUMENT"
    await service.ExtendTimeline(extension(title, GRID, highlights=[highlight]))
    assert await refused(service.ExtendTimeline(extension(title, [*GRID, 500500]))) == (
        "FAILED_PRECONDITION",
        "GRID_CHANGED",
    )
    backwards = media_pb2.Highlight(start_offset=Duration(seconds=3), end_offset=Duration(seconds=3))
    assert (await refused(service.ExtendTimeline(extension(title, GRID, highlights=[backwards]))))[0] == (
        "INVALID_ARGUMENT"
    )
    media = (await service.GetMedia(pb.GetMediaRequest(title=title.name))).media
    assert (list(media.highlights), list(media.timeline.segment_start_ticks)) == ([highlight], GRID)


async def test_segments_are_listed_by_number_with_gaps_left_out(world: World) -> None:
    owner = await world.stub("users/ann", "publisher")
    title, service = await playable(world, owner)
    await publish(service, title, "h264-480", 3)

    async def numbers(**fields: Any) -> tuple[list[int], int]:
        request = pb.ListSegmentsRequest(title=title.name, rendition_id="h264-480", **fields)
        page = await service.ListSegments(request)
        return [one.number for one in page.segments], page.next_segment

    assert await numbers() == ([0, 1, 3], 0)
    assert await numbers(page_size=2) == ([0, 1], 3)
    assert await numbers(first_segment=2) == ([3], 0)
    assert await numbers(first_segment=4) == ([], 0)


async def test_every_change_reaches_the_search_index_and_deletion_too(world: World) -> None:
    owner = await world.stub("users/ann", "publisher")
    title, _ = await playable(world, owner)
    await world.search.until(lambda known: title.name in known and known[title.name].visible)
    await owner.UpdateTitle(
        pb.UpdateTitleRequest(
            title=Title(name=title.name, display_name="Solyaris"),
            update_mask=FieldMask(paths=["display_name"]),
        )
    )
    await world.search.until(lambda known: known[title.name].display_name == "Solyaris")
    await owner.DeleteTitle(pb.DeleteTitleRequest(name=title.name))
    await world.search.until(lambda known: known[title.name].deleted)
    versions = [version for name, version in world.search.heard if name == title.name]
    assert versions == sorted(versions)


async def test_the_outbox_survives_an_outage_and_a_restart(tmp_path: Path) -> None:
    clock, search = ManualClock(), FakeSearch()
    search.down = True
    async with AsyncExitStack() as stack:
        process = await stack.enter_async_context(serving(tmp_path, clock=clock, catalog=build_with(search)))
        world = World(process, stack, clock, search)
        title = await create(await world.stub("users/ann", "publisher"))
        async with asyncio.timeout(20):
            await search.changed.wait()
    assert search.known == {}
    search.down = False
    async with serving(tmp_path, clock=clock, catalog=build_with(search)):
        await search.until(lambda known: title.name in known)
    assert search.known[title.name].display_name == "Solaris"


async def test_deleted_titles_are_gone_at_once(world: World) -> None:
    owner = await world.stub("users/ann", "publisher")
    title, service = await playable(world, owner)
    await owner.DeleteTitle(pb.DeleteTitleRequest(name=title.name))
    missing = ("NOT_FOUND", "TITLE_NOT_FOUND")
    assert await refused(owner.DeleteTitle(pb.DeleteTitleRequest(name=title.name))) == missing
    assert await refused(owner.GetTitle(pb.GetTitleRequest(name=title.name))) == missing
    assert await refused(service.GetMedia(pb.GetMediaRequest(title=title.name))) == missing
    assert await refused(publish(service, title, "h264-480", 2)) == missing
    assert list((await owner.ListTitles(pb.ListTitlesRequest())).titles) == []


async def test_ten_thousand_segments_are_published_and_read_back(world: World) -> None:
    owner, service, count = await world.stub("users/ann", "publisher"), await world.stub(None), 10_000
    title = await create(owner)
    runs = [
        media_pb2.FrameRun(count=1, duration_ticks=150 * FRAME_TICKS + number % 2) for number in range(count)
    ]
    timeline = media_pb2.Timeline(timescale=FPS_TIMESCALE, frame_runs=runs)
    rendition = media_pb2.Rendition(rendition_id="h264-480", video=LOW)
    await service.BeginMedia(
        pb.BeginMediaRequest(title=title.name, job=JOB, timeline=timeline, renditions=[rendition])
    )
    starts = [number * 150 * FRAME_TICKS for number in range(count)]
    await service.ExtendTimeline(extension(title, starts))
    state = Title.STATE_PROCESSING
    for first in (*range(1000, count, 1000), 0):
        state = (await publish(service, title, "h264-480", *range(first, first + 1000))).state
    assert state == Title.STATE_COMPLETE
    got = (await service.GetMedia(pb.GetMediaRequest(title=title.name))).media
    assert got.renditions[0].ready_segment_count == len(got.timeline.segment_start_ticks) == count
    assert got.timeline.frame_runs == timeline.frame_runs
    seen, following = 0, 0
    while True:
        request = pb.ListSegmentsRequest(
            title=title.name, rendition_id="h264-480", first_segment=following, page_size=2000
        )
        page = await service.ListSegments(request)
        seen, following = seen + len(page.segments), page.next_segment
        if not following:
            break
    assert seen == count
