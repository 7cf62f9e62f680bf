"""The per-title ladder against Apple's fixed one: bytes at equal VMAF, shown at the source's size.

Every rung of both is encoded and measured over the whole clip. A ladder is a curve of bits over VMAF; two are
compared by the mean distance of the logarithms of their bits over the VMAF that both reach (G. Bjøntegaard,
"Calculation of average PSNR differences between RD-curves", ITU-T VCEG-M33, 2001), with monotone cubics in
place of its one polynomial, as is usual since.
"""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median

import av
import numpy as np

from bench.encode_clips import Prepared, joined, run_plain, rungs_of
from bench.report import Row
from services.encoder.ffmpeg import FfmpegEngine
from services.encoder.model import VideoCodec, VideoRung
from services.encoder.trial import try_ladder
from services.preprocessor.ladder import plan_ladder
from services.preprocessor.model import TrialPoint
from services.scheduler.trials import TRIAL_CRFS

#: Width, height and mean kbit/s of H.264 (HLS Authoring Specification for Apple Devices, table of 16:9).
APPLE = (
    (416, 234, 145),
    (640, 360, 365),
    (768, 432, 730),
    (768, 432, 1100),
    (960, 540, 2000),
    (1280, 720, 3000),
    (1280, 720, 4500),
    (1920, 1080, 6000),
    (1920, 1080, 7800),
)
#: The same specification's limit of the peak over the mean.
_PEAK = 2
_STEPS = 1000


@dataclass(frozen=True, kw_only=True)
class Point:
    """One rung: its bytes, and VMAF at the screen's size."""

    size_bytes: int
    vmaf: float


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A clip's bytes over Apple's at equal VMAF; None where the curves have no VMAF in common."""

    name: str
    h264: float | None
    av1: float | None


def rows(found: Sequence[Compared]) -> Iterator[Row]:
    """The medians over the clips that could be compared."""
    for name, ratios, goal in (
        ("per-title ladder, bytes at equal VMAF", [one.h264 for one in found], "<=0.8"),
        ("per-title ladder in AV1, bytes at equal VMAF", [one.av1 for one in found], "<=0.6"),
    ):
        known = [ratio for ratio in ratios if ratio is not None]
        if known:
            yield Row(name=name, value=median(known), unit="x", peer="Apple's fixed ladder", goal=goal)


async def compare(film: Prepared) -> Compared | None:
    """The clip in both ladders; None when Apple's has fewer than two rungs for it."""
    apple = _fitting(film.found.report.video.display_width, film.found.report.video.display_height)
    if len(apple) < 2:
        return None
    sizes = rungs_of(plan_ladder(film.found.report, ("h264",)))[VideoCodec.H264]
    trial = await try_ladder(film.path, film.excerpts, film.clock, sizes, TRIAL_CRFS, film.picture)
    tried = [
        TrialPoint(
            rendition_id=point.rendition_id,
            crf=point.crf,
            bits_per_second=point.bits_per_second,
            vmaf=point.vmaf,
        )
        for point in trial.points
    ]
    ladder = plan_ladder(film.found.report, ("h264", "av1"), tried, trial.problem, av1_height=None)
    theirs = await points(film, apple, await _encoded(film, apple), sizes[0])
    ours = {}
    for codec, rungs in rungs_of(ladder).items():
        parts = [await film.encode(FfmpegEngine(), chunk, rungs, codec) for chunk in film.chunks]
        ours[codec] = await points(film, rungs, joined(parts), sizes[0])
    found = Compared(
        name=film.name,
        h264=bytes_ratio(ours[VideoCodec.H264], theirs),
        av1=bytes_ratio(ours[VideoCodec.AV1], theirs),
    )
    print(f"{found} {ladder.reason}", file=sys.stderr)
    return found


def _fitting(width: int, height: int) -> list[VideoRung]:
    """Apple's rungs for a source, in its shape, none larger than it; their rates stand as the cap."""
    rungs = []
    for wide, high, kbits in APPLE:
        fit = min(wide / width, high / height)
        if fit <= 1:
            rungs.append(
                VideoRung(
                    rendition_id=f"apple-{high}-{kbits}",
                    width=round(width * fit / 2) * 2,
                    height=round(height * fit / 2) * 2,
                    crf=0,
                    max_bits_per_second=kbits * 1000,
                )
            )
    return rungs


async def _encoded(film: Prepared, rungs: Sequence[VideoRung]) -> list[bytes]:
    """All rungs by one process: the same frames and settings as ours, but Apple's mean rates."""
    argv = film.plain_command(
        [replace(rung, max_bits_per_second=_PEAK * rung.max_bits_per_second) for rung in rungs]
    )
    for rung in rungs:
        at = argv.index("-crf")
        argv[at : at + 2] = ["-b:v", str(rung.max_bits_per_second)]
    return await run_plain(argv, len(rungs))


async def points(
    film: Prepared, rungs: Sequence[VideoRung], streams: Sequence[bytes], screen: VideoRung
) -> list[Point]:
    """What rungs of a film come to, shown at the size of `screen`."""
    # One after the other: many in one graph hold too many pictures at once.
    found = []
    for rung, stream in zip(rungs, streams, strict=True):
        (vmaf,) = await film.vmaf([rung], [stream], shown_at=screen)
        found.append(Point(size_bytes=_pictures_bytes(stream), vmaf=vmaf))
    return found


def _pictures_bytes(stream: bytes) -> int:
    """What is coded, without the container: forms of it differ."""
    with av.open(io.BytesIO(stream), "r") as container:
        return sum(int(packet.size) for packet in container.demux(video=0))


def bytes_ratio(ours: Sequence[Point], theirs: Sequence[Point]) -> float | None:
    """Our bytes over theirs at equal VMAF, the geometric mean over the VMAF that both curves reach.

    None where they reach none in common, or a curve has fewer than two points.
    """
    curves = [_front(points) for points in (ours, theirs)]
    if min(map(len, curves)) < 2:
        return None
    low = max(curve[0].vmaf for curve in curves)
    high = min(curve[-1].vmaf for curve in curves)
    if low >= high:
        return None
    at = np.linspace(low, high, _STEPS)
    own, other = (_log_bytes(curve, at) for curve in curves)
    return math.exp(float(np.mean(own - other)))


def _front(points: Sequence[Point]) -> list[Point]:
    """Those rungs that are better than all with as few bytes, from the smallest: the others serve nobody."""
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point.size_bytes, -point.vmaf)):
        if not front or point.vmaf > front[-1].vmaf:
            front.append(point)
    return front


def _log_bytes(curve: Sequence[Point], at: np.ndarray) -> np.ndarray:
    """The logarithm of the bytes at each VMAF: a monotone cubic through the points.

    Slopes are harmonic means of those beside (Fritsch and Butland, SIAM J. Sci. Stat. Comput. 5, 1984), at
    the ends that of the chord.
    """
    x = np.array([point.vmaf for point in curve])
    y = np.log([point.size_bytes for point in curve])
    width, chord = np.diff(x), np.diff(y) / np.diff(x)
    weight = width[1:] + 2 * width[:-1], 2 * width[1:] + width[:-1]
    inner = (weight[0] + weight[1]) / (weight[1] / chord[:-1] + weight[0] / chord[1:])
    slope = np.concatenate([chord[:1], inner, chord[-1:]])
    k = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(chord) - 1)
    t, h = (at - x[k]) / width[k], width[k]
    return np.asarray(
        y[k] * (1 + 2 * t) * (1 - t) ** 2
        + h * slope[k] * t * (1 - t) ** 2
        + y[k + 1] * t**2 * (3 - 2 * t)
        + h * slope[k + 1] * t**2 * (t - 1)
    )
