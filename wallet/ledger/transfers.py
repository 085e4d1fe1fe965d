"""Transfers and entries (转账、分录): what moved, and that nothing was made or lost.

A transfer's entries sum to zero. Both are appended, never changed or deleted.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from identity.kernel import Base, Refusal, Said


class Transfer(Base):
    """One business event that moved money. One kind of one business row happens once (I10)."""

    __tablename__ = "ledger_transfer"
    __table_args__ = (UniqueConstraint("business_id", "kind"),)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str]
    business_id: Mapped[UUID]
    """The charge, refund, recharge, … that this transfer is the money of."""
    posted_at: Mapped[datetime]


class Entry(Base):
    """One account's side of a transfer, with the balance it left."""

    __tablename__ = "ledger_entry"
    __table_args__ = (
        CheckConstraint("amount_fen <> 0", name="moves_something"),
        Index(None, "transfer_id"),
    )
    account_id: Mapped[int] = mapped_column(ForeignKey("ledger_account.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    """1, 2, 3 … within the account, without gaps."""
    transfer_id: Mapped[UUID] = mapped_column(ForeignKey("ledger_transfer.id"))
    amount_fen: Mapped[int]
    """Above zero where the account was credited, below where it was debited."""
    balance_after_fen: Mapped[int]
    posted_at: Mapped[datetime]


class InsufficientBalance(Refusal):
    """An account would end below its floor."""

    code, status = "insufficient-balance", 409
    title = Said("余额不足", "Insufficient balance")
    next_step = Said("请先充值，或减少金额后再试。", "Recharge first, or try a smaller amount.")


class Move(NamedTuple):
    """Money from one account to another."""

    debit_id: int
    credit_id: int
    amount_fen: int


class Side(NamedTuple):
    """What a transfer does to one account."""

    account_id: int
    amount_fen: int
    balance_after_fen: int


def apply_moves(
    balances_fen: Mapping[int, int], floors_fen: Mapping[int, int | None], moves: Sequence[Move]
) -> list[Side]:
    """Return what all moves do together, one side per account, or refuse them all.

    Amounts are integer fen above zero; the sides sum to zero. Rule: docs/money.md, "Floors":
    only an account that pays is held to its floor, so money may always come back.

    Raises:
        InsufficientBalance: an account would end below its floor.
    """
    changes_fen: dict[int, int] = {}
    for debit_id, credit_id, amount_fen in moves:
        assert amount_fen > 0, "a move moves something"
        assert debit_id != credit_id, "a move needs two accounts"
        changes_fen[debit_id] = changes_fen.get(debit_id, 0) - amount_fen
        changes_fen[credit_id] = changes_fen.get(credit_id, 0) + amount_fen
    sides = []
    for account_id, change_fen in changes_fen.items():
        after_fen, floor_fen = balances_fen[account_id] + change_fen, floors_fen[account_id]
        if change_fen < 0 and floor_fen is not None and after_fen < floor_fen:
            raise InsufficientBalance
        if change_fen:
            sides.append(Side(account_id, change_fen, after_fen))
    assert sides, "moves that cancel each other out move nothing"
    return sides
