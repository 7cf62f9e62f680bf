"""What it takes to watch the published film: a plan, a start."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import grpc

from kino.billing.v1 import billing_pb2
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
        handler = grpc.unary_unary_rpc_method_handler(
            self.check,
            request_deserializer=billing_pb2.CheckEntitlementRequest.FromString,
            response_serializer=billing_pb2.CheckEntitlementResponse.SerializeToString,
        )
        service = "kino.billing.v1.BillingService"
        handlers = grpc.method_handlers_generic_handler(service, {"CheckEntitlement": handler})
        return ServiceApp(
            name="billing",
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
