"""DASH manifests (ISO/IEC 23009-1:2022), over the same CMAF segments as everything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from services.media.time import NS_PER_SECOND
from services.playback.model import Rendition, Segment, Storyboard, TextTrack, TitleMedia, VideoCodec

_NAMESPACE = "urn:mpeg:dash:schema:mpd:2011"
_PROFILES = "urn:mpeg:dash:profile:isoff-live:2011,urn:mpeg:dash:profile:cmaf:2019"
_CHANNELS = "urn:mpeg:mpegB:cicp:ChannelConfiguration"
#: ISO/IEC 23091-3 numbers layouts; beyond six channels they differ from the count.
_LAYOUT_OF_COUNT = {7: 11, 8: 12}
_ROLES = "urn:mpeg:dash:role:2011"
_TILES = "http://dashif.org/guidelines/thumbnail_tile"
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)

Segments = Mapping[str, Sequence[Segment]]


def manifest(media: TitleMedia, segments: Segments, now: datetime) -> str:
    """The MPD of a title: what is published without a gap (`segments` by id), dynamic until complete.

    Times are presentation times after edit lists, so no offset for the priming of sound is needed.
    """
    mpd = Element("MPD", {"xmlns": _NAMESPACE, "profiles": _PROFILES, "minBufferTime": "PT10S"})
    if media.complete:
        mpd.attrib |= {"type": "static", "mediaPresentationDuration": _duration(media.duration_ns)}
    else:
        mpd.attrib |= {
            "type": "dynamic",
            "availabilityStartTime": _time(_available_since(media)),
            "publishTime": _time(now),
            "minimumUpdatePeriod": "PT2S",
        }
    period = SubElement(mpd, "Period", {"id": "0", "start": "PT0S"})
    for codec in VideoCodec:
        rungs = [
            r for r in media.videos if r.video and r.video.codec is codec and segments.get(r.rendition_id)
        ]
        if rungs:
            _video_set(period, rungs, segments)
    sounds = [rendition for rendition in media.audios if segments.get(rendition.rendition_id)]
    for rendition in sounds:
        first = next(other for other in sounds if _same_codec(other, rendition))
        role = "main" if rendition is first else "alternate"
        _audio_set(period, rendition, segments[rendition.rendition_id], role)
    for track in media.texts:
        _text_set(period, track)
    if media.storyboard:
        _storyboard_set(period, media.storyboard)
    for index, adaptation in enumerate(period):
        adaptation.set("id", str(index))
    ElementTree.indent(mpd)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(mpd, encoding="unicode") + "\n"


def _available_since(media: TitleMedia) -> datetime:
    """So early that everything published is available now by the player's arithmetic, and never changing."""
    if media.playable_time is None:
        return _BEGINNING
    return media.playable_time - timedelta(seconds=-(-media.duration_ns // NS_PER_SECOND))


def _video_set(period: Element, rungs: Sequence[Rendition], segments: Segments) -> None:
    tracks = [r.video for r in rungs if r.video]
    adaptation = _adaptation(period, "video")
    adaptation.attrib |= {
        "maxWidth": str(max(t.width for t in tracks)),
        "maxHeight": str(max(t.height for t in tracks)),
        "maxFrameRate": _rate(max(t.frame_rate for t in tracks)),
    }
    for rendition, track in zip(rungs, tracks, strict=True):
        representation = _representation(adaptation, rendition)
        representation.attrib |= {
            "width": str(track.width),
            "height": str(track.height),
            "frameRate": _rate(track.frame_rate),
            "sar": "1:1",
        }
        _template(representation, rendition, segments[rendition.rendition_id])


def _same_codec(one: Rendition, other: Rendition) -> bool:
    return bool(one.audio and other.audio and one.audio.codec is other.audio.codec)


def _audio_set(period: Element, rendition: Rendition, segments: Sequence[Segment], role: str) -> None:
    track = rendition.audio
    if track is None:
        return
    adaptation = _adaptation(period, "audio")
    adaptation.set("lang", track.language)
    SubElement(adaptation, "Role", {"schemeIdUri": _ROLES, "value": role})
    representation = _representation(adaptation, rendition)
    representation.set("audioSamplingRate", str(track.sample_rate_hz))
    layout = _LAYOUT_OF_COUNT.get(track.channel_count, track.channel_count)
    SubElement(representation, "AudioChannelConfiguration", {"schemeIdUri": _CHANNELS, "value": str(layout)})
    _template(representation, rendition, segments)


def _text_set(period: Element, track: TextTrack) -> None:
    attributes = {"contentType": "text", "mimeType": "text/vtt", "lang": track.language}
    adaptation = SubElement(period, "AdaptationSet", attributes)
    # The order of elements is the schema's.
    if track.label:
        SubElement(adaptation, "Label").text = track.label
    role = "forced-subtitle" if track.forced else "subtitle"
    SubElement(adaptation, "Role", {"schemeIdUri": _ROLES, "value": role})
    if track.default:
        SubElement(adaptation, "Role", {"schemeIdUri": _ROLES, "value": "main"})
    representation = SubElement(adaptation, "Representation", {"id": track.track_id, "bandwidth": "1000"})
    SubElement(representation, "BaseURL").text = f"../extras/{track.track_id}.vtt"


def _storyboard_set(period: Element, board: Storyboard) -> None:
    """Sheets of tiles (DASH-IF IOP 4.3, 6.2.6): players show one tile of a sheet at a time."""
    attributes = {"contentType": "image", "mimeType": "image/jpeg"}
    adaptation = SubElement(period, "AdaptationSet", attributes)
    template = {
        "media": "../extras/$RepresentationID$-$Number$.jpg",
        "timescale": "1000",
        "duration": str(board.sheet_ns // 1_000_000),
        "startNumber": "0",
    }
    SubElement(adaptation, "SegmentTemplate", template)
    representation = SubElement(
        adaptation,
        "Representation",
        {
            "id": "storyboard",
            "bandwidth": str(board.peak_bits_per_second),
            "width": str(board.tile_width * board.columns),
            "height": str(board.tile_height * board.rows),
        },
    )
    tiles = {"schemeIdUri": _TILES, "value": f"{board.columns}x{board.rows}"}
    SubElement(representation, "EssentialProperty", tiles)


def _adaptation(period: Element, kind: str) -> Element:
    attributes = {
        "contentType": kind,
        "mimeType": f"{kind}/mp4",
        "segmentAlignment": "true",
        "startWithSAP": "1",
    }
    return SubElement(period, "AdaptationSet", attributes)


def _representation(adaptation: Element, rendition: Rendition) -> Element:
    attributes = {
        "id": rendition.rendition_id,
        "codecs": rendition.codecs,
        "bandwidth": str(max(rendition.peak_bits_per_second, 1)),
    }
    return SubElement(adaptation, "Representation", attributes)


def _template(representation: Element, rendition: Rendition, segments: Sequence[Segment]) -> None:
    attributes = {
        "timescale": str(rendition.timescale),
        "initialization": "../segments/$RepresentationID$/init.mp4",
        "media": "../segments/$RepresentationID$/$Number$.m4s",
        "startNumber": "0",
    }
    timeline = SubElement(SubElement(representation, "SegmentTemplate", attributes), "SegmentTimeline")
    expected: int | None = None
    for segment in segments:
        # Sound may begin with an access unit before zero, which a manifest cannot say; players cut it off.
        start = max(segment.start_ticks, 0)
        duration = segment.start_ticks + segment.duration_ticks - start
        last = timeline[-1] if len(timeline) else None
        if last is not None and start == expected and last.get("d") == str(duration):
            last.set("r", str(int(last.get("r", "0")) + 1))
        else:
            at = {} if start == expected else {"t": str(start)}
            SubElement(timeline, "S", {**at, "d": str(duration)})
        expected = start + duration


def _rate(rate: Fraction) -> str:
    return str(rate.numerator) if rate.denominator == 1 else f"{rate.numerator}/{rate.denominator}"


def _duration(ns: int) -> str:
    """An xs:duration, rounded up to the millisecond: no frame lies behind it."""
    ms = -(-ns // 1_000_000)
    return f"PT{ms // 1000}.{ms % 1000:03}S"


def _time(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
