"""Credits: what a provider proved comes onto the card once, and nothing is lost on the way."""

import asyncio
from uuid import UUID

import msgspec

from api.commands.making import make_recharge, proof_of
from api.services import Services
from tests.makers import Holder, make_holder
from tests.wallet.verbs import account_fen, balance_fen, broken
from wallet import fulfilment
from wallet.channels import attempts
from wallet.channels.attempts import Attempt
from wallet.channels.channel import Found
from wallet.ledger import accounts
from wallet.ledger.chart import Kind
from wallet.recharge import closures, recharges
from wallet.recharge.recharges import EXPIRES_AFTER, Recharge


async def _unpaid(services: Services, *, amount_fen: int = 500) -> tuple[Holder, Attempt]:
    holder = await make_holder(services)
    _, attempt = await _another(services, holder, amount_fen=amount_fen)
    return holder, attempt


async def _another(services: Services, holder: Holder, *, amount_fen: int) -> tuple[UUID, Attempt]:
    recharge_id, attempt_id = await make_recharge(
        services, holder.citizen_id, holder.card_id, amount_fen=amount_fen, is_paid=False
    )
    async with services.db.begin() as session:
        return recharge_id, await session.get_one(Attempt, attempt_id)


async def _credit(services: Services, attempt: Attempt, found: Found | None = None) -> None:
    await fulfilment.credit(
        services.cashier, attempt, found or proof_of(attempt, services), now=services.clock()
    )


async def _recharge(services: Services, attempt: Attempt) -> Recharge:
    async with services.db.begin() as session:
        return await session.get_one(Recharge, attempt.order_id)


async def _city_fen(services: Services, kind: Kind) -> int:
    async with services.db.begin() as session:
        account_id = await accounts.account_id(session, kind)
    return await account_fen(services, account_id)


async def test_fifty_equal_proofs_at_once_credit_once(services: Services) -> None:
    holder, attempt = await _unpaid(services)
    await asyncio.gather(*(_credit(services, attempt) for _ in range(50)))
    assert await balance_fen(services, holder) == 500
    assert (await _recharge(services, attempt)).state == "succeeded"
    assert await _city_fen(services, Kind.SUSPENSE_UNKNOWN_IN) == 0
    assert not await broken(services)


async def test_one_payment_number_never_credits_two_orders(services: Services) -> None:
    holder, first = await _unpaid(services)
    others = [(await _another(services, holder, amount_fen=500))[1] for _ in range(4)]
    number = "4200000000000001"
    told = [
        _credit(
            services,
            one,
            msgspec.structs.replace(proof_of(one, services), channel_txn_no=number),
        )
        for one in (first, *others)
    ]
    await asyncio.gather(*told)
    assert await balance_fen(services, holder) == 500
    states = [(await _recharge(services, one)).state for one in (first, *others)]
    assert sorted(states) == ["paying"] * 4 + ["succeeded"]
    assert not await broken(services)


async def test_an_order_paid_by_two_attempts_is_credited_once_and_the_rest_is_kept_apart(
    services: Services,
) -> None:
    holder, first = await _unpaid(services)
    async with services.db.begin() as session:
        second = attempts.add(
            session,
            order_id=first.order_id,
            order_no="RC00000000000000000000SECOND",
            channel="wechat_pay",
            amount_fen=500,
            description="园卡充值",
            payer_open_id="open-test",
            payer_user_id=None,
            expires_at=services.clock() + EXPIRES_AFTER,
            now=services.clock(),
        )
    await asyncio.gather(*(_credit(services, one) for one in (first, second) for _ in range(5)))
    assert await balance_fen(services, holder) == 500
    assert await _city_fen(services, Kind.SUSPENSE_UNKNOWN_IN) == 500
    assert await _city_fen(services, Kind.CLEARING_WECHAT_PAY) == -1_000
    assert not await broken(services)


async def test_another_payment_number_for_a_paid_attempt_waits_in_suspense(
    services: Services,
) -> None:
    holder, attempt = await _unpaid(services)
    await _credit(services, attempt)
    for number in ("4200-other-1", "4200-other-2", "4200-other-1"):
        other = msgspec.structs.replace(proof_of(attempt, services), channel_txn_no=number)
        await _credit(services, attempt, other)
    assert await balance_fen(services, holder) == 500
    assert await _city_fen(services, Kind.SUSPENSE_UNKNOWN_IN) == 1_000
    async with services.db.begin() as session:
        kept = await session.get_one(Attempt, attempt.id)
    assert kept.channel_txn_no == proof_of(attempt, services).channel_txn_no
    assert not await broken(services)


async def test_a_closed_order_that_was_paid_after_all_is_credited(services: Services) -> None:
    holder, attempt = await _unpaid(services)
    async with services.db.begin() as session:
        await recharges.close_unpaid(session, attempt)
    assert (await _recharge(services, attempt)).state == "closed"
    await _credit(services, attempt)
    assert (await _recharge(services, attempt)).state == "succeeded"
    assert await balance_fen(services, holder) == 500
    async with services.db.begin() as session:
        # A close that comes late changes nothing any more.
        await recharges.close_unpaid(session, attempt)
    assert (await _recharge(services, attempt)).state == "succeeded"
    assert not await broken(services)


async def test_a_payment_for_a_closed_card_waits_in_suspense(services: Services) -> None:
    holder, attempt = await _unpaid(services)
    async with services.db.begin() as session:
        await recharges.close_unpaid(session, attempt)
        await closures.begin(session, holder.citizen_id, holder.card_id, now=services.clock())
    await closures.finish(services.db, holder.card_id, now=services.clock())
    for _ in range(2):
        await _credit(services, attempt)
    assert await balance_fen(services, holder) == 0
    assert await _city_fen(services, Kind.SUSPENSE_UNKNOWN_IN) == 500
    assert (await _recharge(services, attempt)).credited_at is None
    assert not await broken(services)


async def test_a_payment_comes_onto_a_lost_card_too(services: Services) -> None:
    holder, attempt = await _unpaid(services)
    async with services.db.begin() as session:
        await accounts.block(session, holder.card_id, reason=402)
    await _credit(services, attempt)
    assert await balance_fen(services, holder) == 500


async def test_what_was_paid_is_what_that_channel_owes_us(services: Services) -> None:
    holder, attempt = await _unpaid(services)
    await services.db.pool.execute("UPDATE channels_attempt SET channel = 'alipay'")
    attempt.channel = "alipay"
    await _credit(services, attempt)
    assert await balance_fen(services, holder) == 500
    assert await _city_fen(services, Kind.CLEARING_ALIPAY) == -500
    assert await _city_fen(services, Kind.CLEARING_WECHAT_PAY) == 0
    assert not await broken(services)
