"""Recharges (充值): an order for money on a card, paid through a channel.

States: `paying → succeeded → partly_refunded → refunded`, `paying → closed → succeeded` (paid
late). Money is credited only for what a provider proved: a verified notice or an answer to our
query, once (docs/money.md). What a citizen sees as `unknown` is a `paying` order past its expiry.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from uuid import UUID

import msgspec
from sqlalchemy import CheckConstraint, ForeignKey, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from identity.kernel import (
    Base,
    Database,
    NotFound,
    Refusal,
    Said,
    new_id,
    number_of,
)
from identity.people import real_names, sign_ins
from identity.request_numbers import Claim, claim_once, keep_refusal, kept_if_refused
from wallet.cards import cards
from wallet.cards.cards import CardNotActive
from wallet.channels import attempts
from wallet.channels.attempts import Attempt
from wallet.channels.channel import Channel, ChannelName, ChannelRefused
from wallet.ledger.plans import Lockable

EXPIRES_AFTER = timedelta(minutes=30)
OPEN_MAX = 5
"""How many recharges of one card may wait for their payment at once."""
REFUNDABLE_FOR = timedelta(days=365)
"""How long after the payment the channels give money back."""

PROVIDER_OF_CHANNEL: dict[str, str] = {"wechat_pay": "wechat", "alipay": "alipay"}


class Recharge(Base):
    """One order for money on a card."""

    __tablename__ = "recharge_recharge"
    __table_args__ = (
        CheckConstraint(
            "state IN ('paying', 'succeeded', 'closed', 'partly_refunded', 'refunded')",
            name="state",
        ),
        CheckConstraint("amount_fen > 0", name="amount"),
        CheckConstraint("refunded_fen BETWEEN 0 AND amount_fen", name="refunded"),
    )
    id: Mapped[UUID] = mapped_column(primary_key=True)
    recharge_no: Mapped[str] = mapped_column(unique=True)
    card_id: Mapped[UUID] = mapped_column(ForeignKey("cards_card.id"), index=True)
    citizen_id: Mapped[UUID] = mapped_column(ForeignKey("people_citizen.id"))
    channel: Mapped[str]
    amount_fen: Mapped[int]
    refunded_fen: Mapped[int]
    """Asked back so far, whether or not the provider has paid it out yet."""
    state: Mapped[str]
    created_at: Mapped[datetime]
    credited_at: Mapped[datetime | None]


class LockedRecharge(msgspec.Struct, frozen=True):
    """A recharge as a decision sees it."""

    id: UUID
    card_id: UUID
    amount_fen: int
    refunded_fen: int
    state: str
    credited_at: datetime | None


RECHARGES = Lockable(
    Recharge, LockedRecharge, writes=("refunded_fen", "state", "credited_at"), rank=50
)


class PayerUnknown(Refusal):
    """The citizen never signed in with the provider that is to be paid through."""

    code, status = "payer-unknown", 409
    title = Said("请先用该支付方式的账号登录", "Sign in with that provider first")
    next_step = Said(
        "请在对应的小程序中登录后再充值，或换一种支付方式。",
        "Sign in inside that provider's app, or recharge through another channel.",
    )


class TooManyOpen(Refusal):
    """The card has too many recharges that wait for their payment."""

    code, status = "too-many-open-recharges", 409
    title = Said("未支付的充值过多", "Too many recharges wait for their payment")
    next_step = Said(
        "请先支付或等待已有的充值过期。", "Pay one of them, or wait until they expire."
    )


class Opened(msgspec.Struct, frozen=True):
    """A recharge and what its phone needs to pay."""

    recharge: Recharge
    attempt: Attempt


async def open_recharge(
    db: Database,
    channels: Mapping[ChannelName, Channel],
    *,
    citizen_id: UUID,
    idempotency_key: str,
    request_hash: bytes,
    card_id: UUID,
    amount_fen: int,
    channel: ChannelName,
    now: datetime,
) -> tuple[Opened, bool]:
    """Open a recharge and place its order at the provider; a flow, no transaction while it waits.

    A retry with the same key goes on where the first request stopped: the same order number is
    placed again, which the provider takes as the same order.

    Returns:
        The recharge as opened, and whether this request opened it.

    Raises:
        NotFound, CardNotActive, RealNameRequired, PayerUnknown: there is nothing to recharge.
        ChannelRefused: the provider does not take the order; the recharge is closed.
        ChannelUnknown: no proper answer; the same key may be sent again.
        RequestNumberReused: the key was used for something else.
    """
    recharge_id = new_id(now)
    claim = Claim("citizen.recharge", citizen_id, idempotency_key, request_hash, recharge_id)
    async with kept_if_refused(db, claim, now=now):
        async with db.begin() as session:
            kept = await claim_once(session, claim, now=now)
            if kept is None:
                await _add(session, claim, card_id, amount_fen, channel, now=now)
        async with db.begin() as session:
            opened = await _opened(session, kept.subject_id if kept else recharge_id)
        if opened.attempt.pay is None and opened.attempt.state == "sent":
            opened = await _place(db, channels[channel], opened, claim)
    return opened, kept is None


async def _place(db: Database, channel: Channel, opened: Opened, claim: Claim) -> Opened:
    try:
        pay = await channel.create(attempts.order_of(opened.attempt))
    except ChannelRefused as refused:
        async with db.begin() as session:
            attempt = await session.get_one(
                Attempt, opened.attempt.id, with_for_update=True, populate_existing=True
            )
            if attempt.pay is not None:
                # A retry at the same time was taken: that answer stands.
                return await _opened(session, opened.recharge.id)
            await close_unpaid(session, attempt)
            await keep_refusal(session, claim, refused)
        raise
    async with db.begin() as session:
        await session.execute(
            update(Attempt)
            .where(Attempt.id == opened.attempt.id, Attempt.pay.is_(None))
            .values(pay=pay)
        )
        return await _opened(session, opened.recharge.id)


async def _add(
    session: AsyncSession,
    claim: Claim,
    card_id: UUID,
    amount_fen: int,
    channel: ChannelName,
    *,
    now: datetime,
) -> None:
    citizen_id, recharge_id = claim.owner_id, claim.subject_id
    await real_names.require_passed(session, citizen_id)
    # Under lock, so that a closure either sees this recharge or comes first.
    card = await cards.get_own(session, citizen_id, card_id, for_update=True)
    if card.state != "active":
        raise CardNotActive(state=card.state)
    if len(await open_of_card(session, card_id)) >= OPEN_MAX:
        raise TooManyOpen(open_max=OPEN_MAX)
    payer = await sign_ins.payer_of(session, citizen_id, PROVIDER_OF_CHANNEL[channel])
    if payer is None:
        raise PayerUnknown(channel=channel)
    recharge = Recharge(
        id=recharge_id,
        recharge_no=number_of("RC", recharge_id),
        card_id=card.id,
        citizen_id=citizen_id,
        channel=channel,
        amount_fen=amount_fen,
        refunded_fen=0,
        state="paying",
        created_at=now,
        credited_at=None,
    )
    session.add(recharge)
    await session.flush()
    attempts.add(
        session,
        order_id=recharge.id,
        order_no=recharge.recharge_no,
        channel=channel,
        amount_fen=amount_fen,
        description="园卡充值",
        payer_open_id=payer.open_id,
        payer_user_id=payer.user_id,
        expires_at=now + EXPIRES_AFTER,
        now=now,
    )


async def close_unpaid(session: AsyncSession, attempt: Attempt) -> None:
    """Close an attempt and its recharge after the provider refused or closed the order."""
    await session.execute(
        update(Recharge)
        .where(Recharge.id == attempt.order_id, Recharge.state == "paying")
        .values(state="closed")
    )
    await session.execute(
        update(Attempt)
        .where(Attempt.id == attempt.id, Attempt.state == "sent")
        .values(state="closed")
    )


async def _opened(session: AsyncSession, recharge_id: UUID) -> Opened:
    recharge = await session.get_one(Recharge, recharge_id, populate_existing=True)
    return Opened(recharge, await attempts.newest(session, recharge_id))


async def get_own(session: AsyncSession, citizen_id: UUID, recharge_id: UUID) -> Opened:
    """Return a recharge of this citizen with its newest attempt.

    Raises:
        NotFound: there is none, or it is somebody else's.
    """
    recharge = await session.scalar(
        select(Recharge).where(Recharge.id == recharge_id, Recharge.citizen_id == citizen_id)
    )
    if recharge is None:
        raise NotFound
    return Opened(recharge, await attempts.newest(session, recharge_id))


async def open_of_card(session: AsyncSession, card_id: UUID) -> list[Recharge]:
    """Return the recharges of a card that may still be paid."""
    found = await session.scalars(
        select(Recharge).where(Recharge.card_id == card_id, Recharge.state == "paying")
    )
    return list(found)


async def refundable_of_card(
    session: AsyncSession, card_id: UUID, *, now: datetime
) -> list[Recharge]:
    """Return the recharges of a card that money can go back to, newest first."""
    found = await session.scalars(
        select(Recharge)
        .where(
            Recharge.card_id == card_id,
            Recharge.state.in_(("succeeded", "partly_refunded")),
            Recharge.refunded_fen < Recharge.amount_fen,
            Recharge.created_at > now - REFUNDABLE_FOR,
        )
        .order_by(Recharge.created_at.desc(), Recharge.id.desc())
    )
    return list(found)
