"""What is done to a source, and why, in words with the figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from services.media.pictures import WIDE_PRIMARIES
from services.preprocessor.ladder import MOST_AUDIOS
from services.preprocessor.model import SourceAudio, SourceText, SourceVideo, Treatment, TreatmentKind

#: Samples in which pictures leave the encoder, and their synonyms.
PLAIN_SAMPLES = frozenset({"yuv420p", "yuvj420p", "nv12"})
#: Distances of key frames from which decoding to a chunk costs more than the chunk.
FAR_KEYS_SECONDS = 20
#: More text tracks than any film has.
MOST_TEXTS = 32
#: Differences between the ends of picture and sound that nobody hears.
UNHEARD_SECONDS = Fraction(1, 10)
HDR_NAMES = {16: "PQ", 18: "HLG"}


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """How picture and sound lie to each other, in seconds on the timeline."""

    #: End of the last picture as the source has it.
    picture_end: Fraction
    #: The longest that a picture stands.
    longest_picture: Fraction
    #: Start and end of each sound track, by stream; those that have no sound are missing.
    sounds: dict[int, tuple[Fraction, Fraction]]

    @property
    def picture_hold(self) -> Fraction:
        """How long the last picture has to be held so that no sound is lost; 0 where nobody would hear it."""
        beyond = max((end for _, end in self.sounds.values()), default=Fraction(0)) - self.picture_end
        return beyond if beyond > UNHEARD_SECONDS else Fraction(0)


def _pictures(video: SourceVideo) -> Iterator[Treatment]:
    coded = {video.width, video.height}
    shown = f"{video.display_width}x{video.display_height}"
    if video.rotation_degrees:
        reason = f"The picture is turned clockwise by {video.rotation_degrees} degrees, as the file asks for."
        yield Treatment(kind=TreatmentKind.ROTATE, reason=reason)
    if {video.display_width, video.display_height} != coded:
        reason = f"Pixels are made square: {video.width}x{video.height} is shown as {shown}."
        yield Treatment(kind=TreatmentKind.SQUARE_PIXELS, reason=reason)
    if video.display_width % 2 or video.display_height % 2:
        reason = f"The size {shown} is rounded to even numbers, as 4:2:0 needs."
        yield Treatment(kind=TreatmentKind.SCALE, reason=reason)
    if video.interlaced:
        reason = "Interlaced pictures are made whole, one for each frame."
        yield Treatment(kind=TreatmentKind.DEINTERLACE, reason=reason)
    if video.pixel_format not in PLAIN_SAMPLES:
        reason = f"Pictures are turned from {video.pixel_format} into 8-bit 4:2:0."
        yield Treatment(kind=TreatmentKind.CONVERT_SAMPLES, reason=reason)


def _colors(video: SourceVideo) -> Iterator[Treatment]:
    if video.high_dynamic_range:
        name = HDR_NAMES[video.color_transfer]
        reason = f"High dynamic range ({name}) is mapped to the standard range, which every screen shows."
        yield Treatment(kind=TreatmentKind.TONE_MAP, reason=reason)
    elif video.color_primaries in WIDE_PRIMARIES:
        reason = "Colours of a wide gamut are turned into BT.709."
        yield Treatment(kind=TreatmentKind.CONVERT_COLOR, reason=reason)
    if video.full_range:
        reason = "Samples of full range are turned into the limited one."
        yield Treatment(kind=TreatmentKind.CONVERT_COLOR, reason=reason)


def _times(video: SourceVideo, lengths: Lengths | None) -> Iterator[Treatment]:
    if video.variable_frame_rate:
        reason = "Frames last differently long; every one keeps its own time."
        yield Treatment(kind=TreatmentKind.KEEP_VARIABLE_RATE, reason=reason)
    if video.longest_key_distance_s > FAR_KEYS_SECONDS:
        reason = (
            f"Key frames lie up to {video.longest_key_distance_s:.0f} s apart: "
            "each chunk decodes from the one before it, which takes time."
        )
        yield Treatment(kind=TreatmentKind.DECODE_FROM_FAR, reason=reason)
    if lengths is not None and lengths.longest_picture * 2 > 1:
        reason = (
            f"A picture stands for {float(lengths.longest_picture):.1f} s: "
            "it is shown again every half second, so that it can be cut and sought."
        )
        yield Treatment(kind=TreatmentKind.HOLD_PICTURE, reason=reason)
    if lengths is not None and lengths.picture_hold:
        reason = (
            f"Sound goes on for {float(lengths.picture_hold):.1f} s after the last picture, which is held."
        )
        yield Treatment(kind=TreatmentKind.EXTEND_PICTURE, reason=reason)


def _sound(audio: SourceAudio, lengths: Lengths | None) -> Iterator[Treatment]:
    name = f"Sound track {audio.stream_index}"
    if audio.channel_count > 2:
        reason = f"{name} is mixed from {audio.channel_count} channels to stereo."
        yield Treatment(kind=TreatmentKind.DOWNMIX, reason=reason, stream_index=audio.stream_index)
    if lengths is None or audio.stream_index not in lengths.sounds:
        return
    start, end = lengths.sounds[audio.stream_index]
    if start < -UNHEARD_SECONDS:
        reason = f"{name} begins {float(-start):.1f} s before the first picture; that part is left out."
        yield Treatment(kind=TreatmentKind.CUT_SOUND, reason=reason, stream_index=audio.stream_index)
    if start > UNHEARD_SECONDS:
        reason = f"{name} begins {float(start):.1f} s after the first picture; silence goes before it."
        yield Treatment(kind=TreatmentKind.PAD_SOUND, reason=reason, stream_index=audio.stream_index)
    missing = lengths.picture_end + lengths.picture_hold - end
    if missing > UNHEARD_SECONDS:
        reason = f"{name} ends {float(missing):.1f} s before the last picture; silence follows."
        yield Treatment(kind=TreatmentKind.PAD_SOUND, reason=reason, stream_index=audio.stream_index)


def treatments(
    video: SourceVideo,
    audios: Sequence[SourceAudio],
    texts: Sequence[SourceText],
    drawn: Sequence[SourceText],
    lengths: Lengths | None,
) -> tuple[Treatment, ...]:
    """All that is done to a source, in the order in which it is done.

    `drawn` are text tracks that hold pictures; `lengths` are known once all frames are read.
    """
    said = [*_pictures(video), *_colors(video), *_times(video, lengths)]
    for audio in audios[:MOST_AUDIOS]:
        said += _sound(audio, lengths)
    for audio in audios[MOST_AUDIOS:]:
        reason = f"Sound track {audio.stream_index} is left out: {MOST_AUDIOS} are made at most."
        said.append(Treatment(kind=TreatmentKind.DROP_TRACK, reason=reason, stream_index=audio.stream_index))
    for text in texts[MOST_TEXTS:]:
        reason = f"Text track {text.stream_index} is left out: {MOST_TEXTS} are made at most."
        said.append(Treatment(kind=TreatmentKind.DROP_TRACK, reason=reason, stream_index=text.stream_index))
    for text in drawn:
        reason = f"Text track {text.stream_index} is left out: {text.codec or 'it'} holds pictures of text."
        said.append(Treatment(kind=TreatmentKind.DROP_TRACK, reason=reason, stream_index=text.stream_index))
    if not audios:
        said.append(Treatment(kind=TreatmentKind.NO_SOUND, reason="There is no sound."))
    return tuple(said)
