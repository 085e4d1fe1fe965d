"""Charges (扣款): a merchant takes money from the card whose code was shown.

A charge is stored once per merchant and order number: `succeeded | declined`. A no by code, card
or money is a stored charge with its reason number, not a problem (docs/money.md). What was given
back stands beside it (`refunded_fen`); giving back is `refunds`.
"""

from datetime import datetime
from uuid import UUID

import msgspec
from sqlalchemy import CheckConstraint, ForeignKey, Index, SmallInteger, UniqueConstraint, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from identity.kernel import Base, Database, NotFound, Refusal, Said, new_id, number_of
from identity.merchants.merchants import Merchant
from identity.request_numbers import Claim, Kept, bury
from wallet.codes.credentials import CREDENTIALS
from wallet.codes.presentations import Presented
from wallet.codes.reasons import Reason
from wallet.codes.uses import usable, use
from wallet.ledger.plans import ACCOUNTS, Decision, Lock, Lockable, NewTransfer, Posting, Rows
from wallet.ledger.posting import Poster
from wallet.ledger.transfers import Move

SCOPE = "merchant.charge"
SINGLE_MAX_FEN = 500_000
"""Most that one charge may take (docs/money.md, "Limits")."""


class Charge(Base):
    """One attempt of a merchant to take money, with its outcome."""

    __tablename__ = "payments_charge"
    __table_args__ = (
        UniqueConstraint("merchant_id", "order_no"),
        # So that a refund can point at a charge of its own merchant and at no other.
        UniqueConstraint("id", "merchant_id"),
        CheckConstraint("state IN ('succeeded', 'declined')", name="state"),
        CheckConstraint("(state = 'succeeded') = (reason = 0)", name="reason"),
        CheckConstraint("amount_fen > 0", name="amount"),
        CheckConstraint("refunded_fen BETWEEN 0 AND amount_fen", name="refunded"),
        Index(None, "card_id", "created_at"),
        {"postgresql_with": {"fillfactor": "85"}},
    )
    id: Mapped[UUID] = mapped_column(primary_key=True)
    charge_no: Mapped[str] = mapped_column(unique=True)
    merchant_id: Mapped[UUID] = mapped_column(ForeignKey(Merchant.id))
    order_no: Mapped[str]
    card_id: Mapped[UUID | None] = mapped_column(ForeignKey("cards_card.id"))
    """None where the code did not lead to a card."""
    state: Mapped[str]
    reason: Mapped[int] = mapped_column(SmallInteger)
    amount_fen: Mapped[int]
    refunded_fen: Mapped[int]
    description: Mapped[str | None]
    terminal_no: Mapped[str | None]
    created_at: Mapped[datetime]


class LockedCharge(msgspec.Struct, frozen=True):
    """A charge as the decision about a refund sees it."""

    id: UUID
    state: str
    amount_fen: int
    refunded_fen: int


CHARGES = Lockable(Charge, LockedCharge, writes=("refunded_fen",), rank=20)


class OrderCancelled(Refusal):
    """The order number was cancelled before anything was charged for it."""

    code, status = "order-cancelled", 409
    title = Said("该订单号已取消", "This order number was cancelled")
    next_step = Said("请使用新的订单号收款。", "Use a new order number to charge.")


async def charge(
    db: Database,
    poster: Poster,
    presented: Presented,
    *,
    merchant_id: UUID,
    payable_id: int,
    order_no: str,
    request_hash: bytes,
    amount_fen: int,
    description: str | None,
    terminal_no: str | None,
    now: datetime,
) -> tuple[Charge, bool]:
    """Take money from a card; return the charge and whether this request made it.

    Posting: card.principal → merchant.payable (ledger.md C.2, "Payment"). The code is used in
    the same transaction, whatever the answer.

    Args:
        db: where a repeated request's charge is read.
        poster: this process's writer.
        presented: the code as judged before; its number is looked up before that counts.
        merchant_id: who charges.
        payable_id: the merchant's account.
        order_no: the merchant's number for this charge, once for ever.
        request_hash: over what the merchant asks.
        amount_fen: above zero.
        description: for the citizen's statement.
        terminal_no: which till.
        now: the request's instant.

    Raises:
        RequestNumberReused: the order number was used for something else.
        OrderCancelled: it was cancelled.
    """
    charge_id = new_id(now)

    def decide(rows: Rows) -> Decision[Charge]:
        reason = reason_of(presented, rows, amount_fen)
        is_paid = reason == Reason.OK
        row = Charge(
            id=charge_id,
            charge_no=number_of("CH", charge_id),
            merchant_id=merchant_id,
            order_no=order_no,
            card_id=presented.card_id,
            state="succeeded" if is_paid else "declined",
            reason=int(reason),
            amount_fen=amount_fen,
            refunded_fen=0,
            description=description,
            terminal_no=terminal_no,
            created_at=now,
        )
        used, changes = use(presented, rows, by="charge", by_id=charge_id, now=now)
        transfers: tuple[NewTransfer, ...] = ()
        if is_paid:
            moves = (Move(presented.principal_id, payable_id, amount_fen),)
            transfers = (NewTransfer(new_id(now), "charge.take", charge_id, moves),)
        return Decision(row, transfers=transfers, rows=(row, *used), changes=changes)

    claim = Claim(SCOPE, merchant_id, order_no, request_hash, charge_id)
    locks: tuple[Lock, ...] = ()
    if presented.cid:
        locks = (
            (CREDENTIALS, presented.cid),
            (ACCOUNTS, presented.principal_id),
            (ACCOUNTS, payable_id),
        )
    result = await poster.post(Posting(claim, locks, decide, now))
    if isinstance(result, Kept):
        async with db.begin() as session:
            return await session.get_one(Charge, result.subject_id), False
    return result.answer, True


def reason_of(presented: Presented, rows: Rows, amount_fen: int) -> Reason:
    """Return why a charge is declined, or OK; the order is that of code-format.md §4."""
    reason = usable(presented, rows)
    if reason != Reason.OK:
        return reason
    account = rows.get(ACCOUNTS, presented.principal_id)
    if account.blocked:
        return Reason.of(account.blocked)
    if amount_fen > SINGLE_MAX_FEN:
        return Reason.LIMIT_SINGLE
    if account.balance_fen < amount_fen:
        return Reason.INSUFFICIENT
    return Reason.OK


async def get_own(session: AsyncSession, merchant_id: UUID, charge_id: UUID) -> Charge:
    """Return a charge of this merchant.

    Raises:
        NotFound: there is none, or it is another merchant's.
    """
    found = await session.scalar(
        select(Charge).where(Charge.id == charge_id, Charge.merchant_id == merchant_id)
    )
    if found is None:
        raise NotFound
    return found


async def find_by_order_no(
    session: AsyncSession, merchant_id: UUID, order_no: str
) -> Charge | None:
    """Return the charge of an order number, if there is one."""
    found: Charge | None = await session.scalar(
        select(Charge).where(Charge.merchant_id == merchant_id, Charge.order_no == order_no)
    )
    return found


async def cancel_if_absent(
    session: AsyncSession, merchant_id: UUID, order_no: str, *, now: datetime
) -> tuple[Charge | None, bool]:
    """Make sure that an order number whose outcome is unknown charges nothing later.

    Returns:
        The charge, if there is one after all; else None. And whether this call buried the number.
    """
    subject_id = await bury(
        session,
        scope=SCOPE,
        owner_id=merchant_id,
        number=order_no,
        subject_id=new_id(now),
        refusal=OrderCancelled(order_no=order_no),
        now=now,
    )
    return (await session.get(Charge, subject_id) if subject_id else None), subject_id is None
