"""Charges: once per order number, once per code, never more than the card has."""

import asyncio
from collections import Counter

import pytest

from api.services import Services
from identity.kernel import NotFound
from identity.request_numbers import RequestNumberReused
from tests.conftest import SetClock
from tests.makers import make_holder, make_shop
from tests.wallet.verbs import account_fen, balance_fen, broken, show, take, verified_codes
from wallet.codes.presentations import Presented
from wallet.codes.reasons import Reason
from wallet.payments import charges


async def test_fifty_equal_charges_at_once_charge_once(services: Services) -> None:
    holder, shop = await make_holder(services, balance_fen=10_000), await make_shop(services)
    code = await show(services, holder)
    told = await asyncio.gather(
        *(take(services, shop, code, order_no="order0001", amount_fen=700) for _ in range(50))
    )
    assert {charge.id for charge, _ in told} == {told[0][0].id}
    assert [is_new for _, is_new in told].count(True) == 1
    assert await balance_fen(services, holder) == 9_300
    assert not await broken(services)


async def test_fifty_charges_at_once_of_money_for_ten_succeed_ten_times(
    services: Services,
) -> None:
    holder, shop = await make_holder(services, balance_fen=7_069), await make_shop(services)
    codes = await verified_codes(services, holder, count=50)
    told = await asyncio.gather(*(take(services, shop, code, amount_fen=700) for code in codes))
    assert Counter((charge.state, charge.reason) for charge, _ in told) == {
        ("succeeded", 0): 10,
        ("declined", Reason.INSUFFICIENT): 40,
    }
    assert await balance_fen(services, holder) == 69
    assert await account_fen(services, shop.payable_id) == 7_000
    assert not await broken(services)


async def test_a_code_shown_at_two_tills_at_once_pays_once(services: Services) -> None:
    holder, shop = await make_holder(services, balance_fen=10_000), await make_shop(services)
    other, code = await make_shop(services), await show(services, holder)
    told = await asyncio.gather(*(take(services, at, code, amount_fen=700) for at in (shop, other)))
    assert sorted(charge.reason for charge, _ in told) == [Reason.OK, Reason.REPLAYED]
    assert await balance_fen(services, holder) == 9_300
    assert not await broken(services)


async def test_a_slot_before_the_last_one_used_is_used_up_too(services: Services) -> None:
    holder, shop = await make_holder(services, balance_fen=10_000), await make_shop(services)
    later, earlier = await show(services, holder, slots_ahead=1), await show(services, holder)
    first, _ = await take(services, shop, later, amount_fen=1)
    second, _ = await take(services, shop, earlier, amount_fen=1)
    assert (first.reason, second.reason) == (Reason.OK, Reason.REPLAYED)
    assert await balance_fen(services, holder) == 9_999
    assert not await broken(services)


async def test_a_charge_that_the_card_cannot_pay_uses_the_code_up(services: Services) -> None:
    holder, shop = await make_holder(services, balance_fen=500), await make_shop(services)
    code = await show(services, holder)
    poor, _ = await take(services, shop, code, amount_fen=501)
    again, _ = await take(services, shop, code, amount_fen=1)
    assert (poor.reason, again.reason) == (Reason.INSUFFICIENT, Reason.REPLAYED)
    assert await balance_fen(services, holder) == 500
    assert not await broken(services)


async def test_the_whole_balance_can_be_spent_to_the_last_fen(services: Services) -> None:
    holder, shop = await make_holder(services, balance_fen=500), await make_shop(services)
    charge, _ = await take(services, shop, await show(services, holder), amount_fen=500)
    assert (charge.state, await balance_fen(services, holder)) == ("succeeded", 0)


async def test_a_retry_with_another_code_gets_the_first_charge(
    services: Services, clock: SetClock
) -> None:
    holder, shop = await make_holder(services, balance_fen=500), await make_shop(services)
    code = await show(services, holder)
    first, _ = await take(services, shop, code, order_no="order0001", amount_fen=9)
    clock.go(days=30)
    # By now the code is long stale: the number is looked up before the code counts.
    stale = Presented(Reason.EXPIRED)
    again, is_new = await take(services, shop, stale, order_no="order0001", amount_fen=9)
    assert (again.id, again.state, is_new) == (first.id, "succeeded", False)
    assert await balance_fen(services, holder) == 491


async def test_an_order_number_does_not_serve_for_another_amount(services: Services) -> None:
    holder, shop = await make_holder(services, balance_fen=500), await make_shop(services)
    code = await show(services, holder)
    await take(services, shop, code, order_no="order0001", amount_fen=9)
    with pytest.raises(RequestNumberReused):
        await take(services, shop, code, order_no="order0001", amount_fen=10)
    assert await balance_fen(services, holder) == 491


async def test_two_merchants_may_use_the_same_order_number(services: Services) -> None:
    holder, shop = await make_holder(services, balance_fen=500), await make_shop(services)
    other, codes = await make_shop(services), await verified_codes(services, holder, count=2)
    first, _ = await take(services, shop, codes[0], order_no="order0001", amount_fen=9)
    second, _ = await take(services, other, codes[1], order_no="order0001", amount_fen=9)
    assert first.id != second.id
    assert await balance_fen(services, holder) == 482


async def test_a_charge_is_nobody_elses_to_see(services: Services) -> None:
    holder, shop = await make_holder(services, balance_fen=500), await make_shop(services)
    other = await make_shop(services)
    charge, _ = await take(services, shop, await show(services, holder), amount_fen=9)
    async with services.db.begin() as session:
        assert (await charges.get_own(session, shop.merchant_id, charge.id)).id == charge.id
        with pytest.raises(NotFound):
            await charges.get_own(session, other.merchant_id, charge.id)


async def test_a_code_that_leads_to_no_card_is_a_stored_decline(services: Services) -> None:
    shop = await make_shop(services)
    unread = Presented(Reason.MALFORMED)
    first, is_new = await take(services, shop, unread, order_no="order0001", amount_fen=9)
    again, is_repeat = await take(services, shop, unread, order_no="order0001", amount_fen=9)
    assert (first.state, first.reason, first.card_id) == ("declined", Reason.MALFORMED, None)
    assert (is_new, is_repeat, again.id) == (True, False, first.id)
    assert not await broken(services)
