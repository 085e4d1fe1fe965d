"""Reviews of real names (人工审核): the cases that no rule could decide, opened and decided.

Opening a case and looking at a picture are acts of their own, written down; a decided case is
opened by nobody any more.
"""

from datetime import datetime
from typing import Literal, NamedTuple
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from identity.audit import Actor, record
from identity.kernel import NotFound, Refusal, Said, StateConflict
from identity.people.real_names import RealNameCase, RealNamePicture, passed_elsewhere
from identity.sealing import KeyRing, open_sealed


class DuplicatePerson(Refusal):
    """Another citizen passed with the same ID number."""

    code, status = "duplicate-person", 409
    title = Said("该证件已被其他账号认证", "This ID number belongs to another account")
    next_step = Said("请先合并账号，再作决定。", "Merge the accounts first, then decide.")


class Opened(NamedTuple):
    """What an operator reads of a case."""

    case: RealNameCase
    name: str
    number: str
    picture_kinds: list[str]


async def waiting(session: AsyncSession, *, rows_max: int = 200) -> list[RealNameCase]:
    """Return the cases that wait for a decision, oldest first."""
    found = await session.scalars(
        select(RealNameCase)
        .where(RealNameCase.state == "in_review")
        .order_by(RealNameCase.created_at, RealNameCase.id)
        .limit(rows_max)
    )
    return list(found)


async def _waiting(session: AsyncSession, case_id: UUID) -> RealNameCase:
    """Return a case that waits; one that is decided is opened by nobody any more."""
    case = await session.get(RealNameCase, case_id)
    if case is None:
        raise NotFound
    if case.state != "in_review":
        raise StateConflict(state=case.state)
    return case


async def open_case(
    session: AsyncSession, case_id: UUID, *, ring: KeyRing, operator_id: UUID, now: datetime
) -> Opened:
    """Open a case for the operator who decides it; that they looked is written down.

    Raises:
        NotFound: there is no such case.
        StateConflict: it is decided already.
    """
    case = await _waiting(session, case_id)
    table = RealNameCase.__tablename__
    kinds = await session.scalars(
        select(RealNamePicture.kind).where(RealNamePicture.case_id == case_id)
    )
    record(session, Actor("operator", operator_id), "real_name.open", case_id, now=now)
    return Opened(
        case,
        open_sealed(ring, case.name_sealed, table=table, column="name", row_id=case_id).decode(),
        open_sealed(
            ring, case.number_sealed, table=table, column="number", row_id=case_id
        ).decode(),
        sorted(kinds),
    )


async def open_picture(
    session: AsyncSession,
    case_id: UUID,
    kind: str,
    *,
    ring: KeyRing,
    operator_id: UUID,
    now: datetime,
) -> bytes:
    """Return a picture (JPEG) of a case for the operator who decides it; the look is recorded.

    Raises:
        NotFound: there is no such picture.
    """
    await _waiting(session, case_id)
    picture = await session.scalar(
        select(RealNamePicture).where(
            RealNamePicture.case_id == case_id, RealNamePicture.kind == kind
        )
    )
    if picture is None:
        raise NotFound
    actor = Actor("operator", operator_id)
    record(session, actor, "real_name.open_picture", case_id, now=now, kind=kind)
    return open_sealed(
        ring,
        picture.sealed,
        table=RealNamePicture.__tablename__,
        column="picture",
        row_id=picture.id,
    )


async def review(
    session: AsyncSession,
    case_id: UUID,
    *,
    decision: Literal["passed", "rejected"],
    reasons: list[str],
    operator_id: UUID,
    now: datetime,
) -> RealNameCase:
    """Decide a waiting case.

    Raises:
        NotFound: there is no such case.
        StateConflict: it is decided already.
        DuplicatePerson: another citizen passed with the same number.
    """
    case = await session.get(RealNameCase, case_id, with_for_update=True)
    if case is None:
        raise NotFound
    if case.state != "in_review":
        raise StateConflict(state=case.state)
    if decision == "passed" and await passed_elsewhere(session, case.number_index, case.citizen_id):
        raise DuplicatePerson
    case.state, case.reasons = decision, reasons
    case.decided_at, case.decided_by = now, operator_id
    record(
        session,
        Actor("operator", operator_id),
        "real_name.review",
        case_id,
        now=now,
        state=decision,
    )
    return case
