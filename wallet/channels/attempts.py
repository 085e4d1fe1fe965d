"""Attempts (支付尝试): one try to pay one order, known to the provider by `out_trade_no`.

States: `sent → paid | closed`. Unknown is not failed: an attempt stays `sent` until the provider
says what became of it, in a verified notice or in answer to a query.
"""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import CheckConstraint, Index, SmallInteger, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from identity.kernel import Base, new_id
from wallet.channels.channel import ChannelName, NewOrder
from wallet.ledger.plans import Lockable

ASK_AFTER = tuple(
    timedelta(seconds=seconds) for seconds in (5, 10, 30, 60, 120, 300, 600, 1200, 1800)
)
"""When an open attempt is asked about, counted from its start (channels.md E, "notify lost")."""
ASK_EVERY = timedelta(minutes=10)
"""And from then on, until the provider says what became of it."""


class Attempt(Base):
    """One try. The order it pays stands in `order_id`."""

    __tablename__ = "channels_attempt"
    __table_args__ = (
        CheckConstraint("state IN ('sent', 'paid', 'closed')", name="state"),
        CheckConstraint("amount_fen > 0", name="amount"),
        CheckConstraint("(state = 'paid') = (channel_txn_no IS NOT NULL)", name="paid"),
        # A payment at a provider is money once.
        Index("ix_channels_attempt_due", "ask_at", postgresql_where="state = 'sent'"),
        Index(
            "uq_channels_attempt_channel_txn",
            "channel",
            "channel_txn_no",
            unique=True,
        ),
    )
    id: Mapped[UUID] = mapped_column(primary_key=True)
    order_id: Mapped[UUID] = mapped_column(index=True)
    channel: Mapped[str]
    out_trade_no: Mapped[str] = mapped_column(unique=True)
    amount_fen: Mapped[int]
    description: Mapped[str]
    payer_open_id: Mapped[str]
    payer_user_id: Mapped[str | None]
    state: Mapped[str]
    pay: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    """What the phone needs to pay; None until the provider took the order."""
    channel_txn_no: Mapped[str | None]
    paid_at: Mapped[datetime | None]
    funding: Mapped[str | None]
    expires_at: Mapped[datetime]
    created_at: Mapped[datetime]
    asked: Mapped[int] = mapped_column(SmallInteger)
    """How often the provider was asked what became of it."""
    ask_at: Mapped[datetime]
    """When to ask next, as long as it is `sent`."""


class LockedAttempt(msgspec.Struct, frozen=True):
    """An attempt as a decision sees it."""

    id: UUID
    state: str
    channel_txn_no: str | None
    paid_at: datetime | None
    funding: str | None


ATTEMPTS = Lockable(
    Attempt,
    LockedAttempt,
    writes=("state", "channel_txn_no", "paid_at", "funding"),
    rank=60,
)


def add(
    session: AsyncSession,
    *,
    order_id: UUID,
    order_no: str,
    channel: ChannelName,
    amount_fen: int,
    description: str,
    payer_open_id: str,
    payer_user_id: str | None,
    expires_at: datetime,
    now: datetime,
) -> Attempt:
    """Write down an attempt before the provider hears of it: a retry uses the same number."""
    attempt = Attempt(
        id=new_id(now),
        order_id=order_id,
        channel=channel,
        out_trade_no=order_no,
        amount_fen=amount_fen,
        description=description,
        payer_open_id=payer_open_id,
        payer_user_id=payer_user_id,
        state="sent",
        pay=None,
        channel_txn_no=None,
        paid_at=None,
        funding=None,
        expires_at=expires_at,
        created_at=now,
        asked=0,
        ask_at=now + ASK_AFTER[0],
    )
    session.add(attempt)
    return attempt


def order_of(attempt: Attempt) -> NewOrder:
    """Return an attempt as the provider is told of it; the same on every repeat."""
    return NewOrder(
        out_trade_no=attempt.out_trade_no,
        amount_fen=attempt.amount_fen,
        description=attempt.description,
        payer_open_id=attempt.payer_open_id,
        payer_user_id=attempt.payer_user_id,
        expires_at=attempt.expires_at,
    )


async def take_due(session: AsyncSession, *, now: datetime, rows_max: int = 20) -> list[UUID]:
    """Return the open attempts that are to be asked about, and set when to ask again.

    The schedule stands in the row, so nothing that dies between two questions is forgotten.
    """
    due = await session.scalars(
        select(Attempt)
        .where(Attempt.state == "sent", Attempt.ask_at <= now)
        .order_by(Attempt.ask_at)
        .limit(rows_max)
        .with_for_update(skip_locked=True)
    )
    taken = []
    for attempt in due:
        attempt.asked += 1
        attempt.ask_at = (
            max(attempt.created_at + ASK_AFTER[attempt.asked], now)
            if attempt.asked < len(ASK_AFTER)
            else now + ASK_EVERY
        )
        taken.append(attempt.id)
    return taken


async def find(session: AsyncSession, channel: str, out_trade_no: str) -> Attempt | None:
    """Return the attempt of a number at a channel."""
    found: Attempt | None = await session.scalar(
        select(Attempt).where(Attempt.channel == channel, Attempt.out_trade_no == out_trade_no)
    )
    return found


async def newest(session: AsyncSession, order_id: UUID) -> Attempt:
    """Return the newest attempt of an order, which has at least one."""
    found = await session.scalar(
        select(Attempt)
        .where(Attempt.order_id == order_id)
        .order_by(Attempt.created_at.desc(), Attempt.id.desc())
        .limit(1)
    )
    assert found
    return found
