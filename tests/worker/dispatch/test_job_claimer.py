"""Claims that turn into active jobs, and claims whose video is no longer wanted."""

from collections.abc import Callable

import pytest
from redis import Redis

from jobs.queue.claim import Claim, Claims
from jobs.queue.rq_adapter import VideoWorker, leased_jobs
from jobs.videos.record import VideoRecord
from tests.worker.conftest import Bench
from worker.dispatch.active_jobs import ActiveJobs
from worker.dispatch.job_claimer import JobClaimer
from worker.messages import AdmitJob, Inbox, JobDenoised, LoopMessage
from worker.preparation.reference_reader import ReferenceReader


class RacingClaims(Claims):
    """Something happens to the video between its claim and its start."""

    after_claim: Callable[[str], object] = staticmethod(lambda video_id: None)

    def take(self, allows_quarantined: Callable[[VideoRecord], bool] = lambda record: True) -> Claim | None:
        claim = super().take(allows_quarantined)
        if claim is not None:
            self.after_claim(claim.record.id)
        return claim


class Setup:
    def __init__(self, bench: Bench, redis: Redis) -> None:
        self.now = 1000.0
        self.loop: Inbox[LoopMessage] = Inbox()
        self.jobs = ActiveJobs(self.loop, bench.models.cards, ReferenceReader(bench.context.artifacts))
        self.rq_worker = VideoWorker(redis, ["tiny"], "w1")
        self.claims = RacingClaims(redis, bench.context.store, ["tiny"], "w1")
        self.claimer = JobClaimer(
            self.claims, self.rq_worker, bench.context, self.jobs, 8, max_batch_rows=4, clock=lambda: self.now
        )


@pytest.fixture
def setup(bench: Bench, redis: Redis) -> Setup:
    return Setup(bench, redis)


def test_a_claimed_job_is_admitted_to_the_loop(bench: Bench, setup: Setup, redis: Redis) -> None:
    record = bench.queue()
    assert setup.claimer.claim()
    assert not setup.claimer.claim()
    [message] = setup.loop.receive()
    assert isinstance(message, AdmitJob)
    assert (message.record.id, message.record.status, message.snapshot) == (record.id, "in_progress", None)
    assert leased_jobs(redis) == {record.id}
    assert setup.claimer.free_slots == 7


@pytest.mark.parametrize("before", ["cancelled", "deleted", "started by another"])
def test_a_claimed_video_that_is_no_longer_wanted_is_dropped(
    bench: Bench, setup: Setup, redis: Redis, before: str
) -> None:
    store = bench.context.store
    setup.claims.after_claim = {
        "cancelled": store.cancel,
        "deleted": store.delete,
        "started by another": lambda video_id: store.start(video_id, "w2"),
    }[before]
    bench.queue()
    assert setup.claimer.claim()
    assert setup.loop.receive() == []
    assert not setup.claimer.has_claimed
    assert leased_jobs(redis) == set()


def test_claims_beyond_a_full_pass_are_made_slowly(bench: Bench, setup: Setup) -> None:
    for _ in range(4):
        bench.queue()
    for _ in range(2):
        assert setup.claimer.can_claim
        assert setup.claimer.claim()
    assert not setup.claimer.can_claim
    setup.now += 0.1
    assert setup.claimer.can_claim


def test_nothing_is_claimed_while_videos_pile_up_at_the_finisher(bench: Bench, setup: Setup) -> None:
    for _ in range(4):
        bench.queue()
        setup.claimer.claim()
    setup.now += 1
    for job in list(setup.jobs)[:3]:
        setup.jobs.update(JobDenoised(job.request_id))
    assert setup.claimer.can_claim
    setup.jobs.update(JobDenoised(list(setup.jobs)[3].request_id))
    assert not setup.claimer.can_claim


def quarantine(bench: Bench, record: VideoRecord, group: str) -> None:
    assert bench.context.store.start(record.id, "dead") is not None
    assert bench.context.store.requeue(record.id, "dead", changes={"alone": True, "quarantine": group})


def test_a_worker_has_one_group_in_quarantine_at_a_time(bench: Bench, setup: Setup) -> None:
    first, second = bench.queue(), bench.queue()
    quarantine(bench, first, "dead:0")
    quarantine(bench, second, "dead:1")
    assert setup.claimer.claim()
    assert not setup.claimer.claim()
    assert setup.claimer.anything_waiting()
    [job] = setup.jobs
    assert job.record.id == first.id
    setup.jobs.remove(job)
    assert setup.claimer.claim()


def test_the_quarantine_takes_a_quarter_of_the_slots(bench: Bench, setup: Setup) -> None:
    records = [bench.queue() for _ in range(6)]
    for record in records[:4]:
        quarantine(bench, record, "dead:0")
    while setup.claimer.claim():
        setup.now += 1
    assert [job.record.alone for job in setup.jobs].count(True) == 8 // 4
    assert not any(bench.context.store.get(record.id).status == "queued" for record in records[4:])
