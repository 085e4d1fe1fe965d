"""Recharge refunds (充值退款): money of a recharge goes back to where it came from.

States: `processing → succeeded | failed`. Money leaves the card when the refund is asked for and
waits in refund.payable until the provider has paid it out, so it cannot be spent twice (ledger.md
C.2). Where the provider says for good that it will not, the refund is `failed` and the money is
back on the card. A decline of the moment, or no answer, leaves it `processing`: it is sent again
with the same number, on the schedule that stands in the row.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import CheckConstraint, ForeignKey, Index, SmallInteger, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from identity.kernel import Base, NotFound, Refusal, Said, new_id, number_of
from identity.request_numbers import Claim, Kept
from wallet.cards.cards import CardNotActive
from wallet.channels.channel import RefundFound
from wallet.ledger.plans import (
    ACCOUNTS,
    Change,
    Decision,
    Lock,
    Lockable,
    NewJob,
    NewTransfer,
    Posting,
    Rows,
)
from wallet.ledger.posting import Poster
from wallet.ledger.transfers import InsufficientBalance, Move
from wallet.recharge.recharges import RECHARGES, LockedRecharge

SEND_AGAIN_AFTER = (
    timedelta(seconds=5),
    timedelta(seconds=30),
    timedelta(minutes=5),
    timedelta(hours=1),
)
"""When a refund under way is sent again, from one time to the next; the last span repeats."""


class RechargeRefund(Base):
    """Part of one recharge on its way back."""

    __tablename__ = "recharge_refund"
    __table_args__ = (
        CheckConstraint("state IN ('processing', 'succeeded', 'failed')", name="state"),
        CheckConstraint("amount_fen > 0", name="amount"),
        Index("ix_recharge_refund_due", "ask_at", postgresql_where="state = 'processing'"),
    )
    id: Mapped[UUID] = mapped_column(primary_key=True)
    refund_no: Mapped[str] = mapped_column(unique=True)
    """Known to the provider as out_refund_no; the same on every repeat."""
    recharge_id: Mapped[UUID] = mapped_column(ForeignKey("recharge_recharge.id"), index=True)
    card_id: Mapped[UUID] = mapped_column(ForeignKey("cards_card.id"), index=True)
    amount_fen: Mapped[int]
    reason: Mapped[str]
    state: Mapped[str]
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    asked: Mapped[int] = mapped_column(SmallInteger)
    """How often it was sent to the provider."""
    ask_at: Mapped[datetime]
    """When to send it next, as long as it is `processing`."""


class LockedRefund(msgspec.Struct, frozen=True):
    """A refund as a decision sees it."""

    id: UUID
    state: str
    amount_fen: int
    finished_at: datetime | None


REFUNDS = Lockable(RechargeRefund, LockedRefund, writes=("state", "finished_at"), rank=55)


class NotRefundable(Refusal):
    """The recharge has no such money to give back."""

    code, status = "recharge-not-refundable", 422
    title = Said("超过该笔充值的可退金额", "More than is left of this recharge")
    next_step = Said(
        "请减少退款金额，或选择其他充值记录。", "Ask for less, or choose another recharge."
    )


class Purse(NamedTuple):
    """The accounts a refund moves money between."""

    card_id: UUID
    principal_id: int
    payable_id: int


class Part(NamedTuple):
    """How much goes back to one recharge."""

    recharge_id: UUID
    amount_fen: int


async def ask(
    poster: Poster,
    *,
    claim: Claim,
    purse: Purse,
    recharge_id: UUID,
    amount_fen: int | None,
    reason: str,
    now: datetime,
) -> tuple[UUID, bool]:
    """Take money off a card to give it back; return the refund and whether this request made it.

    Posting: card.principal → refund.payable. A job asks the provider once this is committed.

    Args:
        poster: this process's writer.
        claim: the citizen's number; its subject becomes the refund's id.
        purse: the card's account and the one where money waits to be paid out.
        recharge_id: a recharge of this card.
        amount_fen: how much; None for all that is left of it.
        reason: in the citizen's words.
        now: the request's instant.

    Raises:
        NotRefundable: so much is not left of the recharge.
        InsufficientBalance: it was spent.
        CardNotActive: the card is lost or closed.
    """

    def decide(rows: Rows) -> Decision[UUID]:
        if rows.get(ACCOUNTS, purse.principal_id).blocked:
            raise CardNotActive(reason=rows.get(ACCOUNTS, purse.principal_id).blocked)
        recharge = rows.get(RECHARGES, recharge_id)
        left_fen = recharge.amount_fen - recharge.refunded_fen
        part = Part(recharge_id, left_fen if amount_fen is None else amount_fen)
        decision = take(rows, purse, [part], [claim.subject_id], reason=reason, now=now)
        return Decision(
            claim.subject_id,
            transfers=decision.transfers,
            rows=decision.rows,
            changes=decision.changes,
            jobs=decision.jobs,
        )

    locks = ((RECHARGES, recharge_id), (ACCOUNTS, purse.principal_id), (ACCOUNTS, purse.payable_id))
    result = await poster.post(Posting(claim, locks, decide, now))
    if isinstance(result, Kept):
        return result.subject_id, False
    return result.answer, True


def take(
    rows: Rows,
    purse: Purse,
    parts: Sequence[Part],
    refund_ids: Sequence[UUID],
    *,
    reason: str,
    now: datetime,
) -> Decision[None]:
    """Decide refunds of one card's money to several recharges, all or none.

    Raises:
        NotRefundable: one of the recharges has less left.
        InsufficientBalance: the card has less than the sum.
    """
    wanted_fen = sum(part.amount_fen for part in parts)
    balance_fen = rows.get(ACCOUNTS, purse.principal_id).balance_fen
    if wanted_fen > balance_fen:
        raise InsufficientBalance(available_fen=balance_fen)
    transfers, made, changes, jobs = [], [], [], []
    for refund_id, part in zip(refund_ids, parts, strict=True):
        changes.append(Change(RECHARGES, _reserve(rows.get(RECHARGES, part.recharge_id), part)))
        made.append(
            RechargeRefund(
                id=refund_id,
                refund_no=number_of("RR", refund_id),
                recharge_id=part.recharge_id,
                card_id=purse.card_id,
                amount_fen=part.amount_fen,
                reason=reason,
                state="processing",
                created_at=now,
                finished_at=None,
                asked=0,
                ask_at=now + SEND_AGAIN_AFTER[0],
            )
        )
        moves = (Move(purse.principal_id, purse.payable_id, part.amount_fen),)
        transfers.append(NewTransfer(new_id(now), "recharge.refund_ask", refund_id, moves))
        jobs.append(NewJob("wallet.fulfilment:try_refund", {"refund_id": str(refund_id)}))
    return Decision(None, tuple(transfers), tuple(made), tuple(changes), tuple(jobs))


def _reserve(recharge: LockedRecharge, part: Part) -> LockedRecharge:
    left_fen = recharge.amount_fen - recharge.refunded_fen
    is_paid = recharge.state in {"succeeded", "partly_refunded"}
    if not is_paid or not 0 < part.amount_fen <= left_fen:
        raise NotRefundable(left_fen=left_fen if is_paid else 0)
    refunded_fen = recharge.refunded_fen + part.amount_fen
    state = "refunded" if refunded_fen == recharge.amount_fen else "partly_refunded"
    return msgspec.structs.replace(recharge, refunded_fen=refunded_fen, state=state)


async def finish(
    poster: Poster,
    refund: RechargeRefund,
    found: RefundFound,
    *,
    purse: Purse,
    clearing_id: int,
    now: datetime,
) -> bool:
    """Book what the provider said became of a refund; say whether it is finished.

    Posting: refund.payable → clearing where it was paid out; refund.payable → card.principal
    where the provider closed it or let it fail for good, and the recharge can be asked back again.
    What could not reach the payer (`abnormal`) waits for people of ours.
    """
    is_paid = found.state == "succeeded" and found.amount_fen in {None, refund.amount_fen}
    if not is_paid and found.state not in {"failed", "closed"}:
        return False

    def decide(rows: Rows) -> Decision[bool]:
        locked = rows.get(REFUNDS, refund.id)
        if locked.state != "processing":
            return Decision(answer=True)
        state = "succeeded" if is_paid else "failed"
        kind = "recharge.refund_pay" if is_paid else "recharge.refund_fail"
        to_id = clearing_id if is_paid else purse.principal_id
        moves = (Move(purse.payable_id, to_id, locked.amount_fen),)
        changes = [Change(REFUNDS, LockedRefund(locked.id, state, locked.amount_fen, now))]
        if not is_paid:
            recharge = rows.get(RECHARGES, refund.recharge_id)
            changes.append(Change(RECHARGES, _release(recharge, locked.amount_fen)))
        transfer = NewTransfer(new_id(now), kind, refund.id, moves)
        return Decision(answer=True, transfers=(transfer,), changes=tuple(changes))

    claim = Claim("channel.refund", refund.recharge_id, refund.refund_no, b"outcome", refund.id)
    accounts = (purse.payable_id, purse.principal_id, clearing_id)
    locks: tuple[Lock, ...] = (
        (RECHARGES, refund.recharge_id),
        (REFUNDS, refund.id),
        *((ACCOUNTS, account) for account in accounts),
    )
    await poster.post(Posting(claim, locks, decide, now))
    return True


def _release(recharge: LockedRecharge, amount_fen: int) -> LockedRecharge:
    refunded_fen = recharge.refunded_fen - amount_fen
    state = "partly_refunded" if refunded_fen else "succeeded"
    return msgspec.structs.replace(recharge, refunded_fen=refunded_fen, state=state)


async def take_due(session: AsyncSession, *, now: datetime, rows_max: int = 20) -> list[UUID]:
    """Return the refunds that are to be sent again, and set when to send them next.

    The schedule stands in the row, so nothing that dies between two tries is forgotten.
    """
    due = await session.scalars(
        select(RechargeRefund)
        .where(RechargeRefund.state == "processing", RechargeRefund.ask_at <= now)
        .order_by(RechargeRefund.ask_at)
        .limit(rows_max)
        .with_for_update(skip_locked=True)
    )
    taken = []
    for refund in due:
        refund.asked += 1
        refund.ask_at = now + SEND_AGAIN_AFTER[min(refund.asked, len(SEND_AGAIN_AFTER) - 1)]
        taken.append(refund.id)
    return taken


async def get_own(session: AsyncSession, card_id: UUID, refund_id: UUID) -> RechargeRefund:
    """Return a refund of this card.

    Raises:
        NotFound: there is none.
    """
    found = await session.scalar(
        select(RechargeRefund).where(
            RechargeRefund.id == refund_id, RechargeRefund.card_id == card_id
        )
    )
    if found is None:
        raise NotFound
    return found


async def find_by_no(session: AsyncSession, refund_no: str) -> RechargeRefund | None:
    """Return the refund that a provider knows by this number."""
    found: RechargeRefund | None = await session.scalar(
        select(RechargeRefund).where(RechargeRefund.refund_no == refund_no)
    )
    return found


async def unfinished_of_card(session: AsyncSession, card_id: UUID) -> list[RechargeRefund]:
    """Return the refunds of a card that the provider has not paid out yet."""
    found = await session.scalars(
        select(RechargeRefund).where(
            RechargeRefund.card_id == card_id, RechargeRefund.state == "processing"
        )
    )
    return list(found)
