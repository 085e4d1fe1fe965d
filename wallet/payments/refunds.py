"""Refunds (退款): a merchant gives a charge's money back, in as many parts as it likes.

Σ refunds ≤ charge holds under the lock of the charge's row, and as a CHECK on it.
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from identity.kernel import Base, Database, Refusal, Said, new_id
from identity.request_numbers import Claim, Kept
from wallet.codes.reasons import Reason
from wallet.ledger.plans import ACCOUNTS, Change, Decision, Lock, NewTransfer, Posting, Rows
from wallet.ledger.posting import Poster
from wallet.ledger.transfers import Move
from wallet.payments.charges import CHARGES, LockedCharge


class ChargeRefund(Base):
    """Money of one charge given back; it succeeded, or it is not there."""

    __tablename__ = "payments_refund"
    __table_args__ = (
        UniqueConstraint("merchant_id", "refund_no"),
        # The pair keeps a refund with its own merchant's charge, whatever the code above does.
        ForeignKeyConstraint(
            ["charge_id", "merchant_id"], ["payments_charge.id", "payments_charge.merchant_id"]
        ),
        CheckConstraint("amount_fen > 0", name="amount"),
        CheckConstraint("refunded_fen >= amount_fen", name="refunded"),
    )
    id: Mapped[UUID] = mapped_column(primary_key=True)
    merchant_id: Mapped[UUID]
    charge_id: Mapped[UUID] = mapped_column(index=True)
    refund_no: Mapped[str]
    amount_fen: Mapped[int]
    refunded_fen: Mapped[int]
    """What was given back of the charge altogether, this refund included."""
    reason: Mapped[str]
    created_at: Mapped[datetime]


class RefundExceeds(Refusal):
    """More would be given back than was taken."""

    code, status = "refund-exceeds", 422
    title = Said("退款超过可退金额", "The refund exceeds what is left of the charge")
    next_step = Said("请减少退款金额。", "Refund at most what is left.")


class NothingToRefund(Refusal):
    """The charge took no money."""

    code, status = "nothing-to-refund", 409
    title = Said("该笔扣款未成功，无需退款", "The charge took no money")
    next_step = Said("请核对扣款单号。", "Check which charge you mean.")


class MerchantFundsInsufficient(Refusal):
    """The merchant's own money does not cover the refund."""

    code, status = "merchant-funds-insufficient", 422
    title = Said("商户待结算余额不足", "The merchant's balance does not cover the refund")
    next_step = Said("请待有新收款后再退，或线下退款。", "Refund after new takings, or in cash.")


class CardClosed(Refusal):
    """The card that paid was closed; there is nothing left to give back to."""

    code, status = "card-closed", 409
    title = Said("该卡已销卡", "The card was closed")
    next_step = Said("请以其他方式退给顾客。", "Give the money back in another way.")


async def refund(
    db: Database,
    poster: Poster,
    *,
    merchant_id: UUID,
    charge_id: UUID,
    payable_id: int,
    principal_id: int | None,
    refund_no: str,
    request_hash: bytes,
    amount_fen: int,
    reason: str,
    now: datetime,
) -> tuple[ChargeRefund, bool]:
    """Give back part of a charge; return the refund and whether this request made it.

    Posting: merchant.payable → card.principal (ledger.md C.2, "Payment refund").

    Args:
        db: where a repeated request's refund is read.
        poster: this process's writer.
        merchant_id: whose charge it is.
        charge_id: a charge of this merchant.
        payable_id: the merchant's account.
        principal_id: the account of the card that paid; None where the code led to no card.
        refund_no: the merchant's number for this refund, once for ever.
        request_hash: over what the merchant asks.
        amount_fen: above zero.
        reason: for the citizen's statement.
        now: the request's instant.

    Raises:
        RefundExceeds, NothingToRefund, MerchantFundsInsufficient, CardClosed: and the number is
            used up by that answer.
        RequestNumberReused: the number was used for something else.
    """
    refund_id = new_id(now)

    def decide(rows: Rows) -> Decision[ChargeRefund]:
        paid = rows.get(CHARGES, charge_id)
        refuse_refund(paid, amount_fen)
        assert principal_id is not None, "money was taken from a card"
        if rows.get(ACCOUNTS, principal_id).blocked == Reason.CLOSED:
            raise CardClosed
        if rows.get(ACCOUNTS, payable_id).balance_fen < amount_fen:
            raise MerchantFundsInsufficient
        refunded_fen = paid.refunded_fen + amount_fen
        row = ChargeRefund(
            id=refund_id,
            merchant_id=merchant_id,
            charge_id=charge_id,
            refund_no=refund_no,
            amount_fen=amount_fen,
            refunded_fen=refunded_fen,
            reason=reason,
            created_at=now,
        )
        moves = (Move(payable_id, principal_id, amount_fen),)
        after = LockedCharge(paid.id, paid.state, paid.amount_fen, refunded_fen)
        return Decision(
            row,
            transfers=(NewTransfer(new_id(now), "charge.refund", refund_id, moves),),
            rows=(row,),
            changes=(Change(CHARGES, after),),
        )

    claim = Claim("merchant.refund", merchant_id, refund_no, request_hash, refund_id)
    locks: tuple[Lock, ...] = ((CHARGES, charge_id), (ACCOUNTS, payable_id))
    if principal_id is not None:
        locks = (*locks, (ACCOUNTS, principal_id))
    result = await poster.post(Posting(claim, locks, decide, now))
    if isinstance(result, Kept):
        async with db.begin() as session:
            return await session.get_one(ChargeRefund, result.subject_id), False
    return result.answer, True


def refuse_refund(paid: LockedCharge, amount_fen: int) -> None:
    """Refuse what the charge does not cover.

    Raises:
        NothingToRefund: it took no money.
        RefundExceeds: less is left of it; `left_fen` says how much.
    """
    if paid.state != "succeeded":
        raise NothingToRefund
    left_fen = paid.amount_fen - paid.refunded_fen
    if amount_fen > left_fen:
        raise RefundExceeds(left_fen=left_fen)
