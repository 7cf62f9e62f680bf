from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta

import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration

from cli.client import Kino
from cli.playing import end_playback, receive, start_playback
from kino.identity.v1 import identity_pb2, identity_pb2_grpc
from kino.playback.v1 import playback_pb2, playback_pb2_grpc
from kino.search.v1 import search_pb2, search_pb2_grpc
from services.runtime.auth import TokenSigner
from services.runtime.clock import ManualClock
from services.runtime.keys import open_keys
from services.runtime.testing import bearer
from tests.support.stack import Stack, refusal
from tests.support.uploads import delete_title, get_title, new_title

LONGEST_NAME = 500


@pytest.mark.parametrize(
    ("offset_ns", "refused"),
    [
        (-1, ("INVALID_ARGUMENT", "VALIDATION_FAILED")),
        (60_000_000_000, ("OUT_OF_RANGE", "OFFSET_OUT_OF_RANGE")),
        (10**18, ("OUT_OF_RANGE", "OFFSET_OUT_OF_RANGE")),
    ],
    ids=["negative", "at the end", "past the end"],
)
async def test_an_offset_outside_the_film_is_refused(
    stack: Stack, viewer: Kino, offset_ns: int, refused: tuple[str, str]
) -> None:
    started = await start_playback(viewer, stack.title, "test")
    offset = Duration()
    offset.FromNanoseconds(offset_ns)
    request = playback_pb2.PlayRequest(lease_token=started.lease.token, offset=offset)

    answer = await refusal(receive(viewer, request))
    await end_playback(viewer, started.lease.token)

    assert answer == refused


async def test_an_unknown_title_is_refused(viewer: Kino) -> None:
    answer = await refusal(start_playback(viewer, "titles/there-is-no-such-title", "test"))

    assert answer == ("NOT_FOUND", "TITLE_NOT_FOUND")


async def test_nobody_plays_without_an_account_or_a_plan(stack: Stack) -> None:
    who = f"newcomer-{uuid.uuid4().hex[:8]}"
    stack.sign_up(who, f"{who}@example.org")
    async with stack.connect(who) as newcomer:
        unpaid = await refusal(start_playback(newcomer, stack.title, "test"))
        profile = await newcomer.profile()
    async with stack.connect("nobody") as nobody:
        request = playback_pb2.StartPlaybackRequest(
            title=stack.title, profile=profile, request_id=str(uuid.uuid4())
        )
        stub = nobody.stub(playback_pb2_grpc.PlaybackServiceStub)
        unknown = await refusal(stub.StartPlayback(request))

    assert unpaid == ("PERMISSION_DENIED", "NOT_ENTITLED")
    assert unknown[0] == "UNAUTHENTICATED"


async def test_another_ones_profile_is_refused(stack: Stack, viewer: Kino) -> None:
    who = f"stranger-{uuid.uuid4().hex[:8]}"
    stack.sign_up(who, f"{who}@example.org")
    async with stack.connect(who) as stranger:
        request = playback_pb2.StartPlaybackRequest(
            title=stack.title, profile=await viewer.profile(), request_id=str(uuid.uuid4())
        )
        answer = await refusal(stranger.stub(playback_pb2_grpc.PlaybackServiceStub).StartPlayback(request))

    assert answer == ("PERMISSION_DENIED", "NOT_OWNER")


async def test_an_expired_token_is_refused_and_a_forged_lease_too(stack: Stack, viewer: Kino) -> None:
    keys = open_keys(stack.suite.data_dir / "keys")
    past = ManualClock(datetime.now(UTC) - timedelta(hours=1))
    expired, _ = TokenSigner(keys.signing_pem, past).sign(viewer.user, frozenset({"viewer"}), "sessions/x")
    address = stack.gateway.removeprefix("http://")
    async with grpc.aio.insecure_channel(address) as channel:
        stub = identity_pb2_grpc.IdentityServiceStub(channel)
        request = identity_pb2.GetUserRequest(name=viewer.user)
        refused = await refusal(stub.GetUser(request, metadata=bearer(expired)))
        tampered = await refusal(stub.GetUser(request, metadata=bearer(expired[:-4] + "AAAA")))
    forged = await refusal(receive(viewer, playback_pb2.PlayRequest(lease_token="A" * 120)))

    assert refused[0] == tampered[0] == forged[0] == "UNAUTHENTICATED"
    assert refused[1] in ("TOKEN_EXPIRED", "TOKEN_INVALID")
    assert tampered[1] == "TOKEN_INVALID"


async def test_a_name_of_ten_kilobytes_is_refused(operator: Kino) -> None:
    assert await refusal(new_title(operator, "x" * 10_240)) == ("INVALID_ARGUMENT", "VALIDATION_FAILED")


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("🎬🍿 Popcorn 🐇", "popcrn"),
        ("سينما الجديدة", "سينما"),
        ("הקולנוע הישן", "הקולנוע"),
        ("é" * LONGEST_NAME, ""),
        ("'; DROP TABLE titles; --", "drop table titles"),
    ],
    ids=["emoji", "arabic", "hebrew", "longest", "sql"],
)
async def test_names_of_any_script_come_back_as_they_were(operator: Kino, name: str, query: str) -> None:
    title = await new_title(operator, name)

    shown = (await get_title(operator, title.name)).display_name
    found = not query or await finds(operator, query, title.name)
    await delete_title(operator, title.name)

    assert shown == name
    assert found


async def finds(kino: Kino, query: str, title: str) -> bool:
    """Whether the search finds a title, which it hears of a moment after the catalogue."""
    stub = kino.stub(search_pb2_grpc.SearchServiceStub)
    for _ in range(100):
        answer = await stub.SearchTitles(search_pb2.SearchTitlesRequest(query=query))
        if title in [hit.title for hit in answer.hits]:
            return True
        await asyncio.sleep(0.05)
    return False
