"""`kino jobs verify`: encodes repeated elsewhere, and who is wrong where they differ.

Two encodes that differ say that one worker is wrong, not which: a third one, by yet another worker, decides.
Where there is none, or where all three differ, nobody is put in quarantine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Protocol, TypeVar

import grpc.aio
import typer

from cli.client import connect
from cli.main import State, run
from cli.output import Output
from kino.catalog.v1 import catalog_pb2
from kino.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from kino.encoder.v1 import resources_pb2 as encoder
from kino.encoder.v1.encoder_pb2 import VerifyEncodeRequest, VerifyEncodeResponse
from kino.encoder.v1.encoder_pb2_grpc import EncoderServiceStub
from kino.scheduler.v1 import scheduler_pb2
from kino.scheduler.v1.scheduler_pb2_grpc import SchedulerServiceStub
from services.runtime.errors import FailedPrecondition
from services.runtime.status import error_of

#: How often a worker other than some is asked for, for each there is: the gateway picks one by chance.
ASKS = 10
#: An encode takes as long as it took.
TIMEOUT_S = 1800.0

Stub = TypeVar("Stub")


class Stubs(Protocol):
    """What makes stubs that may call; `cli.client.Kino`."""

    def stub(self, stub_class: Callable[[grpc.aio.Channel], Stub]) -> Stub:
        """A stub of this class."""


class EncodesDiffer(FailedPrecondition):
    """{count} of {total} segments came out differently; the table says which. {verdict}"""

    reason = "ENCODES_DIFFER"
    fields = ("count", "total", "verdict")


@dataclass(frozen=True, kw_only=True)
class Checked:
    """An encode that was repeated."""

    record: encoder.EncodeRecord
    second: VerifyEncodeResponse
    #: By a third worker, where the second differs and there is one.
    third: VerifyEncodeResponse | None = None

    @property
    def alone(self) -> bool:
        """Whether the worker that made it repeated it itself."""
        return self.second.worker == self.record.worker

    @property
    def answers(self) -> list[VerifyEncodeResponse]:
        """Each repetition."""
        return [self.second] if self.third is None else [self.second, self.third]

    @property
    def wrong(self) -> str:
        """The worker that two others contradict; empty when nobody is known to be wrong."""
        if self.third is None:
            return ""
        if _repeated(self.second) == _repeated(self.third):
            return self.record.worker
        return self.second.worker if _repeated(self.third) == _published(self.third) else ""


@dataclass(kw_only=True)
class Findings:
    """What a verification came to."""

    checked: list[Checked] = field(default_factory=list)
    #: Workers put in quarantine, and why.
    quarantined: dict[str, str] = field(default_factory=dict)

    @property
    def differing(self) -> list[Checked]:
        """Encodes of which a repetition differs."""
        return [one for one in self.checked if _repeated(one.second) != _published(one.second)]

    def verdict(self) -> str:
        """Who is wrong, in words, for encodes that differ."""
        told = [
            f"{name} is wrong: no tasks until `kino jobs readmit {name}`; what it published stays."
            for name in self.quarantined
        ]
        unknown = [one for one in self.differing if not one.wrong]
        if any(one.third is None for one in unknown):
            told.append(
                "Fewer than three workers answered: nothing decides who is wrong, none is put in quarantine."
            )
        if any(one.third is not None for one in unknown):
            told.append("Three workers made three different encodes: none is put in quarantine.")
        return " ".join(told)


def verify(
    context: typer.Context,
    title: Annotated[str, typer.Argument(help="`titles/…`")],
    sample: Annotated[str, typer.Option(help="Share of the encodes to repeat.")] = "5%",
    seed: Annotated[str, typer.Option(help="Decides which ones.")] = "",
) -> None:
    """Encode a sample of a title's segments again, on other workers, and compare the bytes.

    Where they differ, a third worker decides who is wrong: that one gets no tasks until it is readmitted.

    Example: kino jobs verify titles/… --sample 5%
    """
    state: State = context.obj
    share = _share(sample)

    async def work() -> None:
        async with connect(state.url) as kino:
            show(state.output, await verified(kino, title, share, seed))

    run(work)


async def verified(kino: Stubs, title: str, share: float, seed: str = "") -> Findings:
    """A sample of a title's encodes, repeated; workers found wrong are put in quarantine."""
    answer = await kino.stub(CatalogServiceStub).GetTitle(catalog_pb2.GetTitleRequest(name=title))
    scheduler, findings = kino.stub(SchedulerServiceStub), Findings()
    workers = (await scheduler.ListWorkers(scheduler_pb2.ListWorkersRequest())).workers
    judges = _Judges(kino, len(workers), {each.name for each in workers if each.quarantine_reason})
    for record in await _records(scheduler, answer.title.job, share, seed):
        checked = await judges.check(record)
        findings.checked.append(checked)
        if checked.wrong and checked.wrong not in findings.quarantined:
            reason = f"Its encode of {record.task} differs from those of two other workers."
            await scheduler.QuarantineWorker(
                scheduler_pb2.QuarantineWorkerRequest(name=checked.wrong, reason=reason)
            )
            findings.quarantined[checked.wrong] = reason
            judges.barred.add(checked.wrong)
    return findings


class _Judges:
    """Workers that repeat encodes."""

    def __init__(self, kino: Stubs, count: int, barred: set[str]) -> None:
        """`barred` are in quarantine: what they say proves nothing."""
        self._stub = kino.stub(EncoderServiceStub)
        self._asks = ASKS * max(count, 1)
        self.barred = barred

    async def check(self, record: encoder.EncodeRecord) -> Checked:
        """An encode repeated by another worker, by a third where that differs; by its own where none is."""
        second = await self._elsewhere(record, record.worker)
        if second is None:
            return Checked(record=record, second=await self._ask(VerifyEncodeRequest(record=record)))
        if _repeated(second) == _published(second):
            return Checked(record=record, second=second)
        third = await self._elsewhere(record, record.worker, second.worker)
        return Checked(record=record, second=second, third=third)

    async def _elsewhere(self, record: encoder.EncodeRecord, *others: str) -> VerifyEncodeResponse | None:
        request = VerifyEncodeRequest(record=record, other_than=sorted({*self.barred, *others}))
        for _ in range(self._asks):
            try:
                return await self._ask(request)
            except grpc.aio.AioRpcError as error:
                if error_of(error).reason != "SAME_WORKER":
                    raise
        return None

    async def _ask(self, request: VerifyEncodeRequest) -> VerifyEncodeResponse:
        answer: VerifyEncodeResponse = await self._stub.VerifyEncode(request, timeout=TIMEOUT_S)
        return answer


def _repeated(answer: VerifyEncodeResponse) -> list[bytes]:
    return [segment.repeated_sha256 for segment in answer.segments]


def _published(answer: VerifyEncodeResponse) -> list[bytes]:
    return [segment.published_sha256 for segment in answer.segments]


def show(output: Output, findings: Findings) -> None:
    """Each repetition as a row, then what it means. Raises `EncodesDiffer`."""
    answers = [(one, answer) for one in findings.checked for answer in one.answers]
    rows = [
        (segment.rendition_id, segment.number, one.record.worker, answer.worker, _same(segment))
        for one, answer in answers
        for segment in answer.segments
    ]
    columns = ("rendition", "segment", "made by", "repeated by", "bytes")
    output.messages([answer for _, answer in answers], columns, rows)
    total = sum(len(one.second.segments) for one in findings.checked)
    if findings.differing:
        segments = [segment for one in findings.differing for segment in one.second.segments]
        differing = sum(_same(segment) != "same" for segment in segments)
        raise EncodesDiffer(differing, total, findings.verdict())
    output.say(f"{total} segments came out byte for byte the same.")
    alone = sum(len(one.second.segments) for one in findings.checked if one.alone)
    if alone:
        output.say(
            f"{alone} of them were repeated by the very worker that made them, because no other answered:"
            " that shows the encode can be repeated, not that the worker is right."
        )


def _same(segment: encoder.VerifiedSegment) -> str:
    return "same" if segment.published_sha256 == segment.repeated_sha256 else "DIFFERENT"


def _share(text: str) -> float:
    """A share given as `5%` or `0.05`."""
    try:
        value = float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise typer.BadParameter(f"{text} is no share: give, for example, 5%")
    return value


async def _records(
    scheduler: SchedulerServiceStub, job: str, share: float, seed: str
) -> list[encoder.EncodeRecord]:
    """A sample of the encodes of a job; at least one."""
    found: list[encoder.EncodeRecord] = []
    request = scheduler_pb2.ListEncodeRecordsRequest(
        name=job, page_size=100, sample_share=share, sample_seed=seed
    )
    while True:
        page = await scheduler.ListEncodeRecords(request)
        found += page.records
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    if found:
        return found
    first = scheduler_pb2.ListEncodeRecordsRequest(name=job, page_size=1)
    return list((await scheduler.ListEncodeRecords(first)).records)
