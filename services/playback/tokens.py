"""The sealed token of a lease: what a client shows, and what it says about its holder."""

from __future__ import annotations

from datetime import UTC, timedelta

from kino.playback.v1.resources_pb2 import LeaseClaims
from services.playback.model import Lease
from services.playback.usecases import TOKEN_TTL
from services.runtime.sealed import Sealer

#: Kind of the sealed token; history opens it too.
KIND = "lease"


class LeaseTokens:
    """Makes and opens tokens."""

    def __init__(self, sealer: Sealer, ttl: timedelta) -> None:
        """`ttl` is how long a lease surely lived after its start."""
        self._sealer = sealer
        self._ttl = ttl

    def seal(self, lease: Lease) -> str:
        """A token for a lease."""
        claims = LeaseClaims(
            lease=lease.name,
            profile=lease.profile,
            title=lease.title,
            device=lease.device,
            job=lease.job,
            concurrent_stream_limit=lease.stream_limit,
        )
        claims.start_time.FromDatetime(lease.start_time)
        claims.title_duration.FromNanoseconds(lease.title_duration_ns)
        return self._sealer.seal(KIND, claims.SerializeToString(), lease.start_time + TOKEN_TTL)

    def open(self, token: str) -> Lease:
        """The lease a token stands for, with its first end. Raises `SealBroken`, `SealExpired`."""
        claims = LeaseClaims.FromString(self._sealer.open(KIND, token))
        start_time = claims.start_time.ToDatetime(UTC)
        return Lease(
            name=claims.lease,
            profile=claims.profile,
            title=claims.title,
            device=claims.device,
            start_time=start_time,
            expire_time=start_time + self._ttl,
            title_duration_ns=claims.title_duration.ToNanoseconds(),
            job=claims.job,
            stream_limit=claims.concurrent_stream_limit,
        )
