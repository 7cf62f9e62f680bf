"""Each file here tries to read another file, to reach the network, or to use up the machine.

Each ends in a typed error, or in a film that shows nothing but its own.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from services.media import sandbox
from services.media.errors import (
    EncoderFailed,
    MediaError,
    SandboxLimit,
    SourceIsPlaylist,
    SourceNotMedia,
    SourceUnsupported,
)
from services.media.sandbox import Command, Limits
from services.media.testfilm import FilmSpec, make_film
from services.preprocessor import extract as extracting
from services.preprocessor import probe as probing
from services.preprocessor.extract import extract
from services.preprocessor.probe import inspect, probe
from tests.support import hostile
from tests.support.encoding import whole_path

SPEC = FilmSpec(seconds=Fraction(2), width=160, height=90, cuts=(), loud=None)
Make = Callable[[str], bytes]
#: By what every look refuses each of them.
PLAYLISTS: dict[Make, type[MediaError]] = {
    hostile.hls: SourceIsPlaylist,
    hostile.concat: SourceIsPlaylist,
    hostile.dash: SourceIsPlaylist,
    hostile.dash_in_disguise: SourceNotMedia,
    hostile.session_description: SourceNotMedia,
}
#: What makes FFmpeg follow each of them, had its whitelists been got round.
FOLLOW: dict[Make, Sequence[str]] = {
    hostile.hls: ("-f", "hls", "-allowed_extensions", "ALL", "-extension_picky", "0"),
    hostile.concat: ("-f", "concat", "-safe", "0"),
    hostile.dash: ("-f", "dash"),
    hostile.session_description: ("-f", "sdp"),
}


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    asyncio.run(make_film(path, SPEC))
    return path


@pytest.fixture(scope="module")
def data(film: Path) -> bytes:
    return film.read_bytes()


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test leaves a file in scratch, nor one beside it."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    yield
    assert list(scratch.iterdir()) == []
    assert not list(tmp_path.parent.rglob("escaped*"))


@pytest.fixture
def address() -> Iterator[str]:
    """Where somebody listens, whom nobody may have called at the end."""
    with socket.socket() as listener, socket.socket(type=socket.SOCK_DGRAM) as hearing:
        listener.bind(("127.0.0.1", 0))
        hearing.bind(listener.getsockname())
        listener.listen()
        listener.setblocking(False)
        hearing.setblocking(False)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/film.mp4"
        with pytest.raises(BlockingIOError):
            listener.accept()
        with pytest.raises(BlockingIOError):
            hearing.recv(1)


@pytest.mark.parametrize("make", PLAYLISTS)
@pytest.mark.parametrize("kind", ["file", "http"])
async def test_a_playlist_named_like_a_film_is_refused_by_every_look(
    film: Path, tmp_path: Path, address: str, make: Make, kind: str
) -> None:
    source = tmp_path / "film.mp4"
    source.write_bytes(make(f"file://{film}" if kind == "file" else address))
    for look in (inspect, probe):
        with pytest.raises(PLAYLISTS[make]):
            await look(source)


@pytest.mark.parametrize("make", FOLLOW)
@pytest.mark.parametrize("kind", ["file", "http"])
def test_a_playlist_reaches_nothing_even_where_ffmpeg_would_follow_it(
    film: Path, tmp_path: Path, address: str, make: Make, kind: str
) -> None:
    if kind == "file" and not asyncio.run(sandbox.capabilities()).files_refused:
        return
    source = tmp_path / "film.mp4"
    source.write_bytes(make(f"file:{film}" if kind == "file" else address))
    everything = ["-protocol_whitelist", "fd,file,http,tcp,udp,rtp,crypto", "-fd", "3"]
    argv = [sandbox.ffmpeg(), "-nostdin", "-v", "error", *everything, *FOLLOW[make], "-i", "fd:"]
    argv += ["-f", "null", "-"]
    with pytest.raises(EncoderFailed):
        asyncio.run(sandbox.output_of(Command(argv=argv, source=source)))
    if kind == "file" and make is not hostile.session_description:
        # It would have: outside the sandbox the same command shows the other film.
        subprocess.run(["sh", "-c", 'exec "$@" 3<"$0"', str(source), *argv], check=True)


async def test_a_film_that_says_its_pictures_are_in_another_file_shows_nothing_of_it(
    film: Path, data: bytes, tmp_path: Path
) -> None:
    source = tmp_path / "film.mp4"
    source.write_bytes(hostile.reference_movie(data, film))
    with pytest.raises(MediaError):
        await whole_path(source, 64, 36)


async def test_text_and_fonts_that_name_files_commands_and_addresses_stay_words(
    film: Path, tmp_path: Path, address: str
) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("hunter2 " * 20)
    source = hostile.words_that_name(film, secret, address, tmp_path / "film.mkv")
    made, found = await whole_path(source, 64, 36), await extract(source, (await probe(source)).report)
    told = b"".join(text.data for text in found.texts)
    assert len(made.parts) == len(made.chunks)
    assert (b"said in ass" in told, b"said in vtt" in told) == (True, True)
    assert [word for word in (b"hunter2", b"@import", b"127.0.0.1", b"file:") if word in told] == []


async def test_text_that_would_fill_the_disk_is_cut_off_at_the_limit(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extracting, "EXTRACT_LIMITS", replace(extracting.EXTRACT_LIMITS, file_bytes=1 << 20))
    source = hostile.much_text(film, tmp_path / "film.mkv", cue_count=40, cue_bytes=1 << 16)
    found = await extract(source, (await probe(source)).report)
    assert (len(found.sheets), found.texts) == (1, ())


async def test_a_picture_of_hundreds_of_megapixels_in_a_few_bytes_is_refused_within_its_memory(
    tmp_path: Path,
) -> None:
    source = hostile.film_of([hostile.picture(16_000)], tmp_path / "film.mov")
    assert source.stat().st_size < 1 << 20
    for look in (inspect, probe):
        with pytest.raises(SourceUnsupported, match="its picture is 16000x16000"):
            await look(source)


async def test_a_header_that_lies_about_the_size_of_pictures_costs_nothing(
    data: bytes, tmp_path: Path
) -> None:
    lying = hostile.film_of([hostile.picture(320)], tmp_path / "lying.mov")
    hostile.claimed_by_pictures(lying, 320, 30_000)
    with pytest.raises(MediaError):
        await probe(lying)
    claiming = tmp_path / "claiming.mp4"
    claiming.write_bytes(hostile.claimed_size(data, 30_000))
    # The pictures themselves say what they are.
    video = (await whole_path(claiming, 64, 36)).probe.report.video
    assert (video.width, video.height) == (SPEC.width, SPEC.height)


async def test_pictures_that_grow_in_the_midst_of_a_film_end_it_typed(tmp_path: Path) -> None:
    small = hostile.picture(160)
    source = hostile.film_of([small] * 30 + [hostile.picture(16_000)] + [small] * 29, tmp_path / "film.mov")
    with pytest.raises(MediaError):
        await whole_path(source, 64, 36)


@pytest.mark.parametrize(
    "make", [hostile.frames_without_end, hostile.days_between_frames, hostile.samples_without_end]
)
async def test_tables_that_claim_more_than_there_is_are_refused(
    data: bytes, tmp_path: Path, make: Callable[[bytes], bytes]
) -> None:
    source = tmp_path / "film.mp4"
    source.write_bytes(make(data))
    with pytest.raises(MediaError):
        await probe(source)


@pytest.mark.parametrize(
    ("limits", "word"), [({"cpu_s": 1}, "processor time"), ({"wall_s": 0.2}, "0.2 s of time")]
)
async def test_a_look_that_would_go_on_for_ever_ends_at_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: dict[str, Any], word: str
) -> None:
    monkeypatch.setattr(probing, "PROBE_LIMITS", replace(probing.PROBE_LIMITS, **limits))
    source = hostile.slow_to_read(tmp_path / "film.ts")
    with pytest.raises(SandboxLimit, match=word):
        await probe(source)


@pytest.mark.parametrize("memory_mib", [150, 160, 170])
async def test_a_look_that_would_take_all_memory_ends_with_that_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory_mib: int
) -> None:
    # Room for the reader, and for some of the frames.
    monkeypatch.setattr(probing, "PROBE_LIMITS", replace(probing.PROBE_LIMITS, memory_bytes=memory_mib << 20))
    source = hostile.slow_to_read(tmp_path / "film.ts")
    with pytest.raises(SandboxLimit, match="bytes of memory"):
        await probe(source)


async def test_an_encode_of_a_source_without_end_ends_at_its_limit(tmp_path: Path) -> None:
    endless = ["-f", "lavfi", "-i", "testsrc2=size=64x36", "-c:v", "libx264", "-y", "film.mp4"]
    argv = [sandbox.ffmpeg(), "-nostdin", "-v", "error", *endless]
    for limits, word in ((Limits(cpu_s=1), "processor"), (Limits(file_bytes=1 << 16), "in one file")):
        folder = tmp_path / word
        folder.mkdir()
        with pytest.raises(SandboxLimit, match=word):
            await sandbox.output_of(Command(argv=argv, scratch=folder, limits=limits))
