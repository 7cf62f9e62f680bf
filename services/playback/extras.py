"""Files beside the media of a title: text tracks, and sheets of its storyboard."""

from __future__ import annotations

from dataclasses import dataclass

from kino.media.v1 import media_pb2


@dataclass(frozen=True, kw_only=True)
class ExtraFile:
    """A file of the origin."""

    object_key: str
    content_type: str
    sha256: bytes


def extra_file(extras: media_pb2.Extras, name: str) -> ExtraFile | None:
    """The file with that name (`vtt-eng-0.vtt`, `storyboard-0.jpg`), if the title has it."""
    found: media_pb2.TextTrack | media_pb2.StoryboardSheet | None
    stem, _, suffix = name.rpartition(".")
    if suffix == "vtt":
        found = next((track for track in extras.text_tracks if track.track_id == stem), None)
        kind = "text/vtt; charset=utf-8"
    else:
        number = int(stem.removeprefix("storyboard-"))
        sheets = extras.storyboard.sheets
        found, kind = (sheets[number] if number < len(sheets) else None), "image/jpeg"
    if found is None:
        return None
    return ExtraFile(object_key=found.object_key, content_type=kind, sha256=found.sha256)
