"""The rungs of one title from what trial encodes came to: each step of quality with the fewest bits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

from services.preprocessor.model import TrialPoint

#: VMAF that rungs aim at, at the largest size: from as good as the source to most eyes down to watchable.
TARGETS = (95.0, 89.0, 81.0, 71.0, 58.0)
#: A size may miss its target by so much; beyond that it cannot reach it.
MISS = 0.5
#: A rung with more than this share of the bits of the one above it gains nothing.
MOST_SHARE = 0.75
#: What the lowest rung should do with, for slow links.
LOWEST_BITS = 400_000
#: Quality is not chosen outside of these, where the measured lines no longer hold.
BEST_CRF, WORST_CRF = 17.0, 34.0


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A size with its quality, and what it came to on trial."""

    rendition_id: str
    crf: float
    bits_per_second: float
    vmaf: float


@dataclass(frozen=True)
class _Line:
    """One size: VMAF and the logarithm of the bits fall evenly with the CRF."""

    rendition_id: str
    best: TrialPoint
    worst: TrialPoint

    def vmaf(self, crf: float) -> float:
        return self._between(crf, self.best.vmaf, self.worst.vmaf)

    def bits(self, crf: float) -> float:
        ends = math.log(self.best.bits_per_second), math.log(self.worst.bits_per_second)
        return math.exp(self._between(crf, *ends))

    def at_vmaf(self, target: float) -> Chosen:
        """The quality that comes nearest to `target`."""
        fall = self.best.vmaf - self.worst.vmaf
        share = (self.best.vmaf - target) / fall if fall > 0 else 1.0
        crf = self.best.crf + share * (self.worst.crf - self.best.crf)
        return self.at_crf(round(min(max(crf, BEST_CRF), WORST_CRF), 1))

    def at_crf(self, crf: float) -> Chosen:
        return Chosen(
            rendition_id=self.rendition_id, crf=crf, bits_per_second=self.bits(crf), vmaf=self.vmaf(crf)
        )

    def _between(self, crf: float, best: float, worst: float) -> float:
        return best + (worst - best) * (crf - self.best.crf) / (self.worst.crf - self.best.crf)


def _lines(points: Sequence[TrialPoint], sizes: Sequence[str]) -> list[_Line]:
    lines = []
    for size in sizes:
        own = sorted((p for p in points if p.rendition_id == size), key=lambda point: point.crf)
        if len(own) >= 2 and own[0].crf < own[-1].crf:
            lines.append(_Line(size, own[0], own[-1]))
    return lines


def _ladders(lines: Sequence[_Line]) -> Iterator[tuple[Chosen, ...]]:
    """Every ladder: each size left out or at one step of quality, smaller ones lower and with fewer bits."""
    options = [[None, *(line.at_vmaf(target) for target in TARGETS)] for line in lines]
    for picks in product(*options):
        rungs = tuple(pick for pick in picks if pick is not None)
        falls = all(
            lower.vmaf < upper.vmaf and lower.bits_per_second <= MOST_SHARE * upper.bits_per_second
            for upper, lower in pairwise(rungs)
        )
        if rungs and falls:
            yield rungs


def _cost(rungs: Sequence[Chosen]) -> tuple[float, float]:
    """How many steps of quality no rung reaches, by how much; then the bits of all steps, each as a ratio.

    A viewer who wants a step gets the cheapest rung that reaches it, or the best there is.
    """
    missed, bits = 0.0, 0.0
    for target in TARGETS:
        able = [rung for rung in rungs if rung.vmaf >= target - MISS]
        served = min(able, key=lambda rung: rung.bits_per_second) if able else rungs[0]
        missed += max(target - MISS - served.vmaf, 0.0)
        bits += math.log(served.bits_per_second)
    return round(missed, 6), bits


def choose_rungs(points: Sequence[TrialPoint], sizes: Sequence[str]) -> list[Chosen]:
    """The rungs, best first, `sizes` being the ids of all sizes from the largest; empty without points.

    Of all ladders the one that misses least and needs the fewest bits over all steps of quality. When its
    lowest rung is too much for a slow link, the smallest size is added below.
    """
    lines = _lines(points, sizes)
    best = min(_ladders(lines), key=_cost, default=())
    chosen = list(best)
    if chosen and chosen[-1].bits_per_second > LOWEST_BITS and chosen[-1].rendition_id != sizes[-1]:
        lowest = lines[-1].at_vmaf(TARGETS[-1])
        if lowest.bits_per_second <= MOST_SHARE * chosen[-1].bits_per_second:
            chosen.append(lowest)
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
