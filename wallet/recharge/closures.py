"""Closures (销卡): every fen of a card goes back to where it came from, then the card is closed.

The card is `closing` from the request on and `closed` once the provider has paid everything out.
Each step can be repeated: the ask is a number, the payout a posting, the rest follows from rows.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from identity.audit import JOB, Actor, record
from identity.kernel import Database, Refusal, Said, StateConflict, new_id
from identity.request_numbers import Claim
from wallet.cards import cards
from wallet.cards.cards import CLOSED, Card
from wallet.ledger import accounts
from wallet.ledger.plans import ACCOUNTS, Decision, Lock, Posting, Rows
from wallet.ledger.posting import Poster
from wallet.recharge import recharges, refunds
from wallet.recharge.recharges import RECHARGES
from wallet.recharge.refunds import Part, Purse


class RechargeOpen(Refusal):
    """A recharge of the card may still be paid."""

    code, status = "recharge-open", 409
    title = Said("有未完成的充值", "A recharge is not finished yet")
    next_step = Said(
        "请先完成支付，或等待其过期后再销卡。",
        "Pay it, or wait until it expires, then close the card.",
    )


class NeedsCounter(Refusal):
    """Part of the money did not come from a recharge that it can go back to."""

    code, status = "closure-needs-counter", 409
    title = Said("余额无法全部原路退回", "Not all of the balance can go back the way it came")
    next_step = Said("请到服务点办理销卡。", "Please close the card at a service point.")


async def begin(session: AsyncSession, citizen_id: UUID, card_id: UUID, *, now: datetime) -> Card:
    """Stop a card for ever; its money is still on it. Asking again changes nothing.

    Raises:
        NotFound: no such card of this citizen.
        RechargeOpen: money may still come in.
        NeedsCounter: the recharges do not cover the balance.
    """
    card = await cards.get_own(session, citizen_id, card_id, for_update=True)
    if card.state in {"closing", "closed"}:
        return card
    if card.state not in {"active", "lost"}:
        raise StateConflict(state=card.state)
    if await recharges.open_of_card(session, card_id):
        raise RechargeOpen
    await accounts.block(session, card_id, reason=CLOSED)
    split(
        await cards.balance_fen(session, card_id),
        [
            (recharge.id, recharge.amount_fen - recharge.refunded_fen)
            for recharge in await recharges.refundable_of_card(session, card_id, now=now)
        ],
    )
    card.state, card.closed_at = "closing", now
    record(session, Actor("citizen", citizen_id), "card.close", card_id, now=now)
    return card


def split(balance_fen: int, left_fen: Sequence[tuple[UUID, int]]) -> list[Part]:
    """Return how a balance goes back over recharges, in their order, as far as each reaches.

    Raises:
        NeedsCounter: they do not cover it; `left_fen` says by how much.
    """
    parts = []
    for recharge_id, reach_fen in left_fen:
        amount_fen = min(balance_fen, reach_fen)
        if amount_fen:
            parts.append(Part(recharge_id, amount_fen))
        balance_fen -= amount_fen
    if balance_fen:
        raise NeedsCounter(left_fen=balance_fen)
    return parts


async def pay_out(db: Database, poster: Poster, purse: Purse, *, now: datetime) -> None:
    """Send a closing card's money on its way back, newest recharge first (WeChat: one year).

    Posting: card.principal → refund.payable, one transfer per recharge. Once per card: whoever
    asks again finds it done.
    """
    async with db.begin() as session:
        left = await recharges.refundable_of_card(session, purse.card_id, now=now)
    refund_ids = [new_id(now) for _ in left]

    def decide(rows: Rows) -> Decision[None]:
        balance_fen = rows.get(ACCOUNTS, purse.principal_id).balance_fen
        locked = [rows.get(RECHARGES, recharge.id) for recharge in left]
        parts = split(balance_fen, [(r.id, r.amount_fen - r.refunded_fen) for r in locked])
        return refunds.take(
            rows, purse, parts, refund_ids[: len(parts)], reason="销卡退款", now=now
        )

    claim = Claim("card.pay_out", purse.card_id, "closure", b"all", purse.card_id)
    locks: tuple[Lock, ...] = (
        *((RECHARGES, recharge.id) for recharge in left),
        (ACCOUNTS, purse.principal_id),
        (ACCOUNTS, purse.payable_id),
    )
    await poster.post(Posting(claim, locks, decide, now))


async def closing(session: AsyncSession, *, rows_max: int = 20) -> list[UUID]:
    """Return cards that are being closed, any of them: some may wait long for people of ours."""
    found = await session.scalars(
        select(Card.id).where(Card.state == "closing").order_by(func.random()).limit(rows_max)
    )
    return list(found)


async def finish(db: Database, card_id: UUID, *, now: datetime) -> None:
    """Close a closing card whose money has all arrived; otherwise change nothing."""
    async with db.begin() as session:
        card = await session.get(Card, card_id, with_for_update={"key_share": True})
        if card is None or card.state != "closing":
            return
        if await cards.balance_fen(session, card_id) or await refunds.unfinished_of_card(
            session, card_id
        ):
            return
        card.state = "closed"
        record(session, JOB, "card.closed", card_id, now=now)
