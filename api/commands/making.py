"""Money on a card without a provider (造数): for the benches and the tests.

What a provider would have proven is given instead; everything behind the proof is the product's.
"""

from uuid import UUID

from api.services import Services
from identity.kernel import new_id, number_of
from wallet import fulfilment
from wallet.channels import attempts
from wallet.channels.channel import Found
from wallet.recharge.recharges import EXPIRES_AFTER, Recharge


async def make_recharge(
    services: Services, citizen_id: UUID, card_id: UUID, *, amount_fen: int, is_paid: bool = True
) -> tuple[UUID, UUID]:
    """Return a recharge and its attempt; paid ones are credited as a provider's proof credits."""
    now = services.clock()
    recharge_id = new_id(now)
    async with services.db.begin() as session:
        session.add(
            Recharge(
                id=recharge_id,
                recharge_no=number_of("RC", recharge_id),
                card_id=card_id,
                citizen_id=citizen_id,
                channel="wechat_pay",
                amount_fen=amount_fen,
                refunded_fen=0,
                state="paying",
                created_at=now,
                credited_at=None,
            )
        )
        attempt = attempts.add(
            session,
            order_id=recharge_id,
            order_no=number_of("RC", recharge_id),
            channel="wechat_pay",
            amount_fen=amount_fen,
            description="园卡充值",
            payer_open_id="open-test",
            payer_user_id=None,
            expires_at=now + EXPIRES_AFTER,
            now=now,
        )
    if is_paid:
        proof = proof_of(attempt, services)
        await fulfilment.credit(services.cashier, attempt, proof, now=now)
    return recharge_id, attempt.id


def proof_of(attempt: attempts.Attempt, services: Services) -> Found:
    """Return what a provider says of a paid attempt."""
    return Found(
        out_trade_no=attempt.out_trade_no,
        state="paid",
        amount_fen=attempt.amount_fen,
        currency="CNY",
        app_id=services.settings.wechat.app_id,
        merchant_id=services.settings.wechat_pay.mch_id,
        channel_txn_no=f"4200{attempt.out_trade_no}",
    )
