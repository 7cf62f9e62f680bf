"""How a file of the page is answered: type, caching, security headers, compressed or not. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from services.runtime.coding import accepts

Headers = tuple[tuple[str, str], ...]

INDEX = "index.html"

_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "ico": "image/x-icon",
    "jpg": "image/jpeg",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "map": "application/json",
    "png": "image/png",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
    "wasm": "application/wasm",
    "webmanifest": "application/manifest+json",
    "webp": "image/webp",
    "woff2": "font/woff2",
}
#: Vite puts eight characters of hash before the extension.
_HASHED = re.compile(r".+-[A-Za-z0-9_-]{8}\.[a-z0-9]+")

#: Nothing but our own files and calls; media and previews come from memory (`blob:`, `data:`).
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "font-src 'self'",
        "media-src 'self' blob: data:",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
SECURITY: Headers = (
    ("content-security-policy", _POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=()"),
)


@dataclass(frozen=True, kw_only=True)
class Asset:
    """A file of the page, with its compressed copy if the build made one."""

    name: str
    #: SHA-256 of the plain content, hexadecimal.
    digest: str
    plain: bytes
    brotli: bytes | None


@dataclass(frozen=True, kw_only=True)
class Reply:
    """Headers (the status among them as `x-http-status`, unless 200) and content."""

    headers: Headers
    content_type: str
    content: bytes


def content_type(name: str) -> str:
    """The media type of a file, by its extension."""
    return _TYPES.get(name.rpartition(".")[2], "application/octet-stream")


def reply(asset: Asset, request: Mapping[str, str]) -> Reply:
    """The answer to a GET or HEAD with these headers.

    Hashed files are cached for ever; all others are revalidated by their `etag` (RFC 9111; 304 by RFC 9110,
    13.1.2).
    """
    brotli = asset.brotli if accepts(request.get("accept-encoding", ""), "br") else None
    etag = f'"{asset.digest[:32]}{"-br" if brotli is not None else ""}"'
    cached = "public, max-age=31536000, immutable" if _HASHED.fullmatch(asset.name) else "no-cache"
    headers: Headers = (("etag", etag), ("cache-control", cached), ("vary", "accept-encoding"), *SECURITY)
    kind = content_type(asset.name)
    if _matches(request.get("if-none-match", ""), etag):
        return Reply(headers=(("x-http-status", "304"), *headers), content_type=kind, content=b"")
    content = asset.plain if brotli is None else brotli
    if brotli is not None:
        headers = ("content-encoding", "br"), *headers
    headers = ("x-http-content-length", str(len(content))), *headers
    # The gateway calls with POST, and tells the method it was called with.
    head = request.get("x-envoy-original-method") == "HEAD"
    return Reply(headers=headers, content_type=kind, content=b"" if head else content)


def _matches(condition: str, etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in condition.split(",")]
    return "*" in tags or etag in tags
