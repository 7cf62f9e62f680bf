"""Probe and analysis tasks as they come from the scheduler."""

from __future__ import annotations

import hashlib
import os

from kino.encoder.v1 import resources_pb2 as encoder
from kino.preprocessor.v1 import resources_pb2 as preprocessor
from kino.scheduler.v1 import resources_pb2 as scheduler
from services.media import sandbox
from services.media.errors import SandboxUnavailable
from services.media.messages import timeline_of
from services.media.scratch import Scratch
from services.media.work import Handler, Reporter, creeping
from services.preprocessor import wire
from services.preprocessor.analyze import analyze
from services.preprocessor.extract import extract
from services.preprocessor.model import StoredFile, Window
from services.preprocessor.plan import plan_chunks
from services.preprocessor.probe import probe
from services.runtime.errors import InvalidArgument
from services.runtime.objects import ObjectStore


class LookTasks:
    """Does `probe`, `analyze` and `extract` tasks."""

    def __init__(self, objects: ObjectStore, scratch: Scratch) -> None:
        self._objects, self._scratch = objects, scratch

    def handlers(self) -> dict[str, Handler]:
        """By the name of the task's `spec`."""
        return {"probe": self.probe, "analyze": self.analyze, "extract": self.extract}

    async def probe(self, task: scheduler.Task, reporter: Reporter) -> preprocessor.ProbeResult:
        """What a source is, and all its frames."""
        async with self._objects.file(task.probe.source.object_key) as path, creeping(reporter):
            found = await probe(path)
        return preprocessor.ProbeResult(
            report=wire.report_message(found.report), timeline=wire.timeline_message(found.timeline)
        )

    async def analyze(self, task: scheduler.Task, reporter: Reporter) -> preprocessor.AnalyzeResult:
        """Shots, features and chunks of one window."""
        spec = task.analyze
        timeline = timeline_of(spec.timeline)
        window = Window(start_frame=spec.start_frame, frame_count=spec.frame_count)
        if window.start_frame < 0 or window.end_frame > timeline.frame_count:
            raise InvalidArgument("frame_count", "reaches beyond the source")
        report = wire.report_of(spec.report)
        async with self._objects.file(spec.source.object_key) as path:
            seen = await analyze(
                path, report, timeline, window, report_share=reporter.progress, scratch=self._scratch
            )
        chunks = plan_chunks(timeline, window, seen.shot_change_frames, spec.first_chunk_number)
        return preprocessor.AnalyzeResult(
            chunks=map(wire.chunk_message, chunks),
            shot_change_frames=seen.shot_change_frames,
            features=map(wire.feature_message, seen.features),
        )

    async def extract(self, task: scheduler.Task, reporter: Reporter) -> preprocessor.ExtractResult:
        """Text tracks, chapters and small pictures, the files stored under keys of this attempt."""
        spec = task.extract
        report = wire.report_of(spec.report)
        async with self._objects.file(spec.source.object_key) as path, creeping(reporter):
            found = await extract(path, report, self._scratch)
        prefix = f"{spec.output_prefix}/extras"
        sheets = [
            await self._store(f"{prefix}/board-{number:04d}-{task.fence}.jpg", sheet)
            for number, sheet in enumerate(found.sheets)
        ]
        texts = [
            await self._store(f"{prefix}/{text.track_id}-{task.fence}.vtt", text.data) for text in found.texts
        ]
        return preprocessor.ExtractResult(
            extras=wire.extras_message(report, found, sheets, texts),
            command="\n".join(found.commands),
            left_out=map(wire.treatment_message, found.left_out),
        )

    async def _store(self, key: str, data: bytes) -> StoredFile:
        digest = hashlib.sha256(data)
        await self._objects.put(key, data, sha256=digest.hexdigest())
        return StoredFile(object_key=key, size_bytes=len(data), sha256=digest.digest())


async def capabilities() -> encoder.Capabilities:
    """What this machine does, and what shields it from hostile sources.

    Raises `SandboxUnavailable` when nothing does.
    """
    held = await sandbox.capabilities()
    if not held.isolates_network:
        raise SandboxUnavailable(problem="neither a network namespace nor a system call filter can be had")
    return encoder.Capabilities(
        task_kinds=[encoder.TASK_KIND_PROBE, encoder.TASK_KIND_ANALYZE, encoder.TASK_KIND_EXTRACT],
        ffmpeg_version=await sandbox.ffmpeg_version(),
        sandbox=held.names(),
        core_count=os.cpu_count() or 1,
    )
