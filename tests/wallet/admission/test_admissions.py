"""Admissions: a gate's question, its answer, and the use of a pass that goes with it."""

import asyncio
from datetime import UTC, datetime

import pytest

from api.services import Services
from identity.kernel import NotFound, StateConflict
from tests.conftest import SetClock
from tests.makers import GateAt, Holder, make_gate, make_holder, make_pass_type
from tests.wallet.verbs import (
    broken,
    buy,
    enter,
    scan,
    show_at_gate,
    waiting_for_rows,
    with_another_phone,
)
from wallet.admission import admissions
from wallet.admission.admissions import Admission, Result
from wallet.cards import cards
from wallet.codes.reasons import Reason


async def _visitor(services: Services, *, entries: int = 20) -> tuple[Holder, GateAt]:
    holder, gate = await make_holder(services, balance_fen=10_000), await make_gate(services)
    await buy(services, holder, await make_pass_type(services, [gate.park.id], entries=entries))
    return holder, gate


async def _report(
    services: Services, gate: GateAt, admission: Admission, result: Result
) -> Admission:
    async with services.db.begin() as session:
        return await admissions.report(
            session, gate.gate_id, admission.id, result, at=services.clock()
        )


async def _void(services: Services) -> int:
    async with services.db.begin() as session:
        return await admissions.void_waiting(session, now=services.clock())


async def _entries_today(services: Services) -> int:
    """Return what is counted, and see that it is what the records say."""
    assert not await broken(services)
    counted = await services.db.pool.fetchval(
        "SELECT sum(entries) FROM passes_park_day GROUP BY used_on ORDER BY used_on DESC"
    )
    return int(counted or 0)


async def test_the_gate_learns_why_it_must_not_open(services: Services, clock: SetClock) -> None:
    holder, gate = await make_holder(services, balance_fen=10_000), await make_gate(services)
    closed, elsewhere = await make_gate(services, is_closed=True), await make_gate(services)
    none = await enter(services, gate, holder)
    clock.go(seconds=15)
    both = [gate.park.id, closed.park.id]
    await buy(services, holder, await make_pass_type(services, both, entries=1))
    answers = [none]
    for at in (closed, elsewhere, gate, gate):
        answers.append(await enter(services, at, holder))
        clock.go(seconds=15)
    assert [one.reason for one in answers] == [501, 506, 502, 0, 504]
    assert [one.state for one in answers] == ["denied"] * 3 + ["authorised", "denied"]
    assert [one.pass_id is not None for one in answers] == [False] * 3 + [True, False]
    assert await _entries_today(services) == 1


async def test_fifty_equal_scans_at_once_are_one_entry(services: Services) -> None:
    holder, gate = await _visitor(services)
    code = await show_at_gate(services, holder)
    told = await asyncio.gather(
        *(scan(services, gate, code, scan_id="scan0001") for _ in range(50))
    )
    assert len({one.id for one in told}) == 1
    assert {one.entries_left for one in told} == {19}
    assert await _entries_today(services) == 1


async def test_a_code_copied_to_a_second_gate_opens_one_of_them(services: Services) -> None:
    holder, gate = await _visitor(services)
    code = await show_at_gate(services, holder)
    told = await asyncio.gather(*(scan(services, gate, code) for _ in range(2)))
    assert sorted(one.reason for one in told) == [Reason.OK, Reason.REPLAYED]
    assert await _entries_today(services) == 1


async def test_a_scan_number_does_not_open_two_gates(services: Services) -> None:
    holder, gate = await _visitor(services)
    code = await show_at_gate(services, holder)
    first = await scan(services, gate, code, scan_id="scan0001")
    other = await scan(services, await make_gate(services), code, scan_id="scan0001")
    assert first.id != other.id
    assert other.reason == Reason.REPLAYED


async def test_a_pass_can_be_used_up_only_as_often_as_it_says(
    services: Services, clock: SetClock
) -> None:
    holder, gate = await _visitor(services, entries=3)
    reasons, left = [], []
    for _ in range(5):
        admission = await enter(services, gate, holder)
        await _report_if_let_in(services, gate, admission)
        reasons.append(admission.reason)
        left.append(admission.entries_left)
        clock.go(seconds=15)
    assert reasons == [0, 0, 0, Reason.DAILY_LIMIT, Reason.DAILY_LIMIT]
    assert left == [2, 1, 0, None, None]
    assert await _entries_today(services) == 3


async def _report_if_let_in(services: Services, gate: GateAt, admission: Admission) -> None:
    if admission.state == "authorised":
        await _report(services, gate, admission, "passed")


async def test_each_park_and_day_is_counted_for_itself(services: Services, clock: SetClock) -> None:
    # 23:59:15 in Shanghai; in UTC it is, and stays, the same day.
    clock.now = datetime(2026, 11, 22, 15, 59, 15, tzinfo=UTC)
    holder, gate = await make_holder(services, balance_fen=10_000), await make_gate(services)
    other = await make_gate(services)
    parks = [gate.park.id, other.park.id]
    await buy(services, holder, await make_pass_type(services, parks, entries=1))
    reasons = []
    for at in (gate, gate, other, gate, gate):
        admission = await enter(services, at, holder)
        reasons.append(admission.reason)
        await _report_if_let_in(services, at, admission)
        clock.go(seconds=15)
    assert clock.now.day == 22
    assert reasons == [0, 504, 0, 0, 504]
    assert not await broken(services)


async def test_a_pass_opens_the_gate_from_its_first_day_through_its_last(
    services: Services, clock: SetClock
) -> None:
    # Ten seconds before midnight in Shanghai; valid on that day and the next.
    clock.now = datetime(2026, 11, 22, 15, 59, 50, tzinfo=UTC)
    holder, gate = await make_holder(services, balance_fen=10_000), await make_gate(services)
    pass_type = await make_pass_type(services, [gate.park.id], valid_days=2)
    sold, _ = await buy(services, holder, pass_type)
    assert (sold.valid_from_on.isoformat(), sold.valid_until_on.isoformat()) == (
        "2026-11-22",
        "2026-11-23",
    )
    reasons = [(await enter(services, gate, holder)).reason]
    clock.now = datetime(2026, 11, 23, 15, 59, 44, tzinfo=UTC)
    holder = await with_another_phone(services, holder)
    for _ in range(2):
        reasons.append((await enter(services, gate, holder)).reason)
        clock.go(seconds=16)
    assert reasons == [Reason.OK, Reason.OK, Reason.PASS_INACTIVE]
    assert not await broken(services)


async def test_a_pass_that_ended_is_told_from_none(services: Services, clock: SetClock) -> None:
    holder, gate = await make_holder(services, balance_fen=10_000), await make_gate(services)
    for valid_days in (1, 2):
        await buy(
            services, holder, await make_pass_type(services, [gate.park.id], valid_days=valid_days)
        )
    clock.go(days=5)
    holder = await with_another_phone(services, holder)
    presented = await show_at_gate(services, holder)
    # Only the one that ended last is looked at: a card may have had hundreds.
    assert presented.passes.count("active") == 1
    assert (await scan(services, gate, presented)).reason == Reason.PASS_INACTIVE


async def test_a_pass_that_was_given_back_after_the_look_up_opens_nothing(
    services: Services,
) -> None:
    holder, gate = await _visitor(services)
    presented = await show_at_gate(services, holder)
    await services.db.pool.execute("UPDATE passes_pass SET state = 'refunded'")
    assert (await scan(services, gate, presented)).reason == Reason.PASS_INACTIVE


async def test_the_way_out_is_open_and_uses_the_code_but_no_entry(
    services: Services, clock: SetClock
) -> None:
    holder, gate = await _visitor(services, entries=1)
    code = await show_at_gate(services, holder)
    left = await scan(services, gate, code, direction="out")
    copied = await scan(services, gate, code, direction="out")
    assert (left.reason, left.pass_id, copied.reason) == (Reason.OK, None, Reason.REPLAYED)
    assert await _entries_today(services) == 0
    clock.go(seconds=31)
    assert await _void(services) == 1
    assert await _entries_today(services) == 0


async def test_an_entry_stands_where_somebody_went_in(services: Services, clock: SetClock) -> None:
    holder, gate = await _visitor(services)
    results: tuple[Result, ...] = ("passed", "not_passed", "tailgate", "forced")
    counted = []
    for result in results:
        admission = await enter(services, gate, holder)
        for _ in range(2):
            assert (await _report(services, gate, admission, result)).state == result
        counted.append(await _entries_today(services))
        with pytest.raises(StateConflict):
            await _report(services, gate, admission, "passed" if result != "passed" else "forced")
        clock.go(seconds=31)
        assert await _void(services) == 0
    assert counted == [1, 1, 2, 3]
    assert await _entries_today(services) == 3


async def test_without_a_result_the_entry_comes_back_and_a_late_one_counts_again(
    services: Services, clock: SetClock
) -> None:
    holder, gate = await _visitor(services, entries=1)
    first = await enter(services, gate, holder)
    clock.go(seconds=30)
    assert await _void(services) == 0
    clock.go(seconds=1)
    assert (await _void(services), await _void(services)) == (1, 0)
    assert await _entries_today(services) == 0
    second = await enter(services, gate, holder)
    assert second.reason == Reason.OK
    # The first gate was only slow: the person is inside, whatever the limit says.
    late = await _report(services, gate, first, "passed")
    assert (late.state, await _entries_today(services)) == ("passed", 2)
    clock.go(seconds=31)
    assert await _void(services) == 1
    nobody = await _report(services, gate, second, "not_passed")
    assert (nobody.state, await _entries_today(services)) == ("not_passed", 1)


async def test_only_the_gate_that_let_somebody_in_says_what_came_of_it(
    services: Services,
) -> None:
    holder, gate = await _visitor(services)
    admission = await enter(services, gate, holder)
    with pytest.raises(NotFound):
        await _report(services, await make_gate(services), admission, "passed")
    denied = await enter(services, gate, holder)
    assert denied.reason == Reason.REPLAYED
    with pytest.raises(StateConflict):
        await _report(services, gate, denied, "passed")


async def test_a_result_and_the_void_job_at_once_count_it_once(
    services: Services, clock: SetClock
) -> None:
    holder, gate = await _visitor(services)
    for _ in range(6):
        admission = await enter(services, gate, holder)
        clock.go(seconds=31)
        await asyncio.gather(
            _void(services), _report(services, gate, admission, "passed"), _void(services)
        )
    assert await _entries_today(services) == 6


async def test_a_lost_card_is_stopped_at_the_gate(services: Services) -> None:
    holder, gate = await _visitor(services)
    async with services.db.begin() as session:
        await cards.report_loss(session, holder.citizen_id, holder.card_id, now=services.clock())
    assert (await enter(services, gate, holder)).reason == Reason.LOST


async def test_the_void_job_and_a_scan_of_the_same_passes_do_not_wait_in_a_circle(
    services: Services, clock: SetClock
) -> None:
    holder, gates = await make_holder(services, balance_fen=10_000), []
    passes = []
    for _ in range(2):
        gates.append(await make_gate(services))
        clock.go(seconds=1)
        pass_type = await make_pass_type(services, [gates[-1].park.id])
        passes.append((await buy(services, holder, pass_type))[0].id)
    # The later pass is used first, so that the job comes to the passes in the opposite order.
    for gate in reversed(gates):
        await enter(services, gate, holder)
        clock.go(seconds=15)
    clock.go(seconds=31)
    code = await show_at_gate(services, holder)
    async with services.db.pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM passes_pass WHERE id = $1 FOR UPDATE", passes[0])
        scanned = asyncio.create_task(scan(services, gates[0], code))
        await waiting_for_rows(services.db, count=1)
        voided = asyncio.create_task(_void(services))
        await waiting_for_rows(services.db, count=2)
    assert (await scanned).reason == Reason.OK
    assert await voided == 2
    assert await _entries_today(services) == 1
