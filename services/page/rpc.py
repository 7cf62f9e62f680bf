"""`kino.page.v1.PageService`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from google.api.httpbody_pb2 import HttpBody

from kino.page.v1 import page_pb2, page_pb2_grpc
from services.page.model import INDEX, reply
from services.page.store import AssetStore

#: Content of one message.
_PIECE_BYTES = 256 << 10


class PageServicer(page_pb2_grpc.PageServiceServicer):
    """Serves the page's files."""

    def __init__(self, assets: AssetStore) -> None:
        self._assets = assets

    async def GetAsset(self, request: page_pb2.GetAssetRequest, context: Any) -> AsyncIterator[HttpBody]:
        """See the contract."""
        metadata = context.invocation_metadata() or ()
        asked = {key: value for key, value in metadata if isinstance(value, str)}
        answer = reply(await self._assets.get(request.path or INDEX), asked)
        await context.send_initial_metadata(answer.headers)
        for start in range(0, max(len(answer.content), 1), _PIECE_BYTES):
            data = answer.content[start : start + _PIECE_BYTES]
            yield HttpBody(content_type=answer.content_type, data=data)
