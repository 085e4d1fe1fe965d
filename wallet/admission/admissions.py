"""Admissions (入园记录): a gate asks, and later says whether the person really went in.

States: `denied`, or `authorised → passed | not_passed | tailgate | forced | voided`. A use of a
pass is counted with the yes; it is given back where nobody passed, or nobody said so within
`RESULT_WITHIN`. A repeated scan number gets its first answer.
"""

from collections.abc import Collection
from datetime import date, datetime, timedelta
from typing import Literal
from uuid import UUID

import msgspec
from sqlalchemy import CheckConstraint, ForeignKey, Index, SmallInteger, Text, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from identity.devices.devices import Gate
from identity.kernel import Base, Database, NotFound, StateConflict, business_date, new_id
from identity.request_numbers import Claim, Kept
from wallet.admission.parks import Park
from wallet.admission.rules import HeldPass, May, may_enter
from wallet.codes.credentials import CREDENTIALS
from wallet.codes.presentations import Presented
from wallet.codes.reasons import Reason
from wallet.codes.uses import usable, use
from wallet.ledger.plans import Change, Decision, Lock, Posting, Rows
from wallet.ledger.posting import Poster
from wallet.passes.passes import PARK_DAYS, PASSES, LockedParkDay, ParkDay, park_day_id

RESULT_WITHIN = timedelta(seconds=30)
OPEN_SECONDS = 5

Direction = Literal["in", "out"]
Result = Literal["passed", "not_passed", "tailgate", "forced"]
WENT_IN = frozenset({"passed", "tailgate", "forced"})


class Admission(Base):
    """One question of a gate, with its answer and what came of it."""

    __tablename__ = "admission_admission"
    __table_args__ = (
        CheckConstraint(
            "state IN ('denied', 'authorised', 'passed', 'not_passed', 'tailgate', 'forced',"
            " 'voided')",
            name="state",
        ),
        CheckConstraint("(state = 'denied') = (reason <> 0)", name="reason"),
        Index(None, "card_id", "decided_at"),
        Index(
            "ix_admission_admission_waiting",
            "decided_at",
            postgresql_where="state = 'authorised'",
        ),
    )
    id: Mapped[UUID] = mapped_column(primary_key=True)
    gate_id: Mapped[UUID] = mapped_column(ForeignKey(Gate.id))
    park_id: Mapped[UUID] = mapped_column(ForeignKey(Park.id))
    card_id: Mapped[UUID | None] = mapped_column(ForeignKey("cards_card.id"))
    pass_id: Mapped[UUID | None] = mapped_column(ForeignKey("passes_pass.id"))
    direction: Mapped[Direction] = mapped_column(Text)
    state: Mapped[str]
    reason: Mapped[int] = mapped_column(SmallInteger)
    entries_left: Mapped[int | None]
    """Entries left at this park on that day, as the gate was told."""
    display_name: Mapped[str]
    lane: Mapped[str | None]
    scanned_at: Mapped[datetime]
    """By the gate's clock."""
    decided_at: Mapped[datetime]
    result_at: Mapped[datetime | None]


class StoredPass(msgspec.Struct, array_like=True, frozen=True):
    """A pass as the look-up of a code returns it."""

    id: UUID
    state: str
    valid_from_on: date
    valid_until_on: date
    park_ids: list[UUID]
    entries_per_park_and_day: int


_PASSES = msgspec.json.Decoder(list[StoredPass])


async def admit(
    db: Database,
    poster: Poster,
    presented: Presented,
    *,
    gate_id: UUID,
    park_id: UUID,
    is_open: bool,
    scan_id: str,
    request_hash: bytes,
    direction: Direction,
    lane: str | None,
    scanned_at: datetime,
    now: datetime,
) -> tuple[Admission, bool]:
    """Answer a gate; return the admission and whether this request made it.

    Args:
        db: where a repeated request's admission is read.
        poster: this process's writer.
        presented: the code as judged before, with the card's passes.
        gate_id: who asks.
        park_id: where it stands.
        is_open: whether the park is open now.
        scan_id: the gate's number for this scan, once for ever.
        request_hash: over what the gate asks.
        direction: "in" or "out"; going out is always allowed with a genuine code.
        lane: for the record.
        scanned_at: by the gate's clock.
        now: the request's instant.

    Raises:
        RequestNumberReused: the scan number was used for something else.
    """
    admission_id, today = new_id(now), business_date(now)
    stored = _PASSES.decode(presented.passes)
    day_ids = {held.id: park_day_id(held.id, park_id, today) for held in stored}

    def decide(rows: Rows) -> Decision[Admission]:
        may = _may(presented, rows, direction) or may_enter(
            [_held(one, rows, day_ids[one.id]) for one in stored],
            park_id=park_id,
            is_open=is_open,
            today=today,
        )
        row = Admission(
            id=admission_id,
            gate_id=gate_id,
            park_id=park_id,
            card_id=presented.card_id,
            pass_id=may.pass_id,
            direction=direction,
            state="denied" if may.reason else "authorised",
            reason=int(may.reason),
            entries_left=may.left,
            display_name=presented.display_name,
            lane=lane,
            scanned_at=scanned_at,
            decided_at=now,
            result_at=None,
        )
        used, spent = use(presented, rows, by="admission", by_id=admission_id, now=now)
        changes = [*spent]
        if may.pass_id:
            day_id = day_ids[may.pass_id]
            day = rows.find(PARK_DAYS, day_id)
            entries = (day.entries if day else 0) + 1
            counted = LockedParkDay(day_id, may.pass_id, park_id, today, entries)
            changes.append(Change(PARK_DAYS, counted))
        return Decision(row, rows=(row, *used), changes=tuple(changes))

    claim = Claim("gate.admission", gate_id, scan_id, request_hash, admission_id)
    locks: tuple[Lock, ...] = ()
    if presented.cid:
        locks = (
            (CREDENTIALS, presented.cid),
            *((PASSES, one.id) for one in stored),
            *((PARK_DAYS, day_id) for day_id in day_ids.values()),
        )
    result = await poster.post(Posting(claim, locks, decide, now))
    if isinstance(result, Kept):
        async with db.begin() as session:
            return await session.get_one(Admission, result.subject_id), False
    return result.answer, True


def _may(presented: Presented, rows: Rows, direction: Direction) -> May | None:
    """Return the answer where the passes do not matter: a bad code, a used one, the way out."""
    reason = usable(presented, rows)
    if reason != Reason.OK:
        return May(reason)
    return May(Reason.OK) if direction == "out" else None


def _held(stored: StoredPass, rows: Rows, day_id: UUID) -> HeldPass:
    day = rows.find(PARK_DAYS, day_id)
    return HeldPass(
        stored.id,
        rows.get(PASSES, stored.id).state,
        stored.valid_from_on,
        stored.valid_until_on,
        frozenset(stored.park_ids),
        stored.entries_per_park_and_day,
        day.entries if day else 0,
    )


async def get_own(session: AsyncSession, gate_id: UUID, admission_id: UUID) -> Admission:
    """Return an admission of this gate.

    Raises:
        NotFound: there is none, or it is another gate's.
    """
    found = await session.scalar(
        select(Admission).where(Admission.id == admission_id, Admission.gate_id == gate_id)
    )
    if found is None:
        raise NotFound
    return found


async def report(
    session: AsyncSession, gate_id: UUID, admission_id: UUID, result: Result, *, at: datetime
) -> Admission:
    """Take down what came of a yes. The same result again changes nothing.

    A result that comes after the thirty seconds is still the truth about who is inside: a voided
    admission becomes what the gate says, and the use counts again.

    Raises:
        NotFound: no such admission of this gate.
        StateConflict: it was a no, or another result was reported.
    """
    row = await session.scalar(
        select(Admission)
        .where(Admission.id == admission_id, Admission.gate_id == gate_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    if row is None:
        raise NotFound
    if row.state == result:
        return row
    if row.state not in {"authorised", "voided"}:
        raise StateConflict(state=row.state)
    counted_before, counted_after = row.state == "authorised", result in WENT_IN
    await _count(session, row, int(counted_after) - int(counted_before))
    row.state, row.result_at = result, at
    return row


async def void_waiting(session: AsyncSession, *, now: datetime, rows_max: int = 500) -> int:
    """Give back the uses of yeses that no gate reported on; return how many.

    A job calls this every few seconds; running twice at once is harmless.
    """
    waiting = list(
        await session.scalars(
            select(Admission)
            .where(Admission.state == "authorised", Admission.decided_at < now - RESULT_WITHIN)
            .order_by(Admission.id)
            .limit(rows_max)
            .with_for_update(skip_locked=True)
        )
    )
    # All passes first, in the order in which `admit` locks them: taken one by one, in the order of
    # the admissions, a scan of a card with two passes and this job could wait in a circle.
    await _lock_passes(session, {row.pass_id for row in waiting if row.pass_id})
    for row in waiting:
        await _count(session, row, -1)
        row.state = "voided"
    return len(waiting)


async def _lock_passes(session: AsyncSession, pass_ids: Collection[UUID]) -> None:
    passes = PASSES.table.c.id
    await session.execute(
        select(passes).where(passes.in_(pass_ids)).order_by(passes).with_for_update(key_share=True)
    )


async def _count(session: AsyncSession, row: Admission, change: int) -> None:
    if row.pass_id is None or change == 0:
        return
    # The pass's lock comes first, as in `admit`, so that the two never wait in a circle.
    await _lock_passes(session, [row.pass_id])
    day_id = park_day_id(row.pass_id, row.park_id, business_date(row.decided_at))
    await session.execute(
        update(ParkDay).where(ParkDay.id == day_id).values(entries=ParkDay.entries + change)
    )


async def visits_of_card(
    session: AsyncSession, card_id: UUID, *, before: UUID | None, limit: int
) -> list[Admission]:
    """Return who let this card in or refused it, newest first."""
    query = select(Admission).where(Admission.card_id == card_id)
    if before:
        query = query.where(Admission.id < before)
    return list(await session.scalars(query.order_by(Admission.id.desc()).limit(limit)))
