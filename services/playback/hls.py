"""HLS playlists (RFC 8216 and draft-pantos-hls-rfc8216bis) over the same CMAF segments as all else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

from services.media.time import NS_PER_SECOND
from services.playback.model import (
    MATCHING,
    AudioCodec,
    Rendition,
    Segment,
    Storyboard,
    TextTrack,
    TitleMedia,
    VideoTrack,
)

#: EXT-X-MAP in playlists that are not I-frame only (bis 8).
_VERSION = 7
#: No segment is longer (the chunk plan's limit); fixed, because it must not change while a playlist grows
#: (bis 6.2.1).
_TARGET_S = 10
_US = 1_000_000
#: The playlist of the storyboard, and the sheets it names.
STORYBOARD = "storyboard"


def master(media: TitleMedia) -> str:
    """The multivariant playlist: each rung of pictures with the sound that goes with its codec."""
    sounds = [r for r in media.audios if r.ready_segment_count]
    lines = ["#EXTM3U", f"#EXT-X-VERSION:{_VERSION}", "#EXT-X-INDEPENDENT-SEGMENTS"]
    for codec in AudioCodec:
        lines += _audio_group(codec, _of(sounds, codec))
    lines += [_text(track, index) for index, track in enumerate(media.texts)]
    for rendition in media.videos:
        if rendition.video and rendition.ready_segment_count:
            lines += _variant(rendition, rendition.video, sounds, with_texts=bool(media.texts))
    if media.storyboard:
        board = media.storyboard
        lines.append(
            f'#EXT-X-IMAGE-STREAM-INF:BANDWIDTH={board.peak_bits_per_second},CODECS="jpeg",'
            f'RESOLUTION={board.tile_width}x{board.tile_height},URI="{STORYBOARD}.m3u8"'
        )
    return "\n".join(lines) + "\n"


def media_playlist(rendition: Rendition, segments: Sequence[Segment], *, complete: bool) -> str:
    """The playlist of one rendition: what is published without a gap, growing (EVENT) until `complete`."""
    longest = max((round(Fraction(s.duration_ticks, rendition.timescale)) for s in segments), default=0)
    lines = [
        "#EXTM3U",
        f"#EXT-X-VERSION:{_VERSION}",
        f"#EXT-X-TARGETDURATION:{max(_TARGET_S, longest)}",
        "#EXT-X-MEDIA-SEQUENCE:0",
        f"#EXT-X-PLAYLIST-TYPE:{'VOD' if complete else 'EVENT'}",
        "#EXT-X-INDEPENDENT-SEGMENTS",
    ]
    if not complete:
        # Players join what grows at its end unless told otherwise (bis 6.3.3).
        lines.append("#EXT-X-START:TIME-OFFSET=0,PRECISE=YES")
    lines.append(f'#EXT-X-MAP:URI="../segments/{rendition.rendition_id}/init.mp4"')
    for segment in segments:
        # From rounded ends, so that the sum never drifts; sound before zero is cut off by players.
        end_ticks = segment.start_ticks + segment.duration_ticks
        start, end = _us(max(segment.start_ticks, 0), rendition), _us(end_ticks, rendition)
        lines.append(f"#EXTINF:{(end - start) // _US}.{(end - start) % _US:06},")
        lines.append(f"../segments/{rendition.rendition_id}/{segment.number}.m4s")
    if complete:
        lines.append("#EXT-X-ENDLIST")
    return "\n".join(lines) + "\n"


def text_playlist(media: TitleMedia, track: TextTrack) -> str:
    """The playlist of a text track: one file as long as the title (RFC 8216, 3.5)."""
    seconds = -(-media.duration_ns // NS_PER_SECOND)
    return (
        f"#EXTM3U\n#EXT-X-VERSION:{_VERSION}\n#EXT-X-TARGETDURATION:{seconds}\n#EXT-X-PLAYLIST-TYPE:VOD\n"
        f"#EXTINF:{media.duration_ns / NS_PER_SECOND:.6f},\n../extras/{track.track_id}.vtt\n#EXT-X-ENDLIST\n"
    )


def storyboard_playlist(media: TitleMedia, board: Storyboard) -> str:
    """The playlist of sheets of small pictures (image media playlists, Roku 0.4, which players follow)."""
    lines = [
        "#EXTM3U",
        f"#EXT-X-VERSION:{_VERSION}",
        f"#EXT-X-TARGETDURATION:{-(-board.sheet_ns // NS_PER_SECOND)}",
        "#EXT-X-MEDIA-SEQUENCE:0",
        "#EXT-X-PLAYLIST-TYPE:VOD",
        "#EXT-X-IMAGES-ONLY",
    ]
    for number, start_ns in enumerate(range(0, media.duration_ns, board.sheet_ns)):
        shown_ns = min(board.sheet_ns, media.duration_ns - start_ns)
        lines += [
            f"#EXTINF:{shown_ns / NS_PER_SECOND:.6f},",
            f"#EXT-X-TILES:RESOLUTION={board.tile_width}x{board.tile_height},"
            f"LAYOUT={board.columns}x{board.rows},DURATION={board.interval_ns / NS_PER_SECOND:.6f}",
            f"../extras/{STORYBOARD}-{number}.jpg",
        ]
    return "\n".join([*lines, "#EXT-X-ENDLIST"]) + "\n"


def _text(track: TextTrack, index: int) -> str:
    name = quoted(track.label or f"{track.language} {index + 1}")
    return (
        f'#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="text",NAME="{name}",LANGUAGE="{track.language}",'
        f"DEFAULT={_yes(track.default)},AUTOSELECT={_yes(track.default or track.forced)},"
        f'FORCED={_yes(track.forced)},URI="{track.track_id}.m3u8"'
    )


def quoted(text: str) -> str:
    """What may stand in a quoted string (RFC 8216, 4.2): a name is somebody else's text."""
    return "".join("'" if char == '"' else char if char.isprintable() else " " for char in text)


def _yes(value: bool) -> str:
    return "YES" if value else "NO"


def _us(ticks: int, rendition: Rendition) -> int:
    return round(Fraction(ticks * _US, rendition.timescale))


def _of(sounds: Iterable[Rendition], codec: AudioCodec) -> list[Rendition]:
    return [r for r in sounds if r.audio and r.audio.codec is codec]


def _audio_group(codec: AudioCodec, sounds: Sequence[Rendition]) -> list[str]:
    lines = []
    for index, rendition in enumerate(sounds):
        if rendition.audio is None:
            continue
        language = rendition.audio.language
        lines.append(
            f'#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="{codec.name.lower()}",NAME="{language} {index + 1}",'
            f'LANGUAGE="{language}",DEFAULT={"NO" if index else "YES"},AUTOSELECT=YES,'
            f'CHANNELS="{rendition.audio.channel_count}",URI="{rendition.rendition_id}.m3u8"'
        )
    return lines


def _variant(
    rendition: Rendition, video: VideoTrack, sounds: Sequence[Rendition], *, with_texts: bool
) -> list[str]:
    matching = _of(sounds, MATCHING[video.codec])
    group = matching or next((found for codec in AudioCodec if (found := _of(sounds, codec))), [])
    codecs = ",".join(dict.fromkeys([rendition.codecs, *(r.codecs for r in group)]))
    peak = rendition.peak_bits_per_second + max((r.peak_bits_per_second for r in group), default=0)
    mean = rendition.mean_bits_per_second + max((r.mean_bits_per_second for r in group), default=0)
    attributes = (
        f'BANDWIDTH={max(peak, 1)},AVERAGE-BANDWIDTH={max(mean, 1)},CODECS="{codecs}",'
        f"RESOLUTION={video.width}x{video.height},FRAME-RATE={float(video.frame_rate):.3f}"
    )
    if group and group[0].audio:
        attributes += f',AUDIO="{group[0].audio.codec.name.lower()}"'
    if with_texts:
        attributes += ',SUBTITLES="text"'
    return [f"#EXT-X-STREAM-INF:{attributes}", f"{rendition.rendition_id}.m3u8"]
