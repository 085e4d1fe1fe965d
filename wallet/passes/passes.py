"""Passes (年票、权益): the right of one card to enter, and how often it was used today.

States: `active → refunded | expired` (expiry is a date, not a move). Counting is per pass, park
and business date.
"""

import hashlib
from datetime import date, datetime
from typing import Literal
from uuid import UUID

import msgspec
from sqlalchemy import CheckConstraint, ForeignKey, Text, UniqueConstraint, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from identity.kernel import Base
from wallet.ledger.plans import Lockable

PassState = Literal["active", "refunded"]


class Pass(Base):
    """A pass as sold: dates and price are fixed at the sale."""

    __tablename__ = "passes_pass"
    __table_args__ = (
        CheckConstraint("state IN ('active', 'refunded')", name="state"),
        CheckConstraint("valid_from_on <= valid_until_on", name="validity"),
    )
    id: Mapped[UUID] = mapped_column(primary_key=True)
    pass_no: Mapped[str] = mapped_column(unique=True)
    card_id: Mapped[UUID] = mapped_column(ForeignKey("cards_card.id"), index=True)
    pass_type_id: Mapped[UUID] = mapped_column(ForeignKey("passes_pass_type.id"))
    state: Mapped[PassState] = mapped_column(Text)
    pay_by: Mapped[str]
    price_fen: Mapped[int]
    valid_from_on: Mapped[date]
    valid_until_on: Mapped[date]
    """The last day, included."""
    created_at: Mapped[datetime]


class ParkDay(Base):
    """How often a pass opened one park on one business date."""

    __tablename__ = "passes_park_day"
    __table_args__ = (
        UniqueConstraint("pass_id", "park_id", "used_on"),
        CheckConstraint("entries >= 0", name="entries"),
    )
    id: Mapped[UUID] = mapped_column(primary_key=True)
    """Derived from the other three, so that a row can be locked by one key."""
    pass_id: Mapped[UUID] = mapped_column(ForeignKey("passes_pass.id"))
    park_id: Mapped[UUID]
    used_on: Mapped[date]
    entries: Mapped[int]


class LockedPass(msgspec.Struct, frozen=True):
    """A pass as a decision sees it."""

    id: UUID
    state: str


class LockedParkDay(msgspec.Struct, frozen=True):
    """A day's count as a decision sees it."""

    id: UUID
    pass_id: UUID
    park_id: UUID
    used_on: date
    entries: int


PASSES = Lockable(Pass, LockedPass, writes=("state",), rank=30)
PARK_DAYS = Lockable(ParkDay, LockedParkDay, writes=("entries",), rank=40, may_be_absent=True)
"""Locked after its pass: of a row that is not there yet, the pass's lock keeps others away."""


def park_day_id(pass_id: UUID, park_id: UUID, used_on: date) -> UUID:
    """Return the key of a day's count."""
    what = pass_id.bytes + park_id.bytes + used_on.isoformat().encode()
    return UUID(bytes=hashlib.sha256(what).digest()[:16])


async def of_card(session: AsyncSession, card_id: UUID) -> list[Pass]:
    """Return a card's passes, newest first."""
    found = await session.scalars(
        select(Pass).where(Pass.card_id == card_id).order_by(Pass.created_at.desc(), Pass.id.desc())
    )
    return list(found)
