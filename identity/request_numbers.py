"""A request happens once: its number, what it asked, and what it made (请求号).

One mechanism for every verb. A merchant's number is its order_no or refund_no, a gate's its
scan_id, a citizen's the header Idempotency-Key; the scope is whose number it is and for which
operation (ledger.md C.4). The row is inserted in the transaction of the effect, so a crash
leaves neither or both. Same number, same content: the first answer again. Same number, other
content: refused. A refusal that used its number is kept and repeats itself.
"""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from identity.kernel import Base, Database, Refusal, Said


class RequestNumber(Base):
    """One number of one caller for one operation. Kept for ever: the number never frees again."""

    __tablename__ = "request_number"
    scope: Mapped[str] = mapped_column(primary_key=True)
    """The operation, as `audience.noun`."""
    owner_id: Mapped[UUID] = mapped_column(primary_key=True)
    number: Mapped[str] = mapped_column(primary_key=True)
    request_hash: Mapped[bytes]
    subject_id: Mapped[UUID]
    """The row that the request made or was about."""
    outcome: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    """`{"refusal": …}` where it was refused, `{"answer": …}` where rows alone cannot tell."""
    created_at: Mapped[datetime]


TOMBSTONE = b""
"""Request hash of a number that was cancelled before use: its refusal meets whatever is asked."""


class RequestNumberReused(Refusal):
    """The number was used before, for something else."""

    code, status = "request-number-reused", 422
    title = Said("该请求号已用于其他内容", "This request number was used for something else")
    next_step = Said(
        "新的请求请使用新的请求号；重试请原样发送。",
        "Use a new number for a new request; send a retry exactly as before.",
    )


class Claim(NamedTuple):
    """What a request stands for before anything is decided."""

    scope: str
    owner_id: UUID
    number: str
    request_hash: bytes
    subject_id: UUID


class Kept(NamedTuple):
    """What an earlier request of the same number left."""

    subject_id: UUID
    answer: dict[str, Any] | None


def request_hash(*parts: Any) -> bytes:
    """Return the SHA-256 over the parts of a request that must stay the same in a retry."""
    plain = _without_nulls(msgspec.to_builtins(parts))
    return hashlib.sha256(msgspec.json.encode(plain, order="deterministic")).digest()


def _without_nulls(value: Any) -> Any:
    """Return a value without members that say nothing.

    So that a member added later, absent in what was asked before, does not change the hash.
    """
    if isinstance(value, dict):
        return {name: _without_nulls(one) for name, one in value.items() if one is not None}
    return [_without_nulls(one) for one in value] if isinstance(value, list | tuple) else value


def read_kept(
    claim: Claim, kept_hash: bytes, kept_id: UUID, outcome: dict[str, Any] | None
) -> Kept:
    """Return what the number's first request left, or repeat its refusal.

    Raises:
        RequestNumberReused: the first request asked for something else.
        Refusal: the one that the first request met, marked as replayed.
    """
    refusal = outcome.get("refusal") if outcome else None
    if refusal and kept_hash == TOMBSTONE:
        raise Refusal.replayed(refusal)
    if kept_hash != claim.request_hash:
        raise RequestNumberReused(number=claim.number)
    if refusal:
        raise Refusal.replayed(refusal)
    return Kept(kept_id, outcome["answer"] if outcome else None)


async def claim_once(session: AsyncSession, claim: Claim, *, now: datetime) -> Kept | None:
    """Take the number in this transaction, or return what its first request left.

    A second request waits here on the unique index until the first one commits or is undone.

    Raises:
        RequestNumberReused: the number was used for something else.
        Refusal: the one that the first request met.
    """
    taken = await session.scalar(
        insert(RequestNumber)
        .values(**claim._asdict(), outcome=None, created_at=now)
        .on_conflict_do_nothing()
        .returning(RequestNumber.subject_id)
    )
    return None if taken else await find_kept(session, claim)


async def find_kept(session: AsyncSession, claim: Claim) -> Kept | None:
    """Return what the number's first request left, or None where there was none.

    Raises:
        RequestNumberReused: the number was used for something else.
        Refusal: the one that the first request met.
    """
    row = await session.get(
        RequestNumber, (claim.scope, claim.owner_id, claim.number), populate_existing=True
    )
    return read_kept(claim, row.request_hash, row.subject_id, row.outcome) if row else None


async def keep_answer(session: AsyncSession, claim: Claim, answer: dict[str, Any]) -> None:
    """Store the answer that a retry gets, in the transaction that makes it true."""
    await _keep(session, claim, {"answer": answer})


async def keep_refusal(session: AsyncSession, claim: Claim, refusal: Refusal) -> None:
    """Store the refusal that a retry meets: a failed number stays failed (ledger.md I11)."""
    await _keep(session, claim, {"refusal": refusal.stored()})


@asynccontextmanager
async def kept_if_refused(db: Database, claim: Claim, *, now: datetime) -> AsyncIterator[None]:
    """Use up the number if the block, whose transaction is undone by it, refuses by state or money.

    A number that met a malformed or unauthorized request (400, 401, 403, 404) stays free.
    """
    try:
        yield
    except Refusal as refusal:
        if refusal.status in {409, 422} and not refusal.is_replayed and not refusal.retryable:
            async with db.begin() as session:
                if await claim_once(session, claim, now=now) is None:
                    await keep_refusal(session, claim, refusal)
        raise


async def _keep(session: AsyncSession, claim: Claim, outcome: dict[str, Any]) -> None:
    await session.execute(
        update(RequestNumber)
        .where(
            RequestNumber.scope == claim.scope,
            RequestNumber.owner_id == claim.owner_id,
            RequestNumber.number == claim.number,
            # What was told first stays.
            RequestNumber.outcome.is_(None),
        )
        .values(outcome=outcome)
    )


async def bury(
    session: AsyncSession,
    *,
    scope: str,
    owner_id: UUID,
    number: str,
    subject_id: UUID,
    refusal: Refusal,
    now: datetime,
) -> UUID | None:
    """Use up a number that was never used, so that a late request cannot (cancel-if-absent).

    Returns:
        None if it was free and is buried now, else the row that the number stands for.
    """
    buried = await session.scalar(
        insert(RequestNumber)
        .values(
            scope=scope,
            owner_id=owner_id,
            number=number,
            request_hash=TOMBSTONE,
            subject_id=subject_id,
            outcome={"refusal": refusal.stored()},
            created_at=now,
        )
        .on_conflict_do_nothing()
        .returning(RequestNumber.subject_id)
    )
    return None if buried else await subject_of(session, scope, owner_id, number)


async def subject_of(session: AsyncSession, scope: str, owner_id: UUID, number: str) -> UUID | None:
    """Return the row that a number stands for, whatever it asked."""
    found: UUID | None = await session.scalar(
        select(RequestNumber.subject_id).where(
            RequestNumber.scope == scope,
            RequestNumber.owner_id == owner_id,
            RequestNumber.number == number,
        )
    )
    return found
