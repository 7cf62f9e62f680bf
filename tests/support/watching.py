"""What it takes to watch the published film: a plan, a start."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import grpc
from google.protobuf.message import Message

from kino.billing.v1 import billing_pb2
from kino.identity.v1 import identity_pb2
from kino.identity.v1.resources_pb2 import Profile
from kino.playback.v1 import playback_pb2 as pb
from services.encoder.model import VideoCodec, VideoRung
from services.media.testfilm import FilmSpec
from services.runtime.app import Context, ServiceApp
from tests.support.published import PUBLISHER

SPEC = FilmSpec(seconds=Fraction(12), width=640, height=360, cuts=(5.4, 9.7), loud=None)
FILM = SPEC.timeline
CUTS = (0, 161, 290, FILM.frame_count)
VIEWER, PROFILE = "users/ann", "users/ann/profiles/main"
OWNERS_PROFILE = f"{PUBLISHER}/profiles/main"


def rung(codec: str, height: int, crf: float) -> VideoRung:
    width = height * 16 // 18 * 2
    return VideoRung(
        rendition_id=f"{codec}-{height}", width=width, height=height, crf=crf, max_bits_per_second=10**6
    )


RUNGS = {
    VideoCodec.H264: [rung("h264", 360, 23), rung("h264", 240, 23)],
    VideoCodec.AV1: [rung("av1", 240, 35)],
}


@dataclass
class Plans:
    """Billing, with its answers in a table."""

    limits: dict[str, int]

    async def check(
        self, request: billing_pb2.CheckEntitlementRequest, context: object
    ) -> billing_pb2.CheckEntitlementResponse:
        response = billing_pb2.CheckEntitlementResponse()
        limit = self.limits.get(request.user, 0)
        response.entitlement.entitled = limit > 0
        response.entitlement.concurrent_stream_limit = limit
        response.entitlement.reason = "" if limit else "INVOICE_UNPAID"
        return response

    async def build(self, ctx: Context) -> ServiceApp:
        request, response = billing_pb2.CheckEntitlementRequest, billing_pb2.CheckEntitlementResponse
        return _app("billing", "CheckEntitlement", self.check, request, response)


async def accounts(ctx: Context) -> ServiceApp:
    """Identity, for whom everybody has the one profile `main`."""

    async def profiles(
        request: identity_pb2.ListProfilesRequest, context: object
    ) -> identity_pb2.ListProfilesResponse:
        return identity_pb2.ListProfilesResponse(profiles=[Profile(name=f"{request.parent}/profiles/main")])

    request, response = identity_pb2.ListProfilesRequest, identity_pb2.ListProfilesResponse
    return _app("identity", "ListProfiles", profiles, request, response)


def _app(name: str, method: str, answer: Any, request: type[Message], response: type[Message]) -> ServiceApp:
    service = f"kino.{name}.v1.{name.capitalize()}Service"
    handler = grpc.unary_unary_rpc_method_handler(
        answer, request_deserializer=request.FromString, response_serializer=response.SerializeToString
    )
    handlers = grpc.method_handlers_generic_handler(service, {method: handler})
    return ServiceApp(
        name=name,
        grpc_services=[service],
        register=lambda server: server.add_generic_rpc_handlers((handlers,)),
    )


async def start(stub: Any, title: str, *, metadata: Any = None, **fields: str) -> pb.StartPlaybackResponse:
    """Start playback of a title, for the viewer unless `fields` say otherwise."""
    request = {
        "title": title,
        "profile": PROFILE,
        "device": "sofa",
        "request_id": str(uuid.uuid4()),
        **fields,
    }
    response: pb.StartPlaybackResponse = await stub.StartPlayback(
        pb.StartPlaybackRequest(**request), metadata=metadata
    )
    return response
