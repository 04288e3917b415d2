"""A report is held by one attempt at a time and ends once."""

import pytest
from redis import Redis

from worker.contract import keys
from worker.contract.failures import Failure
from worker.contract.messages import FailureCode, ModelRef, ReportRequest, ReportStatus
from worker.contract.report_ledger import ReportLedger

pytestmark = pytest.mark.integration

FAILURE = Failure(FailureCode.INTERNAL, "why")


@pytest.fixture
def ledger(redis: "Redis") -> ReportLedger:
    return ReportLedger(redis)


def request(report_id: str = "report_1", n: int = 500) -> ReportRequest:
    return ReportRequest(report_id=report_id, model=ModelRef(name="tiny", version="1", digest="d" * 64), n=n)


def test_a_report_goes_from_queued_to_succeeded(ledger: ReportLedger) -> None:
    assert ledger.create(request(), now=1.0) == "report_1"
    attempt = ledger.start("report_1", now=2.0)
    assert attempt == 1
    assert ledger.tell("report_1", attempt, stage="draw", done=3, total=5)
    assert ledger.succeed("report_1", attempt, now=4.0)

    record = ledger.record("report_1")
    assert record is not None
    assert (record.status, record.stage, record.done, record.total) == (ReportStatus.SUCCEEDED, "draw", 3, 5)
    assert (record.created_at, record.started_at, record.finished_at) == (1.0, 2.0, 4.0)
    assert ledger.active() == []


def test_only_one_of_a_checkpoint_and_size_is_unfinished(ledger: ReportLedger) -> None:
    ledger.create(request("report_1"), now=1.0)

    assert ledger.create(request("report_2"), now=2.0) == "report_1"
    assert ledger.create(request("report_3", n=20), now=2.0) == "report_3"
    assert ledger.record("report_2") is None


def test_a_pointer_to_a_record_that_is_gone_does_not_block(ledger: ReportLedger) -> None:
    ledger.create(request("report_1"), now=1.0)
    ledger.redis.delete(keys.report_key("report_1"))

    assert ledger.create(request("report_2"), now=2.0) == "report_2"


def test_an_older_attempt_changes_nothing(ledger: ReportLedger) -> None:
    ledger.create(request(), now=1.0)
    old = ledger.start("report_1", now=2.0)
    assert ledger.lose("report_1") == 1
    new = ledger.start("report_1", now=3.0)

    assert (old, new) == (1, 2)
    assert not ledger.tell("report_1", 1, stage="draw", done=1, total=2)
    assert not ledger.give_back("report_1", 1)
    assert not ledger.succeed("report_1", 1, now=4.0)
    assert not ledger.fail("report_1", FAILURE, now=4.0, attempt=1)
    assert ledger.succeed("report_1", 2, now=5.0)


def test_a_finished_report_stays_as_it_is(ledger: ReportLedger) -> None:
    ledger.create(request(), now=1.0)
    assert ledger.fail("report_1", FAILURE, now=2.0)

    assert ledger.start("report_1", now=3.0) is None
    assert ledger.lose("report_1") == 0
    assert not ledger.fail("report_1", FAILURE, now=4.0)
    record = ledger.record("report_1")
    assert record is not None
    assert (record.status, record.error) == (ReportStatus.FAILED, {"code": "internal", "message": "why"})
    assert 0 < ledger.redis.ttl(keys.report_key("report_1")) <= 7 * 86_400


def test_a_report_given_back_keeps_its_first_start(ledger: ReportLedger) -> None:
    ledger.create(request(), now=1.0)
    ledger.start("report_1", now=2.0)
    assert ledger.give_back("report_1", 1)
    ledger.start("report_1", now=9.0)

    record = ledger.record("report_1")
    assert record is not None
    assert (record.started_at, record.attempt, record.status) == (2.0, 2, ReportStatus.RUNNING)


def test_an_unknown_report_is_none(ledger: ReportLedger) -> None:
    assert ledger.record("report_1") is None
    assert ledger.start("report_1", now=1.0) is None
    assert ledger.lose("report_1") == 0
    assert not ledger.succeed("report_1", 1, now=1.0)
