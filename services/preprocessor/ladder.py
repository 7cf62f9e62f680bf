"""Which renditions are made of a source: never larger than it, with its shape and frame rate."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from services.preprocessor.model import (
    AudioRung,
    Ladder,
    SourceAudio,
    SourceReport,
    SourceVideo,
    TrialPoint,
    VideoLadder,
    VideoRung,
)
from services.preprocessor.pertitle import choose_rungs, in_words


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
HEVC_CRF_MORE, HEVC_BITS = 3, 0.75
AV1_CRF_SCALE = 4 / 3
#: Least cap of a rung chosen by trial, and the largest as a multiple of the fixed one.
LEAST_CAP, LARGEST_CAP = 200_000, 1.5
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


@dataclass(frozen=True)
class _Planned:
    """A rung before it gets a codec: its size, and the quality and cap of H.264."""

    name: int
    width: int
    height: int
    step: _Step
    crf: float
    max_bits: float
    #: Which of the rungs of its size, the best being 1.
    number: int = 1

    def of(self, codec: str) -> VideoRung:
        """The rung in a codec, as good as it would be in H.264."""
        if codec == "h264":
            crf, most = self.crf, self.max_bits
        elif codec == "hevc":
            crf, most = self.crf + HEVC_CRF_MORE, self.max_bits * HEVC_BITS
        else:
            # AV1's scale is longer: a step of H.264's is a third more on it.
            crf = self.step.av1_crf + (self.crf - self.step.h264_crf) * AV1_CRF_SCALE
            most = self.max_bits * self.step.av1_max_bits / self.step.h264_max_bits
        return VideoRung(
            rendition_id=f"{codec}-{self.name}" + (f"-{self.number}" if self.number > 1 else ""),
            width=self.width,
            height=self.height,
            crf=round(crf, 1),
            max_bits_per_second=int(most),
        )


def _fixed(video: SourceVideo) -> list[_Planned]:
    """Every step that the source fills."""
    more = 1.5 if video.frame_rate > QUICK_FPS else 1.0
    return [
        _Planned(name, width, height, step, step.h264_crf, step.h264_max_bits * more)
        for name, width, height, step in _sizes(video)
    ]


def _tried(fixed: Sequence[_Planned], points: Sequence[TrialPoint]) -> tuple[list[_Planned], str]:
    """The rungs that trial encodes speak for, and why; none without points."""
    sizes = {f"h264-{one.name}": one for one in fixed}
    chosen = choose_rungs(points, list(sizes))
    planned = list[_Planned]()
    for one in chosen:
        size = sizes[one.rendition_id]
        # Twice the mean leaves room for hard scenes; the decoder's buffer holds two seconds of it.
        most = min(max(2 * one.bits_per_second, LEAST_CAP), LARGEST_CAP * size.max_bits)
        number = 1 + sum(each.name == size.name for each in planned)
        planned.append(replace(size, crf=one.crf, max_bits=most, number=number))
    return planned, in_words(chosen, list(sizes))


def plan_ladder(
    report: SourceReport,
    codecs: Sequence[str] = ("h264", "av1"),
    points: Sequence[TrialPoint] = (),
    problem: str = "",
    *,
    av1_height: int | None = AV1_HEIGHT,
) -> Ladder:
    """H.264 and HEVC in all rungs; AV1 in the best up to `av1_height`, without one in all; AAC and Opus of
    every sound track.

    The rungs are those that trial encodes (`points`) speak for; without them every step that the source
    fills, and `problem` says why.
    """
    fixed = _fixed(report.video)
    planned, reason = _tried(fixed, points)
    if not planned:
        planned, reason = fixed, f"Every usual size up to the source's: {problem or 'nothing was tried'}."
    by_av1 = planned
    if av1_height is not None:
        by_av1 = [next((rung for rung in planned if rung.name <= av1_height), planned[-1])]
    return Ladder(
        videos=tuple(
            VideoLadder(
                codec=codec, rungs=tuple(rung.of(codec) for rung in (by_av1 if codec == "av1" else planned))
            )
            for codec in codecs
        ),
        audios=(
            *_audio_rungs(report.audios, "aac", AAC_BITS),
            *_audio_rungs(report.audios, "opus", OPUS_BITS),
        ),
        reason=reason,
    )
