"""Histories (明细): what moved a card's money, newest first, and the balance after."""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from wallet.ledger.accounts import Account
from wallet.ledger.chart import Kind
from wallet.ledger.transfers import Entry, Transfer


class Line(NamedTuple):
    """One movement of a card's money."""

    number: int
    transfer_id: UUID
    kind: str
    business_id: UUID
    amount_fen: int
    balance_after_fen: int
    posted_at: datetime


async def of_card(
    session: AsyncSession, card_id: UUID, *, before: int | None, limit: int
) -> list[Line]:
    """Return a page of a card's movements, stable under inserts.

    Args:
        session: an open transaction.
        card_id: the card.
        before: entry number of the last line of the page before; None for the first page.
        limit: how many lines.
    """
    query = (
        select(
            Entry.number,
            Entry.transfer_id,
            Transfer.kind,
            Transfer.business_id,
            Entry.amount_fen,
            Entry.balance_after_fen,
            Entry.posted_at,
        )
        .join(Account, Account.id == Entry.account_id)
        .join(Transfer, Transfer.id == Entry.transfer_id)
        .where(Account.kind == Kind.CARD_PRINCIPAL, Account.owner_id == card_id)
    )
    if before is not None:
        query = query.where(Entry.number < before)
    rows = await session.execute(query.order_by(Entry.number.desc()).limit(limit))
    return [Line(*row) for row in rows]
