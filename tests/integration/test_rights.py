"""Where and when a title may be watched, from the gateway's header to the refusal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from kino.catalog.v1 import catalog_pb2, resources_pb2
from kino.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from kino.playback.v1.playback_pb2_grpc import PlaybackServiceStub
from services.catalog.bootstrap import build as build_catalog
from services.history.bootstrap import build as build_history
from services.playback.bootstrap import build as build_playback
from services.runtime.app import Running
from services.runtime.clock import ManualClock
from services.runtime.testing import channel_of, serving, settings_in, user_token
from tests.integration.test_playback import refusal
from tests.support.published import PUBLISHER, Film, Publisher
from tests.support.watching import OWNERS_PROFILE, VIEWER, Plans, accounts, start


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def process(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Running]:
    async with serving(
        tmp_path,
        clock=clock,
        settings=settings_in(tmp_path, region="AT", region_header="x-kino-region"),
        catalog=build_catalog,
        history=build_history,
        billing=Plans(limits={VIEWER: 9}).build,
        identity=accounts,
        playback=build_playback,
    ) as running:
        yield running


@pytest.fixture
async def title(process: Running, film: Film, clock: ManualClock) -> str:
    """May be watched in Germany from in a minute on, for a minute."""
    name = await Publisher(process, film).publish_all()
    begin, end = Timestamp(), Timestamp()
    begin.FromDatetime(clock.now().astimezone(UTC) + timedelta(minutes=1))
    end.FromDatetime(clock.now().astimezone(UTC) + timedelta(minutes=2))
    window = resources_pb2.RightsWindow(start_time=begin, end_time=end, region_codes=["DE"])
    async with channel_of(process, user_token(process, PUBLISHER, "publisher")) as channel:
        request = catalog_pb2.UpdateTitleRequest(
            title=resources_pb2.Title(name=name, rights=[window]), update_mask=FieldMask(paths=["rights"])
        )
        await CatalogServiceStub(channel).UpdateTitle(request)
    return name


@pytest.fixture
async def viewer(process: Running) -> AsyncIterator[Any]:
    async with channel_of(process, user_token(process, VIEWER, "viewer")) as channel:
        yield PlaybackServiceStub(channel)


async def test_a_title_is_refused_outside_its_regions_and_its_window(
    viewer: Any, title: str, clock: ManualClock
) -> None:
    def there(region: str) -> dict[str, Any]:
        return {"metadata": (("x-kino-region", region),)}

    outside = ("PERMISSION_DENIED", "TITLE_OUTSIDE_REGION")
    early = ("FAILED_PRECONDITION", "TITLE_NOT_YET_AVAILABLE")
    late = ("FAILED_PRECONDITION", "TITLE_NO_LONGER_AVAILABLE")
    for region in ("FR", "XX", "nowhere"):
        assert await refusal(start(viewer, title, **there(region))) == outside
    assert await refusal(start(viewer, title)) == outside
    assert await refusal(start(viewer, title, **there("DE"))) == early
    clock.advance(60)
    assert (await start(viewer, title, **there("de"))).lease.token
    clock.advance(60)
    assert await refusal(start(viewer, title, **there("DE"))) == late


async def test_its_owner_watches_a_title_whatever_its_rights_are(process: Running, title: str) -> None:
    async with channel_of(process, user_token(process, PUBLISHER, "publisher")) as channel:
        answer = await start(PlaybackServiceStub(channel), title, profile=OWNERS_PROFILE)
        assert answer.lease.token


async def test_an_unpublished_title_does_not_exist_for_viewers(
    process: Running, viewer: Any, title: str
) -> None:
    async with channel_of(process, user_token(process, PUBLISHER, "publisher")) as channel:
        await CatalogServiceStub(channel).UnpublishTitle(catalog_pb2.UnpublishTitleRequest(name=title))
    assert await refusal(start(viewer, title)) == ("NOT_FOUND", "TITLE_NOT_FOUND")
