"""The containers that sources come in, and how well one can seek in them."""

from __future__ import annotations

import math

#: Demuxers an upload may use: containers that hold their own media, never lists of other files.
FORMATS = (
    *("mov", "mp4", "m4a", "3gp", "3g2", "mj2"),
    *("matroska", "webm", "mpegts", "avi", "flv", "mpeg", "mpegvideo"),
)
#: Those without an index of pictures: a seek only lands near a time.
COARSE = frozenset({"mpegts", "mpeg", "mpegvideo", "flv"})


def run_up_seconds(container: str, key_distance_s: float) -> int:
    """How much earlier than the frame it wants a seek has to go; the container as its demuxer names it.

    A seek goes by decode time: aimed just before an open group of pictures it lands on its key frame, and the
    pictures shown before that are lost. A second is more than any codec reorders. Without an index it must be
    longer than the longest distance of key frames, and seeks are none too exact.
    """
    return max(12, math.ceil(key_distance_s) + 2) if container in COARSE else 1
