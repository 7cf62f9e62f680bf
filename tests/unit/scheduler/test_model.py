from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from services.runtime.errors import Code
from services.scheduler.model import (
    Candidate,
    Chunk,
    Failure,
    Task,
    TaskKind,
    TaskState,
    Tier,
    Urgency,
    Work,
    choose,
    chunk_tier,
    is_fair,
    predicted,
    priority,
    summed_up,
    tier_of,
)
from services.scheduler.plan import sampled


def chunk(number: int) -> Chunk:
    return Chunk(
        number=number, start_frame=number * 125, frame_count=125, start_ticks=number * 125, duration_ticks=125
    )


def test_the_order_is_tier_then_codec_then_place() -> None:
    keys = [(tier, codec, place) for tier in Tier for codec in (1, 2) for place in (0, 1, 10**6)]
    assert sorted(keys) == sorted(keys, key=lambda k: priority(k[0], codec=k[1], position=k[2]))
    assert [tier_of(priority(tier, codec=2, position=7)) for tier in Tier] == list(Tier)


def test_chunks_of_five_seconds_fall_into_their_tiers() -> None:
    highlights = [(21 * 10**9, 22 * 10**9)]
    tiers = [chunk_tier(chunk(number), 25, highlights) for number in range(6)]
    assert tiers == [Tier.OPENING, Tier.OPENING, Tier.REST, Tier.REST, Tier.HIGHLIGHT, Tier.REST]


def test_a_highlight_that_ends_where_a_chunk_begins_does_not_touch_it() -> None:
    assert chunk_tier(chunk(4), 25, [(15 * 10**9, 20 * 10**9)]) is Tier.REST


def served(jobs: dict[str, Tier], turns: int, weights: dict[str, int]) -> Counter[str]:
    state = {job: Candidate(job_id=job, served=0, priority=priority(tier)) for job, tier in jobs.items()}
    virtual, counts = 0, Counter[str]()
    for turn in range(turns):
        chosen = choose(list(state.values()), virtual=virtual, turn=turn)
        if is_fair(turn):
            virtual = chosen.served
        state[chosen.job_id] = replace(chosen, served=chosen.served + weights[chosen.job_id])
        counts[chosen.job_id] += 1
    return counts


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(list(Tier)), st.integers(1, 200)), min_size=2, max_size=8))
def test_no_job_starves_whatever_the_others_do(tasks: list[tuple[Tier, int]]) -> None:
    jobs = {f"j{i}": tier for i, (tier, _) in enumerate(tasks)}
    weights = {f"j{i}": weight for i, (_, weight) in enumerate(tasks)}
    # One of four turns is fair: a job waits until each other one has as much as it, and one task more.
    turns = 4 * sum(200 // weight + 2 for weight in weights.values()) * 2
    assert set(served(jobs, turns, weights)) == set(jobs)


def test_equal_jobs_get_equal_shares() -> None:
    assert served({"a": Tier.REST, "b": Tier.REST}, 100, {"a": 125, "b": 125}) == {"a": 50, "b": 50}


def test_an_opening_gets_three_of_four_turns_and_the_bulk_the_rest() -> None:
    assert served({"old": Tier.REST, "new": Tier.OPENING}, 8, {"old": 1, "new": 1}) == {"new": 6, "old": 2}


def test_a_job_that_had_nothing_to_do_earns_no_arrears() -> None:
    idle = Candidate(job_id="idle", served=0, priority=priority(Tier.REST))
    busy = Candidate(job_id="busy", served=1000, priority=priority(Tier.REST))
    assert choose([idle, busy], virtual=1000, turn=3).served == 1000


def test_a_sample_holds_about_its_share_and_the_same_tasks_for_the_same_seed() -> None:
    ids = [f"video-h264-{number:06d}" for number in range(2000)]
    chosen = [one for one in ids if sampled(one, 0.05, "a")]
    assert 60 < len(chosen) < 140
    assert chosen == [one for one in ids if sampled(one, 0.05, "a")]
    assert chosen != [one for one in ids if sampled(one, 0.05, "b")]
    assert all(sampled(one, 1.0, "a") for one in ids)


def test_urgent_jobs_take_three_turns_of_four_and_low_ones_wait_for_the_fair_turn() -> None:
    candidates = [
        Candidate(job_id=name, served=0, priority=priority(Tier.REST), urgency=urgency)
        for name, urgency in (("low", Urgency.LOW), ("normal", Urgency.NORMAL), ("urgent", Urgency.URGENT))
    ]
    assert [choose(candidates, virtual=0, turn=turn).job_id for turn in range(4)] == ["urgent"] * 3 + ["low"]


def test_a_prediction_shares_the_work_among_the_slots_and_needs_every_cost() -> None:
    work = [
        Work(need="v", opening=True, frames=100),
        Work(need="v", opening=False, frames=300),
    ]
    assert predicted(work, {"v": 1e6, "w": 2e6}, 4, {"w": 200}) == (
        timedelta(seconds=25),
        timedelta(seconds=200),
    )
    assert predicted(work, {"v": 1e6}, 4, {"w": 200}) is None
    assert predicted(work, {"v": 1e6}, 0, {}) is None


def test_the_parts_that_were_given_up_are_summed_up_in_words() -> None:
    failure = Failure(code=Code.INTERNAL, reason="FFMPEG_FAILED", message="It broke.")
    tasks = [given_up(number) for number in range(3)]
    told = summed_up([(task, failure) for task in tasks])
    assert told is not None
    assert told.message == (
        "Encoding chunk 0 failed after 2 attempts: It broke. So did 2 other parts. "
        "The rest of the title is done."
    )
    assert summed_up([]) is None


def given_up(number: int) -> Task:
    return Task(
        job_id="j", task_id=f"t{number}", kind=TaskKind.ENCODE_VIDEO, need="v", priority=0, frames=1,
        spec=b"", summary=f"Encoding chunk {number}",
        state=TaskState.FAILED, fence=2, attempt=2, failures=2, losses=0,
        worker="w", not_before=None, expire=datetime(2025, 1, 1, tzinfo=UTC), progress=0.0,
    )  # fmt: skip
