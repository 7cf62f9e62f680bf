"""What HTTP players fetch: manifests and segments over HTTP/1.1, with nothing but the addresses in them."""

from __future__ import annotations

import io
import json
import re
import subprocess
import urllib.error
import urllib.request
import xml.etree.ElementTree as ElementTree
from collections.abc import AsyncIterator
from fractions import Fraction
from urllib.parse import urljoin

import av
import numpy as np
import pytest

from cli.playing import end_playback, start_playback
from kino.playback.v1 import playback_pb2
from services.media.testfilm import read_frame_number
from tests.support.mpd import faults
from tests.support.stack import ROOT, Stack

DASH = {"d": "urn:mpeg:dash:schema:mpd:2011"}


@pytest.fixture
async def started(stack: Stack) -> AsyncIterator[playback_pb2.StartPlaybackResponse]:
    async with stack.connect("viewer") as viewer:
        answer = await start_playback(viewer, stack.title, "http player")
        yield answer
        await end_playback(viewer, answer.lease.token)


def get(url: str, **headers: str) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
        return bytes(answer.read())


def frame_numbers(data: bytes) -> list[int | None]:
    with av.open(io.BytesIO(data), "r", options={"ignore_editlist": "1"}) as container:
        grays = (frame.to_ndarray(format="gray").astype(np.uint8) for frame in container.decode(video=0))
        return [read_frame_number(gray) for gray in grays]


def playlists(master_url: str, text: str) -> dict[str, str]:
    """The media playlists of a master playlist that hold pictures, by their CODECS attribute."""
    found = re.findall(r"#EXT-X-STREAM-INF:([^\n]+)\n([^\n#]+)", text)
    codecs = [re.search(r'CODECS="([^"]+)"', attributes) for attributes, _ in found]
    return {
        match.group(1): urljoin(master_url, path.strip())
        for match, (_, path) in zip(codecs, found, strict=True)
        if match
    }


@pytest.mark.parametrize("codec", ["avc1", "av01"])
def test_an_hls_playlist_leads_to_every_frame_of_the_film(
    stack: Stack, started: playback_pb2.StartPlaybackResponse, codec: str
) -> None:
    master_url = urljoin(stack.gateway, started.hls_path)
    found = playlists(master_url, get(master_url).decode())
    # The last is the smallest: the quickest to decode.
    playlist_url = [url for codecs, url in found.items() if codec in codecs][-1]
    text = get(playlist_url).decode()
    init = re.search(r'#EXT-X-MAP:URI="([^"]+)"', text)
    assert init
    segments = [line for line in text.splitlines() if line and not line.startswith("#")]
    data = get(urljoin(playlist_url, init.group(1)))
    data += b"".join(get(urljoin(playlist_url, segment)) for segment in segments)
    durations = [Fraction(value) for value in re.findall(r"#EXTINF:([0-9.]+)", text)]

    assert text.startswith("#EXTM3U")
    assert "#EXT-X-ENDLIST" in text
    assert frame_numbers(data) == list(range(stack.film.timeline.frame_count))
    assert float(sum(durations)) == pytest.approx(
        float(stack.film.timeline.frame_count / stack.film.fps), abs=0.01
    )
    target = re.search(r"#EXT-X-TARGETDURATION:(\d+)", text)
    assert target
    assert all(round(duration) <= int(target.group(1)) for duration in durations)


def test_a_dash_manifest_leads_to_every_frame_of_the_film(
    stack: Stack, started: playback_pb2.StartPlaybackResponse
) -> None:
    url = urljoin(stack.gateway, started.dash_path)
    text = get(url).decode()
    manifest = ElementTree.fromstring(text)
    representation, template = smallest_pictures(manifest)
    timescale = int(template.attrib.get("timescale", "1"))
    starts = [start for start, _ in segment_lines(template)]
    first = int(template.attrib.get("startNumber", "1"))

    def address(pattern: str, number: int = 0, time: int = 0) -> str:
        path = pattern.replace("$RepresentationID$", representation.attrib["id"])
        path = path.replace("$Number$", str(number)).replace("$Time$", str(time))
        return urljoin(urljoin(url, base_url(manifest)), path)

    data = get(address(template.attrib["initialization"]))
    for index, start in enumerate(starts):
        data += get(address(template.attrib["media"], first + index, start))

    assert faults(text) == []
    assert manifest.attrib["type"] == "static"
    assert timescale % 30_000 == 0
    assert frame_numbers(data) == list(range(stack.film.timeline.frame_count))


@pytest.mark.node
def test_another_reader_finds_in_the_segments_what_the_dash_manifest_says(
    stack: Stack, started: playback_pb2.StartPlaybackResponse
) -> None:
    url = urljoin(stack.gateway, started.dash_path)
    manifest = ElementTree.fromstring(get(url))
    said = [one for one in manifest.iter(f"{{{DASH['d']}}}Representation") if one.get("codecs")]
    templates = [template for one in said if (template := one.find("d:SegmentTemplate", DASH)) is not None]
    lines = [segment_lines(template) for template in templates]
    asked = []
    for one, template, spans in zip(said, templates, lines, strict=True):
        init, media = (
            urljoin(url, template.attrib[name].replace("$RepresentationID$", one.attrib["id"]))
            for name in ("initialization", "media")
        )
        segments = [media.replace("$Number$", str(number)) for number in range(len(spans))]
        asked.append({"init": init, "segments": segments})
    read = subprocess.run(
        ["node", str(ROOT / "tests/acceptance/players/segments.js")],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert read.returncode == 0, read.stderr

    assert {one.attrib["id"].partition("-")[0] for one in said} == {"h264", "av1", "aac", "opus"}
    for one, template, spans, found in zip(said, templates, lines, json.loads(read.stdout), strict=True):
        ends = [segment["start"] + segment["duration"] for segment in found]
        assert {segment["codecs"].lower() for segment in found} == {one.attrib["codecs"].lower()}
        assert {segment["timescale"] for segment in found} == {int(template.attrib["timescale"])}
        assert [max(segment["start"], 0) for segment in found] == [start for start, _ in spans]
        assert ends == [end for _, end in spans]
        # No time is lost or doubled from one to the next.
        assert [segment["decode"] for segment in found[1:]] == [
            segment["decode"] + segment["duration"] for segment in found[:-1]
        ]
        assert all(segment["sync"] for segment in found)
        assert all(re.fullmatch("ftyp moov( moof mdat)+", segment["boxes"]) for segment in found)
        if "width" in one.attrib:
            size = {(segment["width"], segment["height"]) for segment in found}
            assert size == {(int(one.attrib["width"]), int(one.attrib["height"]))}


def base_url(manifest: ElementTree.Element) -> str:
    found = manifest.find(".//d:BaseURL", DASH)
    return (found.text or "") if found is not None else ""


def smallest_pictures(manifest: ElementTree.Element) -> tuple[ElementTree.Element, ElementTree.Element]:
    """The smallest H.264 representation and the template that holds for it."""
    pictures = []
    for adaptation in manifest.findall(".//d:AdaptationSet", DASH):
        for representation in adaptation.findall("d:Representation", DASH):
            codecs = representation.attrib.get("codecs") or adaptation.attrib.get("codecs", "")
            template = representation.find("d:SegmentTemplate", DASH)
            if template is None:
                template = adaptation.find("d:SegmentTemplate", DASH)
            if codecs.startswith("avc1") and template is not None:
                pictures.append((representation, template))
    return min(pictures, key=lambda pair: int(pair[0].attrib["height"]))


def segment_lines(template: ElementTree.Element) -> list[tuple[int, int]]:
    """Start and end of each segment, in ticks."""
    found, at = [], 0
    for entry in template.findall("d:SegmentTimeline/d:S", DASH):
        at = int(entry.attrib.get("t", at))
        for _ in range(int(entry.attrib.get("r", "0")) + 1):
            found.append((at, at + int(entry.attrib["d"])))
            at += int(entry.attrib["d"])
    return found


def first_segment_url(stack: Stack, started: playback_pb2.StartPlaybackResponse) -> str:
    base = f"{stack.gateway}/v1/playback/{started.lease.token}/segments"
    return f"{base}/{started.choice.renditions[0].rendition_id}/0.m4s"


def test_a_range_of_a_segment_is_its_bytes(stack: Stack, started: playback_pb2.StartPlaybackResponse) -> None:
    url = first_segment_url(stack, started)
    whole = get(url)
    request = urllib.request.Request(url, headers={"Range": "bytes=100-1099"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        part, status, content_range = answer.read(), answer.status, answer.headers["content-range"]

    assert (status, content_range) == (206, f"bytes 100-1099/{len(whole)}")
    assert part == whole[100:1100]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("manifests/nothing.m3u8", 404),
        ("segments/h264-9999/0.m4s", 404),
        ("segments/h264-720/999999.m4s", 400),
        ("segments/h264-720/../../../secret", 404),
        ("manifests/master.txt", 400),
    ],
)
def test_what_is_not_there_is_answered_with_its_status(
    stack: Stack, started: playback_pb2.StartPlaybackResponse, path: str, status: int
) -> None:
    url = f"{stack.gateway}/v1/playback/{started.lease.token}/{path}"

    with pytest.raises(urllib.error.HTTPError) as refused:
        get(url)

    assert refused.value.code == status


def test_a_forged_lease_in_the_path_is_refused(stack: Stack) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        get(f"{stack.gateway}/v1/playback/{'A' * 120}/manifests/master.m3u8")

    assert refused.value.code == 401
