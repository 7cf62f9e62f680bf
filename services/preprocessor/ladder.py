"""Which renditions are made of a source: never larger than it, with its shape and frame rate."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from services.preprocessor.model import (
    AudioRung,
    Ladder,
    SourceAudio,
    SourceReport,
    SourceVideo,
    VideoLadder,
    VideoRung,
)


@dataclass(frozen=True)
class _Step:
    """A rung of the ladder: the 16:9 frame that pictures must fit into, and its quality."""

    height: int
    width: int
    h264_crf: float
    h264_max_bits: int
    av1_crf: float
    av1_max_bits: int


STEPS = (
    _Step(1080, 1920, 22, 5_500_000, 33, 3_500_000),
    _Step(720, 1280, 23, 3_000_000, 34, 1_900_000),
    _Step(480, 854, 23, 1_500_000, 34, 900_000),
    _Step(360, 640, 24, 900_000, 35, 550_000),
    _Step(240, 426, 25, 450_000, 36, 300_000),
)
#: The step that AV1 is made at: one rung, for viewers who are short of bandwidth.
AV1_HEIGHT = 480
#: HEVC against H.264 of the same step.
HEVC_CRF_MORE, HEVC_BITS = 3, Fraction(3, 4)
#: Quick sources get half as many bits again.
QUICK_FPS = 35
#: A source this much larger than its highest rung gets a rung of its own size.
NATIVE_GAIN = Fraction(11, 10)
#: Sound tracks beyond these are left out.
MOST_AUDIOS = 8
AAC_BITS, OPUS_BITS, SAMPLE_RATE = 128_000, 96_000, 48_000


def _even(value: Fraction) -> int:
    return max(2, round(value / 2) * 2)


def _fit(video: SourceVideo, step: _Step) -> Fraction:
    """How much the picture is scaled to fit the step's frame, upright where the picture is upright."""
    wide, high = (
        (step.width, step.height)
        if video.display_width >= video.display_height
        else (step.height, step.width)
    )
    return min(Fraction(wide, video.display_width), Fraction(high, video.display_height))


def _sizes(video: SourceVideo) -> list[tuple[int, int, int, _Step]]:
    """Name, width, height and quality of each rung, largest first."""
    found = []
    for step in STEPS:
        fit = _fit(video, step)
        if fit <= 1:
            found.append(
                (step.height, _even(video.display_width * fit), _even(video.display_height * fit), step)
            )
    native = _even(Fraction(video.display_width)), _even(Fraction(video.display_height))
    # Named by the 16:9 frame that holds it.
    name = max(min(native), _even(Fraction(max(native) * 9, 16)))
    if not found:
        found = [(name, *native, STEPS[-1])]
    elif found[0][3] is not STEPS[0] and native[0] > found[0][1] * NATIVE_GAIN:
        # The source lies between two steps: keep its own size, under the quality of the step above.
        above = STEPS[STEPS.index(found[0][3]) - 1]
        found.insert(0, (name, *native, above))
    return found


def _audio_rungs(audios: Sequence[SourceAudio], codec: str, bits: int) -> list[AudioRung]:
    rungs = []
    for number, audio in enumerate(audios[:MOST_AUDIOS]):
        language = re.sub(r"[^a-z0-9]", "", audio.language.lower())[:8] or "und"
        rungs.append(
            AudioRung(
                rendition_id=f"{codec}-{bits // 1000}-{language}-{number}",
                stream_index=audio.stream_index,
                codec=codec,
                bits_per_second=bits,
                sample_rate_hz=SAMPLE_RATE,
                channel_count=2,
                language=audio.language,
            )
        )
    return rungs


def _rungs(codec: str, sizes: Sequence[tuple[int, int, int, _Step]], more: Fraction) -> VideoLadder:
    quality: dict[str, Callable[[_Step], tuple[float, Fraction | int]]] = {
        "h264": lambda step: (step.h264_crf, step.h264_max_bits),
        # As good as H.264 at these, with about three quarters of its bits.
        "hevc": lambda step: (step.h264_crf + HEVC_CRF_MORE, step.h264_max_bits * HEVC_BITS),
        "av1": lambda step: (step.av1_crf, step.av1_max_bits),
    }
    rungs = []
    for name, width, height, step in sizes:
        crf, most = quality[codec](step)
        rungs.append(
            VideoRung(
                rendition_id=f"{codec}-{name}",
                width=width,
                height=height,
                crf=crf,
                max_bits_per_second=int(most * more),
            )
        )
    return VideoLadder(codec=codec, rungs=tuple(rungs))


def plan_ladder(report: SourceReport, codecs: Sequence[str] = ("h264", "av1")) -> Ladder:
    """H.264 and HEVC at every step that the source fills, AV1 at one; AAC and Opus of every sound track."""
    video = report.video
    more = Fraction(3, 2) if video.frame_rate > QUICK_FPS else Fraction(1)
    sizes = _sizes(video)
    one = next((size for size in sizes if size[0] <= AV1_HEIGHT), sizes[-1])
    return Ladder(
        videos=tuple(_rungs(codec, [one] if codec == "av1" else sizes, more) for codec in codecs),
        audios=(
            *_audio_rungs(report.audios, "aac", AAC_BITS),
            *_audio_rungs(report.audios, "opus", OPUS_BITS),
        ),
    )
