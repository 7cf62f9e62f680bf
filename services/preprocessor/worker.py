"""Probe and analysis tasks as they come from the scheduler."""

from __future__ import annotations

import os

from kino.encoder.v1 import resources_pb2 as encoder
from kino.preprocessor.v1 import resources_pb2 as preprocessor
from kino.scheduler.v1 import resources_pb2 as scheduler
from services.media import sandbox
from services.media.errors import SandboxUnavailable
from services.media.messages import timeline_of
from services.media.sources import source_file
from services.media.work import Handler, Reporter
from services.preprocessor import wire
from services.preprocessor.analyze import analyze
from services.preprocessor.model import Window
from services.preprocessor.plan import plan_chunks
from services.preprocessor.probe import probe
from services.runtime.errors import InvalidArgument
from services.runtime.objects import ObjectStore


class LookTasks:
    """Does `probe` and `analyze` tasks."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def handlers(self) -> dict[str, Handler]:
        """By the name of the task's `spec`."""
        return {"probe": self.probe, "analyze": self.analyze}

    async def probe(self, task: scheduler.Task, reporter: Reporter) -> preprocessor.ProbeResult:
        """What a source is, and all its frames."""
        async with source_file(self._objects, task.probe.source.object_key) as path:
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
        async with source_file(self._objects, spec.source.object_key) as path:
            seen = await analyze(path, report, timeline, window, report_share=reporter.progress)
        chunks = plan_chunks(timeline, window, seen.shot_change_frames, spec.first_chunk_number)
        return preprocessor.AnalyzeResult(
            chunks=map(wire.chunk_message, chunks),
            shot_change_frames=seen.shot_change_frames,
            features=map(wire.feature_message, seen.features),
        )


async def capabilities() -> encoder.Capabilities:
    """What this machine does, and what shields it from hostile sources.

    Raises `SandboxUnavailable` when nothing does.
    """
    held = await sandbox.capabilities()
    if not held.isolates_network:
        raise SandboxUnavailable(problem="neither a network namespace nor a system call filter can be had")
    return encoder.Capabilities(
        task_kinds=[encoder.TASK_KIND_PROBE, encoder.TASK_KIND_ANALYZE],
        ffmpeg_version=await sandbox.ffmpeg_version(),
        sandbox=held.names(),
        core_count=os.cpu_count() or 1,
    )
