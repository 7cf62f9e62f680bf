from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from services.playback import dash, hls
from services.playback.model import Storyboard, TextTrack, TitleMedia
from tests.support.mpd import faults
from tests.unit.playback.media import audio, segments, title, video

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
MPD = "{urn:mpeg:dash:schema:mpd:2011}"

WHOLE = title(
    [
        video("h264-720"),
        video("h264-480"),
        video("av1-480"),
        audio("aac-128-eng-0"),
        audio("aac-128-deu-1", channel_count=6),
        audio("opus-96-eng-0"),
    ]
)
GROWING = title([video("h264-720", 0), video("h264-480", 1), audio("aac-128-eng-0", 2)], complete=False)


def mpd(media: TitleMedia) -> ElementTree.Element:
    published = {r.rendition_id: segments(r) for r in media.renditions}
    return ElementTree.fromstring(dash.manifest(media, published, NOW))


def test_the_master_playlist_pairs_each_codec_with_its_sound() -> None:
    assert hls.master(WHOLE).splitlines() == [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="aac",NAME="eng 1",LANGUAGE="eng",DEFAULT=YES,AUTOSELECT=YES,'
        'CHANNELS="2",URI="aac-128-eng-0.m3u8"',
        '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="aac",NAME="deu 2",LANGUAGE="deu",DEFAULT=NO,AUTOSELECT=YES,'
        'CHANNELS="6",URI="aac-128-deu-1.m3u8"',
        '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="opus",NAME="eng 1",LANGUAGE="eng",DEFAULT=YES,AUTOSELECT=YES,'
        'CHANNELS="2",URI="opus-96-eng-0.m3u8"',
        '#EXT-X-STREAM-INF:BANDWIDTH=3012000,AVERAGE-BANDWIDTH=2288000,CODECS="avc1.64001f,mp4a.40.2",'
        'RESOLUTION=1280x720,FRAME-RATE=29.970,AUDIO="aac"',
        "h264-720.m3u8",
        '#EXT-X-STREAM-INF:BANDWIDTH=2052000,AVERAGE-BANDWIDTH=1568000,CODECS="avc1.64001f,mp4a.40.2",'
        'RESOLUTION=853x480,FRAME-RATE=29.970,AUDIO="aac"',
        "h264-480.m3u8",
        '#EXT-X-STREAM-INF:BANDWIDTH=2052000,AVERAGE-BANDWIDTH=1568000,CODECS="av01.0.05M.08,opus",'
        'RESOLUTION=853x480,FRAME-RATE=29.970,AUDIO="opus"',
        "av1-480.m3u8",
    ]


def test_a_silent_title_names_no_sound_and_nothing_unpublished_is_offered() -> None:
    lines = hls.master(title([video("h264-720", 0), video("h264-480")])).splitlines()
    assert lines[3:] == [
        '#EXT-X-STREAM-INF:BANDWIDTH=1920000,AVERAGE-BANDWIDTH=1440000,CODECS="avc1.64001f",'
        "RESOLUTION=853x480,FRAME-RATE=29.970",
        "h264-480.m3u8",
    ]


def test_pictures_without_their_own_sound_take_the_one_there_is() -> None:
    lines = hls.master(title([video("av1-480"), audio("aac-128-eng-0")])).splitlines()
    assert lines[-2].endswith(
        'CODECS="av01.0.05M.08,mp4a.40.2",RESOLUTION=853x480,FRAME-RATE=29.970,AUDIO="aac"'
    )


def test_a_finished_rendition_is_a_vod_playlist() -> None:
    rendition = WHOLE.renditions[0]
    assert hls.media_playlist(rendition, segments(rendition), complete=True).splitlines() == [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        "#EXT-X-TARGETDURATION:10",
        "#EXT-X-MEDIA-SEQUENCE:0",
        "#EXT-X-PLAYLIST-TYPE:VOD",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        '#EXT-X-MAP:URI="../segments/h264-720/init.mp4"',
        "#EXTINF:4.004000,",
        "../segments/h264-720/0.m4s",
        "#EXTINF:4.004000,",
        "../segments/h264-720/1.m4s",
        "#EXTINF:4.004000,",
        "../segments/h264-720/2.m4s",
        "#EXT-X-ENDLIST",
    ]


def test_a_growing_rendition_is_an_event_that_starts_at_its_beginning() -> None:
    rendition = GROWING.renditions[1]
    lines = hls.media_playlist(rendition, segments(rendition), complete=False).splitlines()
    assert lines[4:] == [
        "#EXT-X-PLAYLIST-TYPE:EVENT",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        "#EXT-X-START:TIME-OFFSET=0,PRECISE=YES",
        '#EXT-X-MAP:URI="../segments/h264-480/init.mp4"',
        "#EXTINF:4.004000,",
        "../segments/h264-480/0.m4s",
    ]


def test_a_playlist_only_ever_grows() -> None:
    rendition = WHOLE.renditions[3]
    everything = segments(rendition)
    texts = [hls.media_playlist(rendition, everything[:count], complete=False) for count in range(4)]
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))


def test_lengths_add_up_to_the_microsecond() -> None:
    rendition = audio("aac-128-eng-0")
    cut = segments(rendition)
    text = hls.media_playlist(rendition, cut, complete=True)
    lengths = [Fraction(line[8:-1]) for line in text.splitlines() if line.startswith("#EXTINF:")]
    end = Fraction(cut[-1].start_ticks + cut[-1].duration_ticks, 48000)
    assert abs(sum(lengths) - end) < Fraction(1, 1_000_000)


def test_a_complete_title_is_a_static_presentation() -> None:
    root = mpd(WHOLE)
    sets = [
        (
            a.get("id"),
            a.get("contentType"),
            a.get("lang"),
            [(r.get("id"), r.get("codecs"), r.get("bandwidth")) for r in a.findall(f"{MPD}Representation")],
        )
        for a in root.findall(f"{MPD}Period/{MPD}AdaptationSet")
    ]
    assert (root.get("type"), root.get("mediaPresentationDuration")) == ("static", "PT12.012S")
    assert sets == [
        (
            "0",
            "video",
            None,
            [("h264-720", "avc1.64001f", "2880000"), ("h264-480", "avc1.64001f", "1920000")],
        ),
        ("1", "video", None, [("av1-480", "av01.0.05M.08", "1920000")]),
        ("2", "audio", "eng", [("aac-128-eng-0", "mp4a.40.2", "132000")]),
        ("3", "audio", "deu", [("aac-128-deu-1", "mp4a.40.2", "132000")]),
        ("4", "audio", "eng", [("opus-96-eng-0", "opus", "132000")]),
    ]


def timeline(root: ElementTree.Element, rendition_id: str) -> list[dict[str, str]]:
    found = root.find(
        f".//{MPD}Representation[@id='{rendition_id}']/{MPD}SegmentTemplate/{MPD}SegmentTimeline"
    )
    assert found is not None
    return [element.attrib for element in found]


def test_segments_of_equal_length_are_one_entry_and_sound_is_cut_at_zero() -> None:
    root = mpd(WHOLE)
    assert timeline(root, "h264-720") == [{"t": "0", "d": "120120", "r": "2"}]
    assert timeline(root, "aac-128-eng-0") == [{"t": "0", "d": "191168"}, {"d": "192192", "r": "1"}]


def test_a_template_leads_to_the_segments_beside_the_manifest() -> None:
    template = mpd(WHOLE).find(f".//{MPD}Representation[@id='h264-720']/{MPD}SegmentTemplate")
    assert template is not None
    assert template.attrib == {
        "timescale": "30000",
        "initialization": "../segments/$RepresentationID$/init.mp4",
        "media": "../segments/$RepresentationID$/$Number$.m4s",
        "startNumber": "0",
    }


def test_a_growing_title_is_dynamic_and_everything_in_it_is_available() -> None:
    root = mpd(GROWING)
    assert {
        key: root.get(key) for key in ("type", "availabilityStartTime", "publishTime", "minimumUpdatePeriod")
    } == {
        "type": "dynamic",
        # Playable at midnight, less the 12.012 s of the title.
        "availabilityStartTime": "2025-12-31T23:59:47Z",
        "publishTime": "2026-01-01T12:00:00Z",
        "minimumUpdatePeriod": "PT2S",
    }
    assert [r.get("id") for r in root.iter(f"{MPD}Representation")] == ["h264-480", "aac-128-eng-0"]
    assert "mediaPresentationDuration" not in root.attrib


SIGNS = TextTrack(track_id="vtt-eng-0", language="eng", label="", default=False, forced=True)
SUBTITLES = TextTrack(track_id="vtt-deu-1", language="deu", label='Say "all"', default=True, forced=False)
BOARD = Storyboard(
    tile_width=160, tile_height=90, columns=5, rows=4, interval_ns=2_000_000_000, sheet_bytes=50_000
)


def test_subtitles_are_a_group_that_every_rung_names() -> None:
    lines = hls.master(title([video("h264-720")], texts=(SIGNS, SUBTITLES))).splitlines()
    assert [line for line in lines if "TYPE=SUBTITLES" in line] == [
        '#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="text",NAME="eng 1",LANGUAGE="eng",DEFAULT=NO,AUTOSELECT=YES,'
        'FORCED=YES,URI="vtt-eng-0.m3u8"',
        '#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="text",NAME="Say \'all\'",LANGUAGE="deu",DEFAULT=YES,'
        'AUTOSELECT=YES,FORCED=NO,URI="vtt-deu-1.m3u8"',
    ]
    assert [line.endswith('SUBTITLES="text"') for line in lines if "STREAM-INF" in line] == [True]


def test_a_text_playlist_is_one_file_as_long_as_the_title() -> None:
    lines = hls.text_playlist(title([video("h264-720")]), SIGNS).splitlines()
    assert lines[2:] == [
        "#EXT-X-TARGETDURATION:13",
        "#EXT-X-PLAYLIST-TYPE:VOD",
        "#EXTINF:12.012000,",
        "../extras/vtt-eng-0.vtt",
        "#EXT-X-ENDLIST",
    ]


def test_a_storyboard_is_a_stream_of_images_in_hls() -> None:
    board = replace(BOARD, columns=2, rows=2)
    media = title([video("h264-720")], storyboard=board)
    assert hls.master(media).splitlines()[-1] == (
        '#EXT-X-IMAGE-STREAM-INF:BANDWIDTH=50000,CODECS="jpeg",RESOLUTION=160x90,URI="storyboard.m3u8"'
    )
    tiles = "#EXT-X-TILES:RESOLUTION=160x90,LAYOUT=2x2,DURATION=2.000000"
    assert hls.storyboard_playlist(media, board).splitlines()[2:] == [
        "#EXT-X-TARGETDURATION:8",
        "#EXT-X-MEDIA-SEQUENCE:0",
        "#EXT-X-PLAYLIST-TYPE:VOD",
        "#EXT-X-IMAGES-ONLY",
        *("#EXTINF:8.000000,", tiles, "../extras/storyboard-0.jpg"),
        *("#EXTINF:4.012000,", tiles, "../extras/storyboard-1.jpg"),
        "#EXT-X-ENDLIST",
    ]


def test_an_mpd_names_subtitles_other_sound_and_the_storyboard() -> None:
    sounds = [audio("aac-128-eng-0"), audio("aac-128-deu-1"), audio("opus-96-eng-0")]
    root = mpd(title([video("h264-720"), *sounds], texts=(SIGNS, SUBTITLES), storyboard=BOARD))
    roles = {
        found.findall(f"{MPD}Representation")[0].get("id"): [
            role.get("value") for role in found.findall(f"{MPD}Role")
        ]
        for found in root.findall(f"{MPD}Period/{MPD}AdaptationSet")
    }
    assert roles == {
        "h264-720": [],
        "aac-128-eng-0": ["main"],
        "aac-128-deu-1": ["alternate"],
        "opus-96-eng-0": ["main"],
        "vtt-eng-0": ["forced-subtitle"],
        "vtt-deu-1": ["subtitle", "main"],
        "storyboard": [],
    }
    assert [url.text for url in root.iter(f"{MPD}BaseURL")] == [
        "../extras/vtt-eng-0.vtt",
        "../extras/vtt-deu-1.vtt",
    ]
    template = root.find(f".//{MPD}AdaptationSet[@contentType='image']/{MPD}SegmentTemplate")
    tiles = root.find(f".//{MPD}EssentialProperty")
    assert template is not None
    assert tiles is not None
    assert (template.get("media"), template.get("duration"), tiles.get("value")) == (
        "../extras/$RepresentationID$-$Number$.jpg",
        "40000",
        "5x4",
    )


@pytest.mark.parametrize(
    "media",
    [
        WHOLE,
        GROWING,
        title(
            [video("h264-720"), audio("aac-128-eng-0"), audio("aac-128-deu-1", channel_count=8)],
            texts=(SIGNS, SUBTITLES),
            storyboard=BOARD,
        ),
    ],
    ids=["whole", "growing", "with everything"],
)
def test_an_mpd_is_what_the_standard_asks_for(media: TitleMedia) -> None:
    published = {r.rendition_id: segments(r) for r in media.renditions}
    assert faults(dash.manifest(media, published, NOW)) == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('minBufferTime="PT10S"', ""),
        ('minBufferTime="PT10S"', 'minBufferTime="10"'),
        ('mediaPresentationDuration="PT12.012S"', ""),
        ('codecs="avc1.64001f"', ""),
        ('id="aac-128-eng-0"', 'id="h264-720"'),
        ("$Number$", "1"),
        ('<S t="0" d="191168" />', '<S t="0" d="191168" /><S t="5" d="9" />'),
        ('lang="eng"', 'lang="Englisch!"'),
    ],
)
def test_the_check_of_an_mpd_finds_what_is_wrong(right: str, wrong: str) -> None:
    text = dash.manifest(WHOLE, {r.rendition_id: segments(r) for r in WHOLE.renditions}, NOW)
    assert right in text
    assert faults(text.replace(right, wrong, 1)) != []
