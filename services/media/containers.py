"""The containers that sources come in, and how well one can seek in them."""

from __future__ import annotations

#: Demuxers an upload may use: containers that hold their own media, never lists of other files.
FORMATS = (
    *("mov", "mp4", "m4a", "3gp", "3g2", "mj2"),
    *("matroska", "webm", "mpegts", "avi", "flv", "mpeg", "mpegvideo"),
)
#: Those without an index of pictures: a seek only lands near a time.
COARSE = frozenset({"mpegts", "mpeg", "mpegvideo", "flv"})
#: How much earlier a seek goes there, in seconds; longer than any sane distance of key frames.
RUN_UP_SECONDS = 12


def seeks_coarsely(container: str) -> bool:
    """Whether a container, as its demuxer names it, needs a run-up before an exact cut."""
    return container in COARSE
