"""Starting playback: who may watch what, on how many streams, from where."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Protocol

from services.playback.errors import (
    NotAtAnEdge,
    NotEntitled,
    ProfileNotFound,
    TitleNotFound,
    TitleNotPlayable,
)
from services.playback.leases import Leases
from services.playback.model import Lease, TitleMedia, resume_ns
from services.playback.titles import Titles
from services.runtime.auth import OPERATOR, PUBLISHER, NotYours, Principal
from services.runtime.clock import Clock
from services.runtime.errors import KinoError
from services.runtime.ids import new_id
from services.runtime.logs import logger

_log = logger("playback")


@dataclass(frozen=True, kw_only=True)
class Entitlement:
    """What billing answers."""

    entitled: bool
    concurrent_stream_limit: int
    #: When not entitled: why, in upper snake case.
    reason: str


class Entitlements(Protocol):
    """Billing."""

    async def of(self, user: str) -> Entitlement:
        """What `users/{user}` may watch now."""


class Rights(Protocol):
    """Catalog."""

    async def check_rights(self, title: str, region: str) -> None:
        """Raises `TitleOutsideRegion`, `TitleNotYet` or `TitleExpired` where its rights don't reach."""


class Profiles(Protocol):
    """Identity."""

    async def exists(self, profile: str) -> bool:
        """Whether `users/{user}/profiles/{profile}` is there."""


class Positions(Protocol):
    """History."""

    async def position_ns(self, profile: str, title: str) -> int | None:
        """Where a profile stopped last; None when it has not begun."""


class Routes(Protocol):
    """The edges."""

    async def route(self, title: str) -> list[str]:
        """Addresses of edges for one more viewer of a title, best first; may be empty, never fails."""


@dataclass(frozen=True, kw_only=True)
class Started:
    """A started playback."""

    lease: Lease
    resume_ns: int
    media: TitleMedia
    #: Addresses of edges to stream from, best first.
    edges: list[str]


class Resume:
    """Where a profile goes on."""

    def __init__(self, positions: Positions) -> None:
        self._positions = positions

    async def offset_ns(self, profile: str, media: TitleMedia) -> int:
        """Where it stopped; the start when it has not begun or finished, and while history can't tell."""
        try:
            position_ns = await self._positions.position_ns(profile, media.title)
        except KinoError as error:
            _log.warning(
                "history does not answer, playback starts at zero", reason=error.reason, title=media.title
            )
            return 0
        return 0 if position_ns is None else resume_ns(position_ns, media.duration_ns)


class StartPlayback:
    """Takes one of an account's streams for a title."""

    def __init__(
        self,
        *,
        entitlements: Entitlements,
        rights: Rights,
        profiles: Profiles,
        resume: Resume,
        titles: Titles,
        leases: Leases,
        routes: Routes | None,
        clock: Clock,
        staff_streams: int,
    ) -> None:
        """`staff_streams` is the limit of publishers and operators, who need no plan.

        Without `routes` this node is itself an edge, and starts nothing.
        """
        self._entitlements = entitlements
        self._rights = rights
        self._profiles = profiles
        self._resume = resume
        self._titles = titles
        self._leases = leases
        self._routes = routes
        self._clock = clock
        self._staff_streams = staff_streams

    async def __call__(
        self, caller: Principal, *, title: str, profile: str, device: str, region: str, request_id: str
    ) -> Started:
        """`region` is where the caller is, empty when not known.

        Raises `NotYours`, `ProfileNotFound`, `TitleNotFound`, `TitleNotPlayable`, `NotEntitled`,
        `ConcurrentStreamLimit`, `TitleOutsideRegion`, `TitleNotYet`, `TitleExpired`, `NotAtAnEdge`.
        """
        if self._routes is None:
            raise NotAtAnEdge()
        if not (caller.owns(profile) or caller.is_service):
            raise NotYours(profile)
        user = profile.partition("/profiles/")[0]
        media, limit, known = await asyncio.gather(
            self._titles.asked(title), self._limit(caller, user), self._profiles.exists(profile)
        )
        if not known:
            raise ProfileNotFound(profile)
        _check_shown(media, caller)
        if not _manages(caller, media):
            await self._rights.check_rights(title, region)
        now = self._clock.now()
        lease = Lease(
            name=f"leases/{new_id()}",
            profile=profile,
            title=title,
            device=device,
            start_time=now,
            expire_time=now + self._leases.ttl,
            title_duration_ns=media.duration_ns,
        )
        taken, offset_ns = await asyncio.gather(
            self._leases.take(lease, limit, request_id), self._resume.offset_ns(profile, media)
        )
        taken = replace(taken, job=media.job, title_duration_ns=media.duration_ns, stream_limit=limit)
        # Only now: a start that was refused is no viewer of an edge.
        edges = await self._routes.route(title)
        return Started(lease=taken, resume_ns=offset_ns, media=media, edges=edges)

    async def _limit(self, caller: Principal, user: str) -> int:
        if caller.has_role(PUBLISHER) and not caller.is_service:
            return self._staff_streams
        entitlement = await self._entitlements.of(user)
        if not entitlement.entitled:
            raise NotEntitled(entitlement.reason)
        return entitlement.concurrent_stream_limit


def _manages(caller: Principal, media: TitleMedia) -> bool:
    """Whether a title is the caller's to watch whatever its state and rights are."""
    return caller.owns(media.owner) or caller.has_role(OPERATOR)


def _check_shown(media: TitleMedia, caller: Principal) -> None:
    """Raises `TitleNotFound` for a title the caller may not see, `TitleNotPlayable` for an empty one."""
    if not (media.shown or _manages(caller, media)):
        raise TitleNotFound(media.title)
    if media.ready_segment_count == 0:
        raise TitleNotPlayable(media.title)


#: How long a lease's token can be opened: a day for late reports to history.
TOKEN_TTL = timedelta(hours=24)
