"""Refunds of charges: in parts, never more than was taken, only of the merchant's own money."""

import asyncio

import pytest
from sqlalchemy import update

from api.services import Services
from tests.makers import Holder, Shop, make_holder, make_shop
from tests.wallet.verbs import (
    account_fen,
    balance_fen,
    broken,
    give_back,
    show,
    take,
    verified_codes,
)
from wallet.codes.presentations import Presented
from wallet.codes.reasons import Reason
from wallet.ledger import accounts
from wallet.ledger.accounts import Account
from wallet.payments.refunds import (
    CardClosed,
    MerchantFundsInsufficient,
    NothingToRefund,
    RefundExceeds,
)


async def _spender(services: Services) -> tuple[Holder, Shop]:
    return await make_holder(services, balance_fen=10_000), await make_shop(services)


async def test_fifty_refunds_of_a_tenth_at_once_succeed_ten_times(services: Services) -> None:
    holder, shop = await _spender(services)
    codes = await verified_codes(services, holder, count=2)
    charge, _ = await take(services, shop, codes[0], amount_fen=5_000)
    # The merchant has more than this charge, so that only the charge itself sets the limit.
    await take(services, shop, codes[1], amount_fen=4_000)
    told = await asyncio.gather(
        *(give_back(services, shop, holder, charge.id, amount_fen=500) for _ in range(50)),
        return_exceptions=True,
    )
    refused = [one for one in told if isinstance(one, BaseException)]
    assert {type(one) for one in refused} == {RefundExceeds}
    assert len(refused) == 40
    assert await balance_fen(services, holder) == 6_000
    assert await account_fen(services, shop.payable_id) == 4_000
    assert not await broken(services)


async def test_fifty_equal_refunds_at_once_refund_once(services: Services) -> None:
    holder, shop = await _spender(services)
    charge, _ = await take(services, shop, await show(services, holder), amount_fen=5_000)
    told = await asyncio.gather(
        *(
            give_back(services, shop, holder, charge.id, amount_fen=500, refund_no="refund0001")
            for _ in range(50)
        )
    )
    assert len({refund.id for refund, _ in told}) == 1
    assert [is_new for _, is_new in told].count(True) == 1
    assert await balance_fen(services, holder) == 5_500
    assert not await broken(services)


async def test_what_is_left_is_said_and_can_be_refunded(services: Services) -> None:
    holder, shop = await _spender(services)
    charge, _ = await take(services, shop, await show(services, holder), amount_fen=5_000)
    await give_back(services, shop, holder, charge.id, amount_fen=4_999)
    with pytest.raises(RefundExceeds) as refused:
        await give_back(services, shop, holder, charge.id, amount_fen=2, refund_no="refund0002")
    assert refused.value.facts == {"left_fen": 1}
    last, _ = await give_back(services, shop, holder, charge.id, amount_fen=1)
    assert last.refunded_fen == 5_000
    with pytest.raises(RefundExceeds) as repeated:
        await give_back(services, shop, holder, charge.id, amount_fen=2, refund_no="refund0002")
    assert (repeated.value.is_replayed, repeated.value.facts) == (True, {"left_fen": 1})
    assert not await broken(services)


async def test_a_charge_that_took_nothing_gives_nothing_back(services: Services) -> None:
    holder, shop = await _spender(services)
    charge, _ = await take(services, shop, await show(services, holder), amount_fen=10_001)
    with pytest.raises(NothingToRefund):
        await give_back(services, shop, holder, charge.id, amount_fen=1)


async def test_a_merchant_gives_back_only_what_it_has(services: Services) -> None:
    holder, shop = await _spender(services)
    charge, _ = await take(services, shop, await show(services, holder), amount_fen=5_000)
    async with services.db.begin() as session:
        # Its takings were settled in the meantime.
        await session.execute(
            update(Account).where(Account.id == shop.payable_id).values(balance_fen=499)
        )
    with pytest.raises(MerchantFundsInsufficient):
        await give_back(services, shop, holder, charge.id, amount_fen=500)
    assert await balance_fen(services, holder) == 5_000


async def test_money_comes_back_to_a_lost_card_but_not_to_a_closed_one(
    services: Services,
) -> None:
    holder, shop = await _spender(services)
    charge, _ = await take(services, shop, await show(services, holder), amount_fen=5_000)
    for reason in (Reason.LOST, Reason.CLOSED):
        async with services.db.begin() as session:
            await accounts.block(session, holder.card_id, reason=int(reason))
        if reason == Reason.CLOSED:
            with pytest.raises(CardClosed):
                await give_back(services, shop, holder, charge.id, amount_fen=500)
        else:
            await give_back(services, shop, holder, charge.id, amount_fen=500)
    assert await balance_fen(services, holder) == 5_500


async def test_a_charge_of_no_card_has_nothing_to_refund(services: Services) -> None:
    holder, shop = await _spender(services)
    charge, _ = await take(services, shop, Presented(Reason.MALFORMED), amount_fen=5)
    with pytest.raises(NothingToRefund):
        await give_back(services, shop, holder, charge.id, amount_fen=5)
