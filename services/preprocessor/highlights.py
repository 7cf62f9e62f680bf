"""The best passages of a film as measured: z(motion) + z(cuts) + z(loudness), second by second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

from services.media.time import ticks_to_ns_up
from services.preprocessor.model import Feature, Highlight, Origin

#: A highlight starts as this many stretches and may grow to the other, in stretches of about a second.
SHORTEST, LONGEST = 6, 15
#: A passage is worth it from this mean sum of standard scores on.
LEAST_SCORE = 1.5
#: One highlight for so many stretches, at least one and at most ten.
STRETCHES_PER_HIGHLIGHT, MOST = 60, 10
#: Quieter than this counts as this: silence must not make all else look loud.
QUIETEST_LUFS = -50.0
#: Deviations below these are noise, not a difference.
LEAST_MOTION, LEAST_CUTS, LEAST_LOUDNESS = 0.2, 0.1, 1.0


@dataclass(frozen=True)
class _Passage:
    start: int
    stop: int
    score: float


def standard_scores(values: Sequence[float], least_deviation: float) -> list[float]:
    """How many standard deviations each value lies above the mean; zeros below the least deviation."""
    if not values:
        return []
    mean, deviation = fmean(values), pstdev(values)
    if deviation < least_deviation:
        return [0.0] * len(values)
    return [(value - mean) / deviation for value in values]


def _scores(features: Sequence[Feature]) -> list[float]:
    motion = standard_scores([feature.motion for feature in features], LEAST_MOTION)
    cuts = standard_scores([float(feature.shot_change_count) for feature in features], LEAST_CUTS)
    loud = standard_scores(
        [max(feature.loudness_lufs, QUIETEST_LUFS) for feature in features], LEAST_LOUDNESS
    )
    return [sum(parts) for parts in zip(motion, cuts, loud, strict=True)]


def _best(scores: Sequence[float], taken: Sequence[_Passage]) -> _Passage | None:
    """The best free passage, grown to both sides while that is worth half its mean."""
    free = [True] * len(scores)
    for passage in taken:
        free[passage.start : passage.stop] = [False] * (passage.stop - passage.start)
    starts = [at for at in range(len(scores) - SHORTEST + 1) if all(free[at : at + SHORTEST])]
    if not starts:
        return None
    start = max(starts, key=lambda at: (fmean(scores[at : at + SHORTEST]), -at))
    stop = start + SHORTEST
    least = fmean(scores[start:stop]) / 2
    while stop - start < LONGEST:
        before = scores[start - 1] if start > 0 and free[start - 1] else -1e9
        after = scores[stop] if stop < len(scores) and free[stop] else -1e9
        if max(before, after) < least:
            break
        start, stop = (start - 1, stop) if before > after else (start, stop + 1)
    return _Passage(start, stop, fmean(scores[start:stop]))


def _reason(features: Sequence[Feature], passage: _Passage) -> str:
    """The figures behind a choice, against the whole film's."""
    part = features[passage.start : passage.stop]

    def compare(name: str, here: float, everywhere: float, unit: str) -> str:
        return f"{name} {here:.1f}{unit} (film {everywhere:.1f}{unit})"

    minutes = 60 / len(part), 60 / len(features)
    return "; ".join(
        (
            compare("motion", fmean(f.motion for f in part), fmean(f.motion for f in features), ""),
            compare(
                "cuts",
                sum(f.shot_change_count for f in part) * minutes[0],
                sum(f.shot_change_count for f in features) * minutes[1],
                " a minute",
            ),
            compare(
                "loudness",
                fmean(f.loudness_lufs for f in part),
                fmean(f.loudness_lufs for f in features),
                " LUFS",
            ),
        )
    )


def rank_highlights(
    features: Sequence[Feature], timescale: int, given: Sequence[Highlight] = ()
) -> list[Highlight]:
    """The highlights, those `given` first, then measured ones by falling score.

    A film in which nothing stands out has none of its own, and one too short to have a passage neither.
    """
    scores = _scores(features)
    passages: list[_Passage] = []
    for _ in range(min(MOST, max(1, len(features) // STRETCHES_PER_HIGHLIGHT))):
        passage = _best(scores, passages)
        if passage is None or passage.score < LEAST_SCORE:
            break
        passages.append(passage)
    found = [
        Highlight(
            start_ns=ticks_to_ns_up(features[passage.start].start_ticks, timescale),
            end_ns=ticks_to_ns_up(
                features[passage.stop - 1].start_ticks + features[passage.stop - 1].duration_ticks, timescale
            ),
            origin=Origin.MEASURED,
            score=round(passage.score, 3),
            reason=_reason(features, passage),
        )
        for passage in sorted(passages, key=lambda passage: -passage.score)
    ]
    return [*given, *found]
