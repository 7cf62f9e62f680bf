"""The rungs of one title from what trial encodes came to: each step of quality with the fewest bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from services.preprocessor.model import TrialPoint

#: VMAF that rungs aim at, at the largest size: from as good as the source to most eyes down to watchable.
TARGETS = (95.0, 89.0, 81.0, 71.0, 58.0)
#: A size may miss its target by so much; beyond that it cannot reach it.
MISS = 0.5
#: A rung with more than this share of the bits of the one above it gains nothing.
MOST_SHARE = 0.75
#: So many rungs may have the same size: what is best in bits could be the largest size for all of them, and
#: to encode that costs the most.
MOST_OF_A_SIZE = 2
#: What the lowest rung should do with, for slow links.
LOWEST_BITS = 400_000
#: No worse quality than this is chosen, where the measured curves no longer hold; and no better one than was
#: tried: small sizes stop gaining there.
WORST_CRF = 34.0


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A size with its quality, and what it came to on trial."""

    rendition_id: str
    crf: float
    bits_per_second: float
    vmaf: float


@dataclass(frozen=True)
class _Curve:
    """One size: from each measured CRF to the next, VMAF and the logarithm of the bits fall evenly."""

    rendition_id: str
    #: By CRF, all different.
    points: Sequence[TrialPoint]

    def at_vmaf(self, target: float) -> Chosen:
        """The quality that comes nearest to `target`."""
        pairs = list(pairwise(self.points))
        # The first pair that falls to the target, or the last, whose line goes on beyond the end.
        best, worst = next((pair for pair in pairs if pair[1].vmaf <= target), pairs[-1])
        fall = best.vmaf - worst.vmaf
        share = (best.vmaf - target) / fall if fall > 0 else 1.0
        crf = best.crf + share * (worst.crf - best.crf)
        return self.at_crf(round(min(max(crf, self.points[0].crf), WORST_CRF), 1))

    def at_crf(self, crf: float) -> Chosen:
        pairs = list(pairwise(self.points))
        best, worst = next((pair for pair in pairs if crf <= pair[1].crf), pairs[-1])
        share = (crf - best.crf) / (worst.crf - best.crf)
        bits = math.log(best.bits_per_second), math.log(worst.bits_per_second)
        return Chosen(
            rendition_id=self.rendition_id,
            crf=crf,
            bits_per_second=math.exp(bits[0] + share * (bits[1] - bits[0])),
            vmaf=best.vmaf + share * (worst.vmaf - best.vmaf),
        )


def _curves(points: Sequence[TrialPoint], sizes: Sequence[str]) -> list[_Curve]:
    curves = []
    for size in sizes:
        own = sorted({p.crf: p for p in points if p.rendition_id == size}.values(), key=lambda p: p.crf)
        if len(own) >= 2:
            curves.append(_Curve(size, own))
    return curves


def _cheapest(curves: Sequence[_Curve], target: float) -> Chosen | None:
    """The fewest bits that reach the target, at any size; the best quality there is where none does."""
    offers = [curve.at_vmaf(target) for curve in curves]
    able = [offer for offer in offers if offer.vmaf >= target - MISS]
    if able:
        return min(able, key=lambda offer: offer.bits_per_second)
    return max(offers, key=lambda offer: offer.vmaf, default=None)


def choose_rungs(points: Sequence[TrialPoint], sizes: Sequence[str]) -> list[Chosen]:
    """The rungs, best first, `sizes` being the ids of all sizes from the largest; empty without points.

    For each step of quality the size that reaches it with the fewest bits, none larger than the one above.
    When the lowest rung is too much for a slow link, the smallest size is added below.
    """
    curves = _curves(points, sizes)
    chosen = list[Chosen]()

    def add(rung: Chosen | None) -> None:
        last = chosen[-1] if chosen else None
        falls = last is None or (
            rung is not None
            and rung.vmaf < last.vmaf
            and rung.bits_per_second <= MOST_SHARE * last.bits_per_second
        )
        if rung is not None and falls:
            chosen.append(rung)

    for target in TARGETS:
        names = [one.rendition_id for one in chosen]
        largest = sizes.index(names[-1]) if names else 0
        add(
            _cheapest(
                [
                    curve
                    for curve in curves
                    if sizes.index(curve.rendition_id) >= largest
                    and names.count(curve.rendition_id) < MOST_OF_A_SIZE
                ],
                target,
            )
        )
    if chosen and chosen[-1].bits_per_second > LOWEST_BITS and chosen[-1].rendition_id != sizes[-1]:
        add(curves[-1].at_vmaf(TARGETS[-1]))
    return chosen


def in_words(chosen: Sequence[Chosen], sizes: Sequence[str]) -> str:
    """Why the rungs are as they are."""
    said = ", ".join(
        f"{one.rendition_id} for VMAF {one.vmaf:.0f} at {one.bits_per_second / 1000:.0f} kbit/s"
        for one in chosen
    )
    names = {one.rendition_id for one in chosen}
    without = [size for size in sizes if size not in names]
    more = (
        f" Left out, as another size reaches as much with no more bits: {', '.join(without)}."
        if without
        else ""
    )
    return f"Chosen by trial encodes: {said}.{more}"
