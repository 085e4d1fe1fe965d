"""Notices (渠道通知): what providers tell us, kept as it came, applied once.

A verified notice is kept once per channel and notice id; a refused one is kept for inspection
with the reason why, at most `QUARANTINE_MAX` of them. Neither ever credits by itself: see
`wallet.fulfilment`.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from identity.kernel import Base, new_id
from wallet.channels.channel import NOTICE_BYTES_MAX, ChannelName, Notice

QUARANTINE_MAX = 10_000

KEPT_HEADERS = frozenset(
    {
        "content-type",
        "wechatpay-timestamp",
        "wechatpay-nonce",
        "wechatpay-serial",
        "wechatpay-signature",
        "wechatpay-signature-type",
    }
)


class KeptNotice(Base):
    """One verified notice, with the bytes it came as."""

    __tablename__ = "channels_notice"
    __table_args__ = (Index(None, "channel", "notice_id", unique=True),)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    channel: Mapped[str]
    notice_id: Mapped[str]
    out_trade_no: Mapped[str] = mapped_column(index=True)
    kind: Mapped[str]
    state: Mapped[str]
    amount_fen: Mapped[int]
    raw_body: Mapped[bytes]
    headers: Mapped[dict[str, Any]]
    problem: Mapped[str | None]
    """Why it was not applied though it is genuine: amount-mismatch, merchant-mismatch, …"""
    received_at: Mapped[datetime]


class QuarantinedNotice(Base):
    """One message that is not a provider's, or not a fresh one."""

    __tablename__ = "channels_quarantine"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    channel: Mapped[str]
    problem: Mapped[str]
    raw_body: Mapped[bytes]
    headers: Mapped[dict[str, Any]]
    received_at: Mapped[datetime] = mapped_column(index=True)


async def keep(
    session: AsyncSession,
    notice: Notice,
    *,
    raw_body: bytes,
    headers: dict[str, str],
    problem: str | None,
    now: datetime,
) -> bool:
    """Keep a verified notice; return whether it is the first of its id."""
    kept = await session.scalar(
        insert(KeptNotice)
        .values(
            id=new_id(now),
            channel=notice.channel,
            notice_id=notice.notice_id,
            out_trade_no=notice.out_trade_no,
            kind=notice.kind,
            state=notice.state,
            amount_fen=notice.amount_fen,
            raw_body=raw_body,
            headers=_kept(headers),
            problem=problem,
            received_at=now,
        )
        .on_conflict_do_nothing()
        .returning(KeptNotice.id)
    )
    return kept is not None


async def quarantine(
    session: AsyncSession,
    channel: ChannelName,
    *,
    problem: str,
    raw_body: bytes,
    headers: dict[str, str],
    now: datetime,
) -> None:
    """Keep a refused message, or the start of a long one, unless too many are kept already."""
    rows = await session.scalar(select(func.count()).select_from(QuarantinedNotice))
    if rows is not None and rows >= QUARANTINE_MAX:
        # Full: what came first is the better evidence, and a flood must not wash it out.
        return
    session.add(
        QuarantinedNotice(
            id=new_id(now),
            channel=channel,
            problem=problem,
            raw_body=raw_body[:NOTICE_BYTES_MAX],
            headers=_kept(headers),
            received_at=now,
        )
    )


def _kept(headers: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name in KEPT_HEADERS}
