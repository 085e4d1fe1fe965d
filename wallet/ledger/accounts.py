"""Accounts (账户): money of one owner for one purpose, with a floor that the database holds too."""

from uuid import UUID

from sqlalchemy import CheckConstraint, Identity, SmallInteger, UniqueConstraint, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from identity.kernel import Base
from wallet.ledger.chart import CHART, Kind

CITY = UUID(int=0)
"""Owner of the accounts that belong to the issuer itself."""


class Account(Base):
    """Money of one owner for one purpose. The balance moves only by `posting`, under lock."""

    __tablename__ = "ledger_account"
    __table_args__ = (
        UniqueConstraint("kind", "owner_id"),
        CheckConstraint("balance_fen >= floor_fen", name="above_floor"),
        CheckConstraint("entry_count >= 0", name="entry_count"),
        # Half-empty pages keep the balance updates on their page, so no index is touched.
        {"postgresql_with": {"fillfactor": "60"}},
    )
    id: Mapped[int] = mapped_column(Identity(), primary_key=True, init=False)
    kind: Mapped[str]
    owner_id: Mapped[UUID]
    balance_fen: Mapped[int]
    """Credit-positive; see the chart."""
    floor_fen: Mapped[int | None]
    blocked: Mapped[int] = mapped_column(SmallInteger)
    """0, or the reason number (code-format.md §5) for which nothing may be taken from it."""
    entry_count: Mapped[int]
    """Number of entries so far; the next entry is number entry_count + 1, without gaps."""


def new_account(kind: Kind, owner_id: UUID) -> Account:
    """Return an empty account of a kind, with the floor of the chart."""
    return Account(
        kind=kind,
        owner_id=owner_id,
        balance_fen=0,
        floor_fen=CHART[kind].floor_fen,
        blocked=0,
        entry_count=0,
    )


async def account_id(session: AsyncSession, kind: Kind, owner_id: UUID = CITY) -> int:
    """Return the id of an account that must exist."""
    found = await session.scalar(
        select(Account.id).where(Account.kind == kind, Account.owner_id == owner_id)
    )
    assert found is not None, f"no account {kind} of {owner_id}"
    return found


async def block(session: AsyncSession, owner_id: UUID, *, reason: int) -> None:
    """Refuse every debit of a card's money from the commit of this transaction on.

    The row lock makes this wait for a posting under way, and every later posting see it.

    Args:
        session: an open transaction.
        owner_id: the card.
        reason: number of code-format.md §5 that the refused will be told; 0 opens again.
    """
    await session.execute(
        update(Account)
        .where(Account.kind == Kind.CARD_PRINCIPAL, Account.owner_id == owner_id)
        .values(blocked=reason)
    )
