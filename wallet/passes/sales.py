"""Pass sales (购票): a pass bought from the card's balance."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from identity.kernel import Database, business_date, new_id, number_of
from identity.request_numbers import Claim, Kept, find_kept
from wallet.cards.cards import CardNotActive
from wallet.ledger.plans import ACCOUNTS, Decision, NewTransfer, Posting, Rows
from wallet.ledger.posting import Poster
from wallet.ledger.transfers import InsufficientBalance, Move
from wallet.passes.pass_types import PassType, last_day
from wallet.passes.passes import Pass


def claim_of(citizen_id: UUID, idempotency_key: str, request_hash: bytes, pass_id: UUID) -> Claim:
    """Return what a citizen's request for a pass claims."""
    return Claim("citizen.pass", citizen_id, idempotency_key, request_hash, pass_id)


async def find_sold(
    session: AsyncSession, citizen_id: UUID, idempotency_key: str, request_hash: bytes
) -> Pass | None:
    """Return the pass that this number bought before, whatever is on sale now.

    Raises:
        RequestNumberReused: the number was used for something else.
        Refusal: the one that the first request met.
    """
    claim = claim_of(citizen_id, idempotency_key, request_hash, citizen_id)
    kept = await find_kept(session, claim)
    return await session.get_one(Pass, kept.subject_id) if kept else None


async def buy_from_balance(
    db: Database,
    poster: Poster,
    *,
    citizen_id: UUID,
    idempotency_key: str,
    request_hash: bytes,
    card_id: UUID,
    principal_id: int,
    deferred_id: int,
    pass_type: PassType,
    now: datetime,
) -> tuple[Pass, bool]:
    """Sell a pass for the card's money; return it and whether this request sold it.

    Posting: card.principal → pass.deferred (ledger.md C.2, "Annual pass").

    Args:
        db: where a repeated request's pass is read.
        poster: this process's writer.
        citizen_id: who asks, and owns the card.
        idempotency_key: their number for this request.
        request_hash: over what they ask.
        card_id: the card, of this citizen.
        principal_id: its account.
        deferred_id: the account that the pass type's unearned money waits in.
        pass_type: on sale.
        now: the request's instant; the pass is valid from its business date.

    Raises:
        InsufficientBalance: the card's money does not cover the price.
        CardNotActive: the card is lost or closed.
        RequestNumberReused: the number was used for something else.
    """
    pass_id, first_on = new_id(now), business_date(now)
    sold = Pass(
        id=pass_id,
        pass_no=number_of("PS", pass_id),
        card_id=card_id,
        pass_type_id=pass_type.id,
        state="active",
        pay_by="balance",
        price_fen=pass_type.price_fen,
        valid_from_on=first_on,
        valid_until_on=last_day(first_on, pass_type.valid_days),
        created_at=now,
    )

    def decide(rows: Rows) -> Decision[Pass]:
        account = rows.get(ACCOUNTS, principal_id)
        if account.blocked:
            raise CardNotActive(reason=account.blocked)
        if account.balance_fen < pass_type.price_fen:
            raise InsufficientBalance(missing_fen=pass_type.price_fen - account.balance_fen)
        moves = (Move(principal_id, deferred_id, pass_type.price_fen),)
        paid = (NewTransfer(new_id(now), "pass.sell", pass_id, moves),)
        return Decision(sold, transfers=paid if pass_type.price_fen else (), rows=(sold,))

    claim = claim_of(citizen_id, idempotency_key, request_hash, pass_id)
    locks = ((ACCOUNTS, principal_id), (ACCOUNTS, deferred_id))
    result = await poster.post(Posting(claim, locks, decide, now))
    if isinstance(result, Kept):
        async with db.begin() as session:
            return await session.get_one(Pass, result.subject_id), False
    return result.answer, True
