from __future__ import annotations

from cli.playing import end_playback, start_playback
from kino.media.v1 import media_pb2
from tests.support.stack import Stack


async def test_the_one_loud_and_quick_passage_is_found(stack: Stack) -> None:
    assert stack.film.loud is not None
    start_s, end_s = stack.film.loud
    async with stack.connect("viewer") as viewer:
        started = await start_playback(viewer, stack.title, "test")
        await end_playback(viewer, started.lease.token)
    [found] = started.choice.highlights
    found_start_s = found.start_offset.ToMilliseconds() / 1000
    found_end_s = found.end_offset.ToMilliseconds() / 1000
    shared_s = min(end_s, found_end_s) - max(start_s, found_start_s)

    assert found.origin == media_pb2.Highlight.ORIGIN_MEASURED
    assert found.score > 0
    assert found.reason
    assert shared_s / (end_s - start_s) > 0.75
    assert shared_s / (found_end_s - found_start_s) > 0.5
