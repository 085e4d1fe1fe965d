"""What a citizen, a job and a provider do to give a recharge's money back."""

import secrets
from uuid import UUID

from api.services import Services
from identity.kernel import new_id
from identity.request_numbers import Claim, request_hash
from wallet import fulfilment
from wallet.channels.channel import RefundFound, RefundState
from wallet.ledger import accounts
from wallet.ledger.chart import Kind
from wallet.recharge import closures, refunds
from wallet.recharge.refunds import RechargeRefund


async def ask_back(
    services: Services,
    card_id: UUID,
    recharge_id: UUID,
    *,
    amount_fen: int | None,
    key: str | None = None,
) -> tuple[UUID, bool]:
    """Ask for part of a recharge, or for all that is left of it."""
    key, now = key or secrets.token_hex(8), services.clock()
    async with services.db.begin() as session:
        purse = await fulfilment.purse_of(session, card_id)
    content = request_hash(recharge_id, amount_fen)
    return await refunds.ask(
        services.poster,
        claim=Claim("citizen.refund", card_id, key, content, new_id(now)),
        purse=purse,
        recharge_id=recharge_id,
        amount_fen=amount_fen,
        reason="不用了",
        now=now,
    )


async def provider_says(services: Services, refund_id: UUID, state: RefundState) -> bool:
    """Book what a provider said of a refund; return whether it is finished."""
    now = services.clock()
    async with services.db.begin() as session:
        refund = await session.get_one(RechargeRefund, refund_id)
        purse = await fulfilment.purse_of(session, refund.card_id)
        clearing_id = await accounts.account_id(session, Kind.CLEARING_WECHAT_PAY)
    found = RefundFound(
        out_trade_no="",
        out_refund_no=refund.refund_no,
        state=state,
        amount_fen=refund.amount_fen,
    )
    is_finished = await refunds.finish(
        services.poster, refund, found, purse=purse, clearing_id=clearing_id, now=now
    )
    await closures.finish(services.db, refund.card_id, now=now)
    return is_finished
