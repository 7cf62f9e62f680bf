"""HTTP as a handler behind the gateway's transcoder sees it: request headers in, status and headers out.

The gateway maps the metadata `x-http-status` and `x-http-content-length` of an answer to what they name, and
passes the rest on as headers.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from services.runtime.coding import accepts

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")

Headers = tuple[tuple[str, str], ...]

#: The gateway calls with POST, and tells the method it was called with.
_METHOD = "x-envoy-original-method"
#: A smaller text fits into one packet anyhow.
_WORTH_BYTES = 1024


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Status, headers, and which bytes of the content to send."""

    headers: Headers
    start: int
    end: int


def answer(request: Mapping[str, str], *, size_bytes: int, etag: str, cache_control: str) -> Answer:
    """How to answer a GET or HEAD for content of that size and strong `etag` (without quotes).

    `If-None-Match` comes before `Range`, which counts only where `If-Range`, if given, names this content
    (RFC 9110, 13.2.2). Of several ranges none is honoured (14.2 allows it), one that can't be satisfied is
    refused with 416.
    """
    quoted = f'"{etag}"'
    common: Headers = (("etag", quoted), ("cache-control", cache_control), ("accept-ranges", "bytes"))
    if _matches(request.get("if-none-match", ""), quoted):
        return Answer(headers=(("x-http-status", "304"), *common), start=0, end=0)
    wanted = request.get("range", "") if request.get("if-range", quoted) == quoted else ""
    asked = _range(wanted, size_bytes)
    start, end = asked or (0, size_bytes)
    status: Headers = ()
    if asked and start >= end:
        status, start, end = (("x-http-status", "416"), ("content-range", f"bytes */{size_bytes}")), 0, 0
    elif asked:
        status = ("x-http-status", "206"), ("content-range", f"bytes {start}-{end - 1}/{size_bytes}")
    headers = (*status, ("x-http-content-length", str(end - start)), *common)
    head = request.get(_METHOD) == "HEAD"
    return Answer(headers=headers, start=start, end=start if head else end)


def text_answer(
    request: Mapping[str, str], text: bytes, *, etag: str, cache_control: str
) -> tuple[Answer, bytes]:
    """As `answer`, for a text, and its bytes to send from: compressed for a reader that takes it whole so.

    Compressed here, because the gateway's compressor cuts bodies short whose length is told.
    """
    # A browser's gRPC-Web call brings the same header, but its messages must go as they are: it is told from
    # what the gateway translated by the method.
    small = (
        accepts(request.get("accept-encoding", ""), "gzip") and "range" not in request and _METHOD in request
    )
    coded: Headers = ()
    if small and len(text) >= _WORTH_BYTES:
        # Another representation has another tag (RFC 9110, 8.8.3).
        text, etag, coded = _gzipped(text), f"{etag}-gzip", (("content-encoding", "gzip"),)
    made = answer(request, size_bytes=len(text), etag=etag, cache_control=cache_control)
    return replace(made, headers=(*made.headers, *coded, ("vary", "accept-encoding"))), text


@lru_cache(maxsize=64)
def _gzipped(text: bytes) -> bytes:
    """The same for all viewers of a title, so compressed once."""
    return gzip.compress(text, 6, mtime=0)


def _matches(condition: str, quoted: str) -> bool:
    """Weak comparison with each tag of `If-None-Match` (RFC 9110, 13.1.2)."""
    tags = [tag.strip().removeprefix("W/") for tag in condition.split(",")]
    return "*" in tags or quoted in tags


def _range(text: str, size_bytes: int) -> tuple[int, int] | None:
    """Start and end (exclusive) of the one range asked for; empty: can't be satisfied; None: no valid one."""
    found = _RANGE.fullmatch(text.replace(" ", ""))
    if not found or found[0] == "bytes=-":
        return None
    first, last = found[1], found[2]
    if not first:
        return max(size_bytes - int(last), 0), size_bytes if int(last) else 0
    if last and int(last) < int(first):
        return None
    return int(first), min(int(last) + 1, size_bytes) if last else size_bytes
