"""Cancel-if-absent: an order number charges once, or is cancelled for ever, never both."""

import asyncio

import pytest

from api.services import Services
from identity.request_numbers import RequestNumberReused
from tests.makers import Shop, make_holder, make_shop
from tests.wallet.verbs import balance_fen, broken, take, verified_codes
from wallet.payments import charges
from wallet.payments.charges import Charge, OrderCancelled


async def _cancel(services: Services, shop: Shop, order_no: str) -> tuple[Charge | None, bool]:
    async with services.db.begin() as session:
        return await charges.cancel_if_absent(
            session, shop.merchant_id, order_no, now=services.clock()
        )


async def test_a_cancelled_number_refuses_whatever_comes_later(services: Services) -> None:
    holder, shop = await make_holder(services, balance_fen=500), await make_shop(services)
    (code,) = await verified_codes(services, holder, count=1)
    assert await _cancel(services, shop, "order0001") == (None, True)
    assert await _cancel(services, shop, "order0001") == (None, False)
    for amount_fen in (9, 10):
        with pytest.raises(OrderCancelled) as refused:
            await take(services, shop, code, order_no="order0001", amount_fen=amount_fen)
        assert refused.value.is_replayed
    assert await balance_fen(services, holder) == 500
    assert not await broken(services)


async def test_a_charge_that_is_there_is_shown_instead_of_cancelled(services: Services) -> None:
    holder, shop = await make_holder(services, balance_fen=500), await make_shop(services)
    (code,) = await verified_codes(services, holder, count=1)
    charge, _ = await take(services, shop, code, order_no="order0001", amount_fen=9)
    found, is_new = await _cancel(services, shop, "order0001")
    assert found is not None
    assert (found.id, is_new) == (charge.id, False)


async def test_another_merchants_number_is_not_touched(services: Services) -> None:
    holder, shop = await make_holder(services, balance_fen=500), await make_shop(services)
    other, (code,) = await make_shop(services), await verified_codes(services, holder, count=1)
    await _cancel(services, other, "order0001")
    charge, _ = await take(services, shop, code, order_no="order0001", amount_fen=9)
    assert charge.state == "succeeded"


async def test_of_a_charge_and_its_cancellation_at_once_exactly_one_wins(
    services: Services,
) -> None:
    races = 40
    holder, shop = await make_holder(services, balance_fen=40), await make_shop(services)
    codes = await verified_codes(services, holder, count=races)

    async def race(number: int) -> bool:
        order_no = f"order{number:04}"
        calls = [
            take(services, shop, codes[number], order_no=order_no, amount_fen=1),
            _cancel(services, shop, order_no),
        ]
        # Now this one starts first, now that one.
        turned = calls[:: 1 if number % 2 else -1]
        taken, cancelled = (await asyncio.gather(*turned, return_exceptions=True))[
            :: 1 if number % 2 else -1
        ]
        assert not isinstance(cancelled, BaseException)
        found, is_buried = cancelled
        if isinstance(taken, BaseException):
            assert isinstance(taken, OrderCancelled)
            assert (found, is_buried) == (None, True)
            return False
        assert isinstance(found, Charge)
        assert not is_buried
        return True

    charged = [await race(number) for number in range(races)]
    assert await balance_fen(services, holder) == races - charged.count(True)
    assert not await broken(services)


async def test_cancelling_does_not_open_the_number_for_other_content(services: Services) -> None:
    holder, shop = await make_holder(services, balance_fen=500), await make_shop(services)
    (code,) = await verified_codes(services, holder, count=1)
    await take(services, shop, code, order_no="order0001", amount_fen=9)
    await _cancel(services, shop, "order0001")
    with pytest.raises(RequestNumberReused):
        await take(services, shop, code, order_no="order0001", amount_fen=10)
