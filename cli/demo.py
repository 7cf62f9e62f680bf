"""The demo: one made film through every part of the suite, and what comes out checked frame by frame.

Everything goes through the gateway and the public contracts, as two people would: an operator and a viewer.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import grpc.aio
from google.protobuf.duration_pb2 import Duration

from cli.client import CredentialFile, Kino, connect
from cli.commands.ingest import upload_with_progress
from cli.commands.jobs import ensure_succeeded, watch_job
from cli.output import Mute, Output, clock, money
from cli.playing import end_playback, receive, start_playback, stop_at
from cli.stream_check import CheckFailed, check, decode_stream, judge
from kino.billing.v1 import billing_pb2, billing_pb2_grpc
from kino.billing.v1 import resources_pb2 as billing
from kino.catalog.v1 import catalog_pb2, catalog_pb2_grpc
from kino.catalog.v1 import resources_pb2 as catalog
from kino.common.v1 import money_pb2
from kino.history.v1 import history_pb2, history_pb2_grpc
from kino.identity.v1 import identity_pb2, identity_pb2_grpc
from kino.media.v1 import media_pb2
from kino.playback.v1 import playback_pb2
from kino.search.v1 import search_pb2, search_pb2_grpc
from services.media.testfilm import FilmSpec, make_film
from services.runtime.status import error_of

TITLE = "The Clockmaker's Minute"
MISSPELT = "clokmakers minut"
#: Where playing begins, in seconds: 00:00:33.4.
OFFSET = Fraction(334, 10)
_PASSWORD = "only for the demo"
_FOUND_WITHIN_S = 10.0


@dataclass(kw_only=True)
class Step:
    """One row of the summary."""

    name: str
    result: str = ""
    seconds: float = 0.0


@dataclass(kw_only=True)
class Demo:
    """One run. `steps` holds what was done so far, also when it failed."""

    url: str
    claim_token: str
    #: For the film and both people's credentials.
    folder: Path
    output: Output
    film: FilmSpec = field(default_factory=FilmSpec)
    steps: list[Step] = field(default_factory=list)

    async def run(self) -> None:
        """Do everything. Raises the `KinoError` or gRPC error of what went wrong."""
        async with self._connect("operator") as operator, self._connect("viewer") as viewer:
            await self.accounts(operator, viewer)
            plan = await self.plan(operator)
            title = await self.ingest(operator)
            await self.search(viewer, title)
            await self.pay(operator, viewer, plan, title)
            await self.play(viewer, title, "h264", media_pb2.VIDEO_CODEC_H264)
            await self.play(viewer, title, "av1", media_pb2.VIDEO_CODEC_AV1)
            await self.resume(viewer, title)
            await self.invoice(viewer)

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Time a step and say how it went; set `result` inside."""
        step = Step(name=name)
        self.steps.append(step)
        started = time.monotonic()
        try:
            yield step
        except BaseException:
            step.result = "failed"
            raise
        finally:
            step.seconds = time.monotonic() - started
            self.output.say(f"{step.name:<22} {step.result}  [dim]{step.seconds:.1f} s[/]")

    @asynccontextmanager
    async def _connect(self, who: str) -> AsyncIterator[Kino]:
        async with connect(self.url, CredentialFile(self.folder / f"{who}.json")) as kino:
            yield kino

    async def accounts(self, operator: Kino, viewer: Kino) -> None:
        with self.step("accounts") as step:
            claim = identity_pb2.ClaimOperatorRequest(
                claim_token=self.claim_token,
                email="operator@example.org",
                password=_PASSWORD,
                display_name="Operator",
            )
            stub = operator.stub(identity_pb2_grpc.IdentityServiceStub)
            operator.keep((await stub.ClaimOperator(claim)).session)
            sign_up = identity_pb2.SignUpRequest(
                email="viewer@example.org",
                password=_PASSWORD,
                display_name="Viewer",
                request_id=str(uuid.uuid4()),
            )
            answer = await viewer.stub(identity_pb2_grpc.IdentityServiceStub).SignUp(sign_up)
            viewer.keep(answer.session)
            step.result = f"an operator and {answer.user.email}"

    async def plan(self, operator: Kino) -> billing.Plan:
        with self.step("plan") as step:
            plan = billing.Plan(
                display_name="Standard",
                price=money_pb2.Money(currency_code="EUR", amount_minor=999),
                interval=billing.Plan.INTERVAL_MONTH,
                concurrent_stream_limit=2,
            )
            request = billing_pb2.CreatePlanRequest(plan=plan, request_id=str(uuid.uuid4()))
            made = (await operator.stub(billing_pb2_grpc.BillingServiceStub).CreatePlan(request)).plan
            step.result = f"{made.display_name}, {_amount(made.price)} a month, 2 streams"
            return made

    async def ingest(self, operator: Kino) -> str:
        path = self.folder / "clockmaker.mp4"
        with self.step("film") as step:
            await make_film(path, self.film)
            fps = f"{self.film.fps.numerator}/{self.film.fps.denominator}"
            size = f"{self.film.width}x{self.film.height}"
            step.result = f"{self.film.timeline.frame_count} numbered frames, {size} at {fps}, with sound"
        with self.step("ingest") as step:
            new = catalog.Title(display_name=TITLE, genres=["Demo"])
            done = await upload_with_progress(operator, path, new, [], self.output)
            job = await watch_job(operator, done.job, Mute() if self.output.as_json else self.output)
            ensure_succeeded(job)
            created = job.create_time.ToMilliseconds()
            playable_s = (job.playable_time.ToMilliseconds() - created) / 1000
            complete_s = (job.end_time.ToMilliseconds() - created) / 1000
            stub = operator.stub(catalog_pb2_grpc.CatalogServiceStub)
            title = (await stub.GetTitle(catalog_pb2.GetTitleRequest(name=done.title))).title
            check("State of the title", "STATE_COMPLETE", catalog.Title.State.Name(title.state))
            check("Length of the title", self._end_ns(), title.duration.ToNanoseconds())
            renditions = ", ".join(part.rendition_id for part in job.renditions)
            step.result = f"playable in {playable_s:.1f} s, complete in {complete_s:.1f} s: {renditions}"
            return title.name

    async def search(self, viewer: Kino, title: str) -> None:
        with self.step("search") as step:
            stub = viewer.stub(search_pb2_grpc.SearchServiceStub)
            deadline = time.monotonic() + _FOUND_WITHIN_S
            # The index follows the catalogue; it is never the truth.
            while True:
                answer = await stub.SearchTitles(search_pb2.SearchTitlesRequest(query=MISSPELT))
                found = [hit.title for hit in answer.hits[:1]]
                if found == [title]:
                    break
                if time.monotonic() > deadline:
                    raise CheckFailed(f"First hit for “{MISSPELT}”", title, found or "nothing")
                await asyncio.sleep(0.1)
            step.result = f"“{MISSPELT}” finds {answer.hits[0].display_name}"

    async def pay(self, operator: Kino, viewer: Kino, plan: billing.Plan, title: str) -> None:
        with self.step("subscription") as step:
            stub = viewer.stub(billing_pb2_grpc.BillingServiceStub)
            before = await _refusal(viewer, title)
            request = billing_pb2.CreateSubscriptionRequest(
                parent=viewer.user, plan=plan.name, request_id=str(uuid.uuid4())
            )
            made = await stub.CreateSubscription(request)
            unpaid = await _refusal(viewer, title)
            check("Playing without, and with an unpaid subscription", ("NOT_ENTITLED",) * 2, (before, unpaid))
            payment = billing_pb2.RecordPaymentRequest(
                invoice=made.invoice.name,
                amount=made.invoice.total,
                reference="demo",
                request_id=str(uuid.uuid4()),
            )
            paid = await operator.stub(billing_pb2_grpc.BillingServiceStub).RecordPayment(payment)
            state = billing.Subscription.State.Name(paid.subscription.state)
            check("State of the paid subscription", "STATE_ACTIVE", state)
            step.result = f"refused while unpaid; {_amount(made.invoice.total)} paid, active"

    async def play(self, viewer: Kino, title: str, name: str, codec: media_pb2.VideoCodec.ValueType) -> None:
        with self.step(f"play 0:33.4 {name}") as step:
            started = await start_playback(viewer, title, f"{name} screen")
            request = playback_pb2.PlayRequest(
                lease_token=started.lease.token, offset=_duration(OFFSET), video_codec=codec
            )
            stream = await receive(viewer, request)
            await end_playback(viewer, started.lease.token)
            decoded = decode_stream(stream.header, stream.data)
            verdict = judge(self.film, stream.header, decoded, offset=OFFSET)
            last = self.film.timeline.frame_count - 1
            check("Last frame", last, verdict.first_frame + verdict.frame_count - 1)
            check("Flashes with their beep", True, verdict.flash_count > 20)
            height = stream.header.video.video.height
            step.result = (
                f"{height}p, frames {verdict.first_frame} to {last}, trim {stream.header.trim_frame_count} "
                f"leads to {verdict.wanted_frame}, beeps within {verdict.worst_sync_ms:.1f} ms"
            )

    async def resume(self, viewer: Kino, title: str) -> None:
        with self.step("stop and resume") as step:
            started = await start_playback(viewer, title, "living room")
            token, half_way = started.lease.token, self.film.timeline.frame_count // 2
            request = playback_pb2.PlayRequest(lease_token=token, offset=_duration(self.film.seconds / 3))
            stream = await receive(viewer, request, break_after=3)
            judge(
                self.film,
                stream.header,
                decode_stream(stream.header, stream.data),
                offset=self.film.seconds / 3,
            )
            position = Duration()
            position.FromNanoseconds(self.film.timeline.ns(half_way))
            await stop_at(viewer, token, stream.header, position)

            again = await start_playback(viewer, title, "phone")
            check("Resume offset", position.ToNanoseconds(), again.resume_offset.ToNanoseconds())
            request = playback_pb2.PlayRequest(
                lease_token=again.lease.token, video_codec=media_pb2.VIDEO_CODEC_AV1, segment_count=2
            )
            stream = await receive(viewer, request)
            await end_playback(viewer, again.lease.token)
            verdict = judge(self.film, stream.header, decode_stream(stream.header, stream.data), offset=None)
            check("Frame resumed at", half_way, verdict.wanted_frame)
            step.result = f"left at frame {half_way} ({clock(position)}), phone resumes at frame {half_way}"
        with self.step("history") as step:
            request_views = history_pb2.ListViewsRequest(parent=await viewer.profile())
            page = await viewer.stub(history_pb2_grpc.HistoryServiceStub).ListViews(request_views)
            seen = [(view.title, view.position.ToNanoseconds()) for view in page.views]
            check("History", [(title, position.ToNanoseconds())], seen)
            step.result = f"{TITLE}, {clock(position)} of {clock(page.views[0].title_duration)}"

    async def invoice(self, viewer: Kino) -> None:
        with self.step("invoice") as step:
            request = billing_pb2.ListInvoicesRequest(parent=viewer.user)
            page = await viewer.stub(billing_pb2_grpc.BillingServiceStub).ListInvoices(request)
            facts = [
                (billing.Invoice.State.Name(invoice.state), invoice.total.amount_minor)
                for invoice in page.invoices
            ]
            check("Invoices", [("STATE_PAID", 999)], facts)
            step.result = f"{page.invoices[0].number}, {_amount(page.invoices[0].total)}, paid"

    def _end_ns(self) -> int:
        return self.film.timeline.ns(self.film.timeline.frame_count)


async def _refusal(viewer: Kino, title: str) -> str:
    """The reason why playing is refused, or `nothing` when it is not."""
    try:
        started = await start_playback(viewer, title, "before paying")
    except grpc.aio.AioRpcError as error:
        return error_of(error).reason
    await end_playback(viewer, started.lease.token)
    return "nothing"


def _amount(value: money_pb2.Money) -> str:
    return money(value.amount_minor, value.currency_code)


def _duration(seconds: Fraction) -> Duration:
    value = Duration()
    value.FromNanoseconds(int(seconds * 1_000_000_000))
    return value
