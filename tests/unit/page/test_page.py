from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from kino.page.v1 import page_pb2
from kino.page.v1.page_pb2_grpc import PageServiceStub
from services.page import bootstrap
from services.page.model import SECURITY, Asset, content_type, reply
from services.page.store import AssetNotFound, PageNotBuilt
from services.page.store_files import FileAssets
from services.runtime.status import error_of
from services.runtime.testing import channel_of, serving

INDEX = b"<!doctype html><title>Kino</title>"
SCRIPT = b"console.log(1);" * 40_000
BROTLI = b"\x0b compressed"


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    folder = tmp_path / "dist"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_bytes(INDEX)
    (folder / "favicon.svg").write_bytes(b"<svg/>")
    (folder / "assets" / "index-Ab12_x-9.js").write_bytes(SCRIPT)
    (folder / "assets" / "index-Ab12_x-9.js.br").write_bytes(BROTLI)
    (folder / ".env").write_bytes(b"secret")
    return folder


def asset(name: str = "index-Ab12_x-9.js", brotli: bytes | None = BROTLI) -> Asset:
    return Asset(name=name, digest=hashlib.sha256(SCRIPT).hexdigest(), plain=SCRIPT, brotli=brotli)


def headers(given: Asset, **request: str) -> dict[str, str]:
    return dict(reply(given, {key.replace("_", "-"): value for key, value in request.items()}).headers)


async def test_files_are_found_beside_the_page_and_in_assets(dist: Path) -> None:
    files = FileAssets(dist)
    found = [await files.get(name) for name in ("index.html", "favicon.svg", "index-Ab12_x-9.js")]
    assert [(one.name, one.plain, one.brotli) for one in found] == [
        ("index.html", INDEX, None),
        ("favicon.svg", b"<svg/>", None),
        ("index-Ab12_x-9.js", SCRIPT, BROTLI),
    ]


@pytest.mark.parametrize("name", ["nothing.js", "index-Ab12_x-9.js.br", ".env", "..", ".", "assets", ""])
async def test_nothing_else_is_found(dist: Path, name: str) -> None:
    with pytest.raises(AssetNotFound):
        await FileAssets(dist).get(name)


async def test_a_missing_build_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PageNotBuilt, match=r"^The web page is not built: run `make web`\.$"):
        await FileAssets(tmp_path / "dist").get("index.html")


async def test_a_new_build_is_served_without_a_restart(dist: Path) -> None:
    files = FileAssets(dist)
    before = await files.get("index.html")
    (dist / "index.html").write_bytes(INDEX + b"!")
    os.utime(dist / "index.html", ns=(1, 1))
    assert (before.plain, (await files.get("index.html")).plain) == (INDEX, INDEX + b"!")


@pytest.mark.parametrize(
    ("accepted", "compressed"),
    [
        ("gzip, deflate, br", True),
        ("br;q=0.5", True),
        ("BR", True),
        ("gzip", False),
        ("br;q=0", False),
        ("br; q=0.000", False),
        ("", False),
        ("brotli", False),
    ],
)
def test_the_compressed_copy_goes_to_those_who_accept_it(accepted: str, compressed: bool) -> None:
    answer = reply(asset(), {"accept-encoding": accepted})
    got = dict(answer.headers)
    assert (answer.content, got.get("content-encoding")) == ((BROTLI, "br") if compressed else (SCRIPT, None))
    assert (got["x-http-content-length"], got["vary"]) == (str(len(answer.content)), "accept-encoding")


def test_hashed_files_are_kept_for_ever_and_the_page_is_asked_for_again() -> None:
    names = ["index-Ab12_x-9.js", "index.html", "favicon.svg", "app-short.js"]
    assert [headers(asset(name))["cache-control"] for name in names] == [
        "public, max-age=31536000, immutable",
        "no-cache",
        "no-cache",
        "no-cache",
    ]


def test_an_etag_that_still_holds_is_answered_without_content() -> None:
    tag = headers(asset())["etag"]
    answer = reply(asset(), {"if-none-match": f'"old", W/{tag}'})
    assert (dict(answer.headers)["x-http-status"], answer.content) == ("304", b"")
    assert "x-http-content-length" not in dict(answer.headers)
    assert "x-http-status" not in headers(asset(), if_none_match=tag, accept_encoding="br")


def test_head_tells_the_length_and_sends_nothing() -> None:
    answer = reply(asset(), {"x-envoy-original-method": "HEAD"})
    assert (dict(answer.headers)["x-http-content-length"], answer.content) == (str(len(SCRIPT)), b"")


def test_every_answer_carries_the_security_headers() -> None:
    tag = headers(asset())["etag"]
    for answer in (headers(asset()), headers(asset(), if_none_match=tag)):
        assert set(SECURITY) <= set(answer.items())
    policy = dict(SECURITY)["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_content_types_go_by_the_extension() -> None:
    names = ["a.html", "a.js", "a.css", "a.svg", "a.woff2", "a.exe", "none"]
    assert [content_type(name).partition(";")[0] for name in names] == [
        "text/html",
        "text/javascript",
        "text/css",
        "image/svg+xml",
        "font/woff2",
        "application/octet-stream",
        "application/octet-stream",
    ]


@pytest.fixture
async def stub(dist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    monkeypatch.setattr(bootstrap, "DIST", dist)
    async with serving(tmp_path, page=bootstrap.build) as process, channel_of(process) as channel:
        yield PageServiceStub(channel)


async def test_anybody_gets_the_page_with_its_headers(stub: Any) -> None:
    call = stub.GetAsset(page_pb2.GetAssetRequest())
    sent = dict(await call.initial_metadata())
    bodies = [body async for body in call]
    assert [(body.content_type, body.data) for body in bodies] == [("text/html; charset=utf-8", INDEX)]
    assert set(SECURITY) <= set(sent.items())


async def test_a_large_file_comes_whole_in_pieces(stub: Any) -> None:
    bodies = [body async for body in stub.GetAsset(page_pb2.GetAssetRequest(path="index-Ab12_x-9.js"))]
    assert b"".join(body.data for body in bodies) == SCRIPT
    assert len(bodies) == 3


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("nothing.js", ("NOT_FOUND", "ASSET_NOT_FOUND")),
        ("../secret", ("INVALID_ARGUMENT", "VALIDATION_FAILED")),
    ],
)
async def test_unknown_and_hostile_names_are_refused(stub: Any, path: str, expected: tuple[str, str]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        _ = [body async for body in stub.GetAsset(page_pb2.GetAssetRequest(path=path))]
    error = error_of(caught.value)
    assert (error.code.name, error.reason) == expected
