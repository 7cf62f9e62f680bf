"""Encode tasks as they come from the scheduler."""

from __future__ import annotations

import os
from collections.abc import Sequence

from kino.encoder.v1 import resources_pb2 as encoder
from kino.scheduler.v1 import resources_pb2 as scheduler
from services.encoder import hardware, wire
from services.encoder.command import ENCODERS
from services.encoder.model import Rendition
from services.encoder.usecases import Encoder, Output
from services.media import sandbox
from services.media.errors import SandboxUnavailable
from services.media.work import Handler, Reporter, creeping
from services.runtime.errors import InvalidArgument


class EncodeTasks:
    """Does `encode_video`, `encode_audio` and `trial` tasks."""

    def __init__(self, encode: Encoder, build: str) -> None:
        """`build` says what encodes: the version line of FFmpeg."""
        self._encode, self._build = encode, build

    def handlers(self) -> dict[str, Handler]:
        """By the name of the task's `spec`."""
        return {"encode_video": self.video, "encode_audio": self.audio, "trial": self.trial}

    async def video(self, task: scheduler.Task, reporter: Reporter) -> encoder.EncodeVideoResult:
        """One chunk in all rungs of a codec."""
        spec = task.encode_video
        stored, command = await self._encode.video(
            spec.source.object_key,
            wire.chunk_of(spec),
            wire.clock_of(spec.report),
            wire.video_codec_of(spec),
            wire.video_rungs_of(spec.rungs),
            Output(prefix=spec.output_prefix, attempt=task.fence),
            picture=wire.picture_of(spec.report),
            report=reporter.progress,
        )
        return encoder.EncodeVideoResult(
            renditions=[wire.rendition_message(one) for one in stored],
            command=command,
            encoder_build=self._build,
            encoder=ENCODERS[wire.video_codec_of(spec)],
        )

    async def audio(self, task: scheduler.Task, reporter: Reporter) -> encoder.EncodeAudioResult:
        """A sound track up to the end of its grid, the segments announced as they are stored."""
        spec = task.encode_audio
        stored, command = await self._encode.audio(
            spec.source.object_key,
            wire.audio_rung_of(spec.rung),
            wire.clock_of(spec.report),
            wire.span_of(spec),
            Output(prefix=spec.output_prefix, attempt=task.fence),
            ready=lambda part: reporter.segments(wire.rendition_message(part)),
            report=reporter.progress,
        )
        return encoder.EncodeAudioResult(
            rendition=wire.rendition_message(stored),
            command=command,
            encoder_build=self._build,
            encoder=ENCODERS[wire.audio_rung_of(spec.rung).codec],
        )

    async def trial(self, task: scheduler.Task, reporter: Reporter) -> encoder.TrialResult:
        """What sizes and qualities of a title come to."""
        spec = task.trial
        async with creeping(reporter):
            trial = await self._encode.trial(
                spec.source.object_key,
                wire.excerpts_of(spec),
                wire.clock_of(spec.report),
                wire.video_rungs_of(spec.sizes),
                list(spec.crfs),
                wire.picture_of(spec.report),
            )
        return wire.trial_message(trial)

    async def again(self, record: encoder.EncodeRecord) -> list[encoder.VerifiedSegment]:
        """The segments of a record beside those that come out now; nothing is stored."""
        made: Sequence[Rendition]
        if record.HasField("video"):
            video = record.video
            made = await self._encode.video_again(
                video.source.object_key,
                wire.chunk_of(video),
                wire.clock_of(video.report),
                wire.video_codec_of(video),
                wire.video_rungs_of(video.rungs),
                wire.picture_of(video.report),
            )
        elif record.HasField("audio"):
            sound = record.audio
            made = await self._encode.audio_again(
                sound.source.object_key,
                wire.audio_rung_of(sound.rung),
                wire.clock_of(sound.report),
                wire.span_of(sound),
            )
        else:
            raise InvalidArgument("record.spec", "is missing")
        return wire.verified_messages(record, made)


async def capabilities() -> encoder.Capabilities:
    """What this machine encodes, and what shields it from hostile sources.

    Raises `SandboxUnavailable` when nothing does.
    """
    held = await sandbox.capabilities()
    if not held.isolates_network:
        raise SandboxUnavailable(problem="neither a network namespace nor a system call filter can be had")
    return encoder.Capabilities(
        task_kinds=[
            encoder.TASK_KIND_ENCODE_VIDEO,
            encoder.TASK_KIND_ENCODE_AUDIO,
            encoder.TASK_KIND_TRIAL,
        ],
        video_codecs=list(wire.VIDEO_CODECS),
        audio_codecs=list(wire.AUDIO_CODECS),
        ffmpeg_version=await sandbox.ffmpeg_version(),
        sandbox=held.names(),
        core_count=os.cpu_count() or 1,
        hardware_encoders=await hardware.tried_all(),
    )
