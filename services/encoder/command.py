"""The FFmpeg commands, as argument lists made of small parts; every flag has its reason above it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from services.encoder.model import (
    AudioCodec,
    AudioRung,
    Chunk,
    Metric,
    SourceClock,
    VideoCodec,
    VideoRung,
)
from services.media.languages import three_letters
from services.media.pictures import PictureFormat
from services.media.sandbox import INPUT_FLAGS, ffmpeg
from services.media.time import run_lengths

#: FFmpeg's name for what encodes each codec.
ENCODERS: Mapping[VideoCodec | AudioCodec, str] = {
    VideoCodec.H264: "libx264",
    VideoCodec.HEVC: "libx265",
    VideoCodec.AV1: "libsvtav1",
    AudioCodec.AAC: "aac",
    AudioCodec.OPUS: "libopus",
}
PROGRESSIVE = PictureFormat()
SCALER = "bicubic+accurate_rnd+bitexact"
#: Of the frames measured, VMAF looks at each so manieth.
VMAF_EVERY = 4
#: Frames before a chunk that judge the fields of its first.
FIELDS_CONTEXT = 3


def _global_flags() -> list[str]:
    return [
        ffmpeg(),
        "-hide_banner",
        # Never wait for a key.
        "-nostdin",
        "-y",
        # Only what explains a failure.
        *("-loglevel", "error"),
    ]


def _seconds(value: Fraction) -> str:
    """A time as FFmpeg reads it; it keeps microseconds."""
    return f"{float(value):.6f}"


def cut_point(chunk: Chunk, clock: SourceClock) -> Fraction | None:
    """Where to cut, in seconds on the container's clock: half-way into the frame before the chunk's picture.

    No rounding can move that past a frame. None for the source's first picture.
    """
    if chunk.previous_frame_ticks == 0:
        return None
    picture = chunk.start_ticks - chunk.held_ticks
    return clock.zero + Fraction(2 * picture - chunk.previous_frame_ticks, 2 * chunk.timescale)


def _aim(chunk: Chunk, clock: SourceClock, at: Fraction, picture: PictureFormat) -> Fraction:
    """Where to seek to for what is cut at `at`, in seconds on the container's clock."""
    if not clock.exact_seeks or picture.interlaced:  # fields are judged by frames before the first
        return at - clock.run_up_seconds
    # Into the first picture, so that no rounding moves it before one that can be decoded on its own.
    begin = 2 * (chunk.start_ticks - chunk.held_ticks) + chunk.durations[0]
    return clock.zero + Fraction(begin, 2 * chunk.timescale)


def _video_input(chunk: Chunk, clock: SourceClock, picture: PictureFormat) -> list[str]:
    # One thread decodes: a worker has as many slots as it has cores.
    argv = ["-threads", "1"]
    at = cut_point(chunk, clock)
    if at is not None:
        # A seek counts from the container's start; the graph drops what is too early.
        start = _aim(chunk, clock, at, picture) - Fraction(clock.container_start_us, 1_000_000)
        argv += ["-noaccurate_seek", "-ss", _seconds(max(start, Fraction(0)))]
    # Keep the source's clock, so that the graph can name absolute times.
    return [*argv, "-copyts", *INPUT_FLAGS]


def _clock_filters(chunk: Chunk, clock: SourceClock) -> list[str]:
    """Filters that put the timeline's ticks on the frames."""
    first = chunk.start_ticks
    pictures = chunk.pictures
    if len(pictures) != chunk.frame_count:
        # Pictures that the source holds are shown again; from the last on, so that numbers stay. The filter
        # counts a frame before it compares, so that the first is its number 1.
        again = [
            f"loop=loop={times - 1}:size=1:start={number + 1}"
            for number, times in reversed(list(enumerate(pictures)))
            if times > 1
        ]
        return [*again, f"settb=1/{chunk.timescale}", f"setpts='{_ticks_by_number(chunk)}'"]
    if clock.time_base * chunk.timescale == 1:
        return [f"settb=1/{chunk.timescale}", f"setpts=PTS-({clock.first_pts})"]
    # The container's clock is too coarse for the rate, which is constant then: count instead.
    return [f"settb=1/{chunk.timescale}", f"setpts=N*{chunk.runs[0].duration_ticks}+{first}"]


def _ticks_by_number(chunk: Chunk) -> str:
    """The tick of frame N as an expression: a sum over the runs of frames that last equally long."""
    terms, first = [str(chunk.start_ticks)], 0
    for run in run_lengths(chunk.durations):
        terms.append(f"{run.duration_ticks}*clip(N-{first},0,{run.count})")
        first += run.count
    return "+".join(terms)


def _cut_filters(chunk: Chunk, clock: SourceClock, picture: PictureFormat) -> list[str]:
    """Filters that drop what a seek's run-up brings, and make interlaced pictures whole."""
    at = cut_point(chunk, clock)
    exact = [f"trim=start={_seconds(at)}"] if at is not None else []
    if not picture.interlaced:
        return exact
    # One picture for each frame, not for each field: the number of frames must stay. Its fields are judged by
    # those of the frames before, which therefore are dropped only after it.
    early = [f"trim=start={_seconds(at - FIELDS_CONTEXT / clock.frame_rate)}"] if at is not None else []
    return [*early, "bwdif=mode=send_frame:deint=interlaced", *exact]


def _graph(chunk: Chunk, clock: SourceClock, rungs: Sequence[VideoRung], picture: PictureFormat) -> str:
    """One decode, fanned out to all rungs."""
    # Colours are turned at the largest rung's size, to be cheap.
    largest = max(rungs, key=lambda rung: rung.width * rung.height)
    shared = _cut_filters(chunk, clock, picture) + picture.color_filters(largest.width, largest.height)
    shared += [*_clock_filters(chunk, clock), f"split={len(rungs)}"]
    outlets = "".join(f"[s{i}]" for i in range(len(rungs)))
    lines = [f"[0:{clock.stream_index}]{','.join(shared)}{outlets}"]
    for i, rung in enumerate(rungs):
        # Square pixels and 8 bit 4:2:0 of limited range are what every decoder takes.
        # Bit-exact: processors of other makes scale the same.
        scale = f"scale={rung.width}:{rung.height}:flags={SCALER}:out_range=tv,setsar=1,format=yuv420p"
        lines.append(f"[s{i}]{scale}[v{i}]")
    return ";".join(lines)


def _sync_times(chunk: Chunk) -> str:
    """Where key frames are forced: half a frame early, as they go to the first frame at or after."""
    pts = chunk.pts
    times = []
    for frame in chunk.sync_frames:
        earlier = pts[frame - 1] if frame else max(pts[0] - chunk.previous_frame_ticks, 0)
        times.append(_seconds(Fraction(pts[frame] + earlier, 2 * chunk.timescale)))
    return ",".join(times)


def _h264(rung: VideoRung) -> list[str]:
    params = [
        # Key frames only where forced: the same in every rung, and never more than two seconds apart.
        *("keyint=infinite", "min-keyint=1", "scenecut=0"),
        # No picture refers across a key frame, so that decoding can start at each.
        "open-gop=0",
        # Parameter sets that do not depend on the content: one init segment serves all chunks.
        "stitchable=1",
        # Bytes must not depend on the machine's cores.
        *("threads=1", "lookahead-threads=1"),
    ]
    return [
        *("-c:v", ENCODERS[VideoCodec.H264], "-preset", "fast", "-profile:v", "high"),
        # A forced key frame is an IDR picture.
        *("-forced-idr", "1"),
        # Constant quality under a cap; an average rate per chunk loses quality in hard scenes.
        *("-crf", f"{rung.crf:g}", "-maxrate", str(rung.max_bits_per_second)),
        *("-bufsize", str(2 * rung.max_bits_per_second)),
        *("-x264-params", ":".join(params)),
    ]


def _hevc(rung: VideoRung) -> list[str]:
    params = [
        # Key frames only where forced, and no picture refers across one.
        *("keyint=-1", "min-keyint=1", "scenecut=0", "open-gop=0"),
        # Parameter sets once, in the sample description, where players look for them.
        *("repeat-headers=0", "hrd=0"),
        # Nothing in them that depends on the content: one init segment serves all chunks.
        *("opt-qp-pps=0", "opt-ref-list-length-pps=0"),
        # Neither its build and options nor checksums among the samples.
        "info=0",
        # Bytes must not depend on the machine's cores.
        *("pools=none", "frame-threads=1", "wpp=0", "lookahead-threads=0"),
        "log-level=error",
    ]
    return [
        *("-c:v", ENCODERS[VideoCodec.HEVC], "-preset", "medium", "-profile:v", "main"),
        # What Apple's players ask for: parameter sets in the sample description alone.
        *("-tag:v", "hvc1"),
        # A forced key frame is an IDR picture.
        *("-forced-idr", "1"),
        *("-crf", f"{rung.crf:g}", "-maxrate", str(rung.max_bits_per_second)),
        *("-bufsize", str(2 * rung.max_bits_per_second)),
        *("-x265-params", ":".join(params)),
    ]


#: AV1 levels that are made (specification A.3): SVT's name for it, largest picture, luma samples per second.
AV1_LEVELS = (
    (20, 147_456, 4_423_680),
    (21, 278_784, 8_363_520),
    (30, 665_856, 19_975_680),
    (31, 1_065_024, 31_950_720),
    (40, 2_359_296, 70_778_880),
    (41, 2_359_296, 141_557_760),
    (50, 8_912_896, 267_386_880),
    (51, 8_912_896, 534_773_760),
    (52, 8_912_896, 1_069_547_520),
    (60, 35_651_584, 1_069_547_520),
)


def av1_level(rung: VideoRung, frame_rate: Fraction) -> int:
    """The lowest AV1 level that holds the rung, by SVT's name; the highest known one when none does."""
    picture = rung.width * rung.height
    for name, largest, rate in AV1_LEVELS:
        if picture <= largest and picture * frame_rate <= rate:
            return name
    return AV1_LEVELS[-1][0]


def _av1(rung: VideoRung, frame_rate: Fraction) -> list[str]:
    params = [
        # One thread's worth of work at a time; more gives other bytes.
        "lp=1",
        # Key frames only where forced, none at scene changes.
        *("keyint=-1", "scd=0"),
        # Capped constant quality, in kbit/s.
        f"mbr={rung.max_bits_per_second // 1000}",
        # Left alone it writes level 2.0 whatever the size.
        f"level={av1_level(rung, frame_rate)}",
    ]
    return [
        # From 10 on pictures come out damaged (it says so itself), and larger than at 8.
        *("-c:v", ENCODERS[VideoCodec.AV1], "-preset", "8", "-crf", f"{rung.crf:g}"),
        *("-svtav1-params", ":".join(params)),
    ]


def _encoder(codec: VideoCodec, rung: VideoRung, frame_rate: Fraction) -> list[str]:
    if codec is VideoCodec.AV1:
        return _av1(rung, frame_rate)
    return _h264(rung) if codec is VideoCodec.H264 else _hevc(rung)


def _video_output(
    index: int, rung: VideoRung, chunk: Chunk, clock: SourceClock, codec: VideoCodec, name: str
) -> list[str]:
    return [
        *("-map", f"[v{index}]"),
        # The chunk ends by count, which no rounding can move.
        *("-frames:v", str(chunk.frame_count)),
        *_encoder(codec, rung, clock.frame_rate),
        *("-threads", "1"),
        *("-force_key_frames", _sync_times(chunk)),
        # Neither drop nor repeat frames, and count time in the timeline's own ticks.
        *("-fps_mode", "passthrough", "-enc_time_base", f"1:{chunk.timescale}"),
        *("-video_track_timescale", str(chunk.timescale)),
        *_no_metadata(),
        # Keep absolute decode times, however late the chunk begins.
        *_fragmented("frag_discont"),
        # All in one fragment; packaging cuts it at the sync points.
        *("-frag_duration", "60000000", name),
    ]


def _no_metadata() -> list[str]:
    # The uploader's tags (places, dates, names) and chapters are not part of a segment.
    return ["-map_metadata", "-1", "-map_chapters", "-1"]


def _fragmented(*extra: str) -> list[str]:
    # delay_moov: know the first frame before the edit list is written. default_base_moof: offsets that
    # survive being moved. An index and a trailer would only be thrown away.
    flags = ["delay_moov", "default_base_moof", "skip_sidx", "skip_trailer", *extra]
    return [
        *("-f", "mp4"),
        # State the decode delay in an edit list: negative offsets are read differently by different decoders.
        *("-use_editlist", "1"),
        *("-movflags", "+".join(["", *flags])),
    ]


def video_command(
    chunk: Chunk,
    clock: SourceClock,
    codec: VideoCodec,
    rungs: Sequence[VideoRung],
    *,
    picture: PictureFormat = PROGRESSIVE,
) -> list[str]:
    """Encodes one chunk in all rungs of a codec, decoding it once; rung k goes to the file `k.mp4`.

    Progress comes on standard output as `frame=N` lines.
    """
    argv = [*_global_flags(), "-progress", "pipe:1", "-stats_period", "0.5"]
    argv += _video_input(chunk, clock, picture)
    # The graph has one thread as well.
    argv += ["-filter_complex_threads", "1"]
    argv += ["-filter_complex", _graph(chunk, clock, rungs, picture)]
    for index, rung in enumerate(rungs):
        argv += _video_output(index, rung, chunk, clock, codec, f"{index}.mp4")
    return argv


def quality_command(
    part: Chunk,
    clock: SourceClock,
    rungs: Sequence[VideoRung],
    picture: PictureFormat,
    metric: Metric,
    *,
    shown_at: VideoRung | None = None,
) -> list[str]:
    """Compares a part of a chunk in all rungs with the source; what was coded of rung k is in `k.part`.

    At each rung's own size, or all at the size of `shown_at`, as on a screen. Rung k's figures go to `k.log`:
    JSON of VMAF, or a line a frame of SSIM.
    """
    argv = [
        *_global_flags(),
        "-progress",
        "pipe:1",
        "-stats_period",
        "0.5",
        *_video_input(part, clock, picture),
    ]
    lines = [_graph(part, clock, [shown_at or rung for rung in rungs], picture)]
    # The source goes on: without an end its next frame would be compared with our last.
    whole = f"trim=end_frame={part.frame_count},setpts=N"
    grown = f"scale={shown_at.width}:{shown_at.height}:flags=bicubic," if shown_at else ""
    for index in range(len(rungs)):
        # Our own output; the frames are counted, so that no time stamp can shift one against the other.
        argv += ["-threads", "1", "-protocol_whitelist", "file", "-i", f"{index}.part"]
        log = f"libvmaf=n_threads=1:n_subsample={VMAF_EVERY}:log_fmt=json:log_path={index}.log"
        measure = log if metric is Metric.VMAF else f"ssim=stats_file={index}.log"
        lines += [f"[{index + 1}:v]{grown}{whole}[e{index}]", f"[v{index}]{whole}[r{index}]"]
        lines.append(f"[e{index}][r{index}]{measure}[q{index}]")
    argv += ["-filter_complex_threads", "1", "-filter_complex", ";".join(lines)]
    for index in range(len(rungs)):
        argv += ["-map", f"[q{index}]", "-frames:v", str(part.frame_count), "-f", "null", "-"]
    return argv


def _audio_codec(rung: AudioRung) -> list[str]:
    rate = ["-b:a", str(rung.bits_per_second)]
    if rung.codec is AudioCodec.AAC:
        return ["-c:a", ENCODERS[rung.codec], "-profile:a", "aac_low", *rate]
    return ["-c:a", ENCODERS[rung.codec], "-vbr", "on", "-application", "audio", *rate]


def audio_command(rung: AudioRung, clock: SourceClock, sample_count: int) -> list[str]:
    """Encodes a whole sound track to standard output, `sample_count` long from the timeline's zero."""
    filters = [
        f"asetpts=PTS-({_seconds(clock.zero)})/TB",
        # Silence where the track starts late or has a hole, and a cut where it starts before the picture.
        f"aresample={rung.sample_rate_hz}:async=1:first_pts=0",
        f"aformat=channel_layouts={'stereo' if rung.channel_count == 2 else 'mono'}",
        # As long as the picture, to the sample.
        f"apad=whole_len={sample_count}",
        f"atrim=end_sample={sample_count}",
    ]
    return [
        *_global_flags(),
        *("-threads", "1", "-copyts", *INPUT_FLAGS),
        *("-map", f"0:{rung.stream_index}", "-filter:a", ",".join(filters)),
        *_audio_codec(rung),
        # The same bytes from every build and machine.
        *("-flags:a", "+bitexact", "-fflags", "+bitexact"),
        *_no_metadata(),
        *("-metadata:s:a:0", f"language={three_letters(rung.language)}"),
        *_fragmented(),
        # A piece for each second, so that segments can be published while the encode goes on.
        *("-frag_duration", "1000000", "pipe:1"),
    ]
