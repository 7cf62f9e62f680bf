from __future__ import annotations

from kino.encoder.v1 import resources_pb2 as encoder
from kino.media.v1 import media_pb2 as media
from services.scheduler.trials import joined


def result(*points: tuple[str, float, int, float], problem: str = "") -> bytes:
    made = [
        media.TrialPoint(rendition_id=name, crf=crf, bits_per_second=bits, vmaf=vmaf)
        for name, crf, bits, vmaf in points
    ]
    return encoder.TrialResult(points=made, problem=problem).SerializeToString()


def test_points_are_the_means_over_all_excerpts() -> None:
    found = joined(
        [
            result(("h264-720", 18, 4_000_000, 98), ("h264-720", 32, 700_000, 80)),
            result(("h264-720", 18, 2_000_000, 96), ("h264-720", 32, 500_000, 70)),
        ]
    )
    assert [(p.crf, p.bits_per_second, p.vmaf) for p in found.points] == [
        (18, 3_000_000, 97),
        (32, 600_000, 75),
    ]
    assert found.problem == ""


def test_an_excerpt_that_failed_is_left_out() -> None:
    whole = result(("h264-720", 18, 4_000_000, 98), ("h264-720", 32, 700_000, 80))
    found = joined([b"", whole, result(problem="VMAF could not be measured")])
    assert found.points == encoder.TrialResult.FromString(whole).points
    assert found.problem == ""


def test_without_any_excerpt_the_problem_is_told() -> None:
    assert joined([b"", b""]).problem == "the trial encodes failed"
    assert joined([b"", result(problem="VMAF could not be measured")]).problem == "VMAF could not be measured"
