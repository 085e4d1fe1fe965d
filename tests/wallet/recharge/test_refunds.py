"""Recharge refunds: never more than came in, never what was spent, out of reach while under way."""

import asyncio
from collections import Counter
from uuid import UUID

import pytest

from api.commands.making import make_recharge
from api.services import Services
from identity.kernel import NotFound, new_id
from tests.conftest import SetClock
from tests.makers import Holder, make_holder, make_shop
from tests.wallet.recharge.paying_back import ask_back, provider_says
from tests.wallet.verbs import balance_fen, broken, show, take
from wallet.cards import cards
from wallet.cards.cards import CardNotActive
from wallet.ledger.transfers import InsufficientBalance
from wallet.recharge import refunds
from wallet.recharge.recharges import Recharge
from wallet.recharge.refunds import NotRefundable


async def _holder(services: Services, *, amount_fen: int = 500) -> tuple[Holder, UUID]:
    """Return a holder whose money came by one recharge."""
    holder = await make_holder(services)
    return holder, await _recharged(services, holder, amount_fen=amount_fen)


async def _recharged(
    services: Services, holder: Holder, *, amount_fen: int, is_paid: bool = True
) -> UUID:
    recharge_id, _ = await make_recharge(
        services, holder.citizen_id, holder.card_id, amount_fen=amount_fen, is_paid=is_paid
    )
    return recharge_id


async def _ask(
    services: Services,
    holder: Holder,
    recharge_id: UUID,
    *,
    amount_fen: int | None,
    key: str | None = None,
) -> tuple[UUID, bool]:
    return await ask_back(services, holder.card_id, recharge_id, amount_fen=amount_fen, key=key)


async def _state(services: Services, recharge_id: UUID) -> tuple[str, int]:
    async with services.db.begin() as session:
        found = await session.get_one(Recharge, recharge_id)
    return found.state, found.refunded_fen


async def test_fifty_refunds_of_a_tenth_at_once_succeed_ten_times(services: Services) -> None:
    holder, recharge_id = await _holder(services)
    # There is more on the card than this recharge brought, so that only it sets the limit.
    await _recharged(services, holder, amount_fen=300)
    told = await asyncio.gather(
        *(_ask(services, holder, recharge_id, amount_fen=50) for _ in range(50)),
        return_exceptions=True,
    )
    assert Counter(map(type, told)) == {tuple: 10, NotRefundable: 40}
    assert await _state(services, recharge_id) == ("refunded", 500)
    assert await balance_fen(services, holder) == 300
    assert not await broken(services)


async def test_fifty_equal_refunds_at_once_refund_once(services: Services) -> None:
    holder, recharge_id = await _holder(services)
    told = await asyncio.gather(
        *(
            _ask(services, holder, recharge_id, amount_fen=200, key="key0000000000001")
            for _ in range(50)
        )
    )
    assert len({refund_id for refund_id, _ in told}) == 1
    assert await _state(services, recharge_id) == ("partly_refunded", 200)
    assert await balance_fen(services, holder) == 300
    assert not await broken(services)


async def test_what_was_spent_cannot_be_refunded(services: Services) -> None:
    (holder, recharge_id), shop = await _holder(services), await make_shop(services)
    await take(services, shop, await show(services, holder), amount_fen=300)
    for amount_fen in (201, None):
        with pytest.raises(InsufficientBalance) as refused:
            await _ask(services, holder, recharge_id, amount_fen=amount_fen)
        assert refused.value.facts == {"available_fen": 200}
    await _ask(services, holder, recharge_id, amount_fen=200)
    assert await balance_fen(services, holder) == 0
    assert not await broken(services)


async def test_refunds_and_charges_at_once_share_the_money_there_is(services: Services) -> None:
    (holder, recharge_id), shop = await _holder(services), await make_shop(services)
    code = await show(services, holder)
    taking = asyncio.create_task(take(services, shop, code, amount_fen=300))
    asked = await asyncio.gather(
        *(_ask(services, holder, recharge_id, amount_fen=100) for _ in range(5)),
        return_exceptions=True,
    )
    charge, _ = await taking
    is_paid = charge.state == "succeeded"
    assert [type(one) for one in asked].count(tuple) == (2 if is_paid else 5)
    assert await balance_fen(services, holder) == 0
    assert not await broken(services)


async def test_no_more_than_is_left_and_no_less_than_a_fen(services: Services) -> None:
    holder, recharge_id = await _holder(services)
    await _recharged(services, holder, amount_fen=900)
    for amount_fen in (0, -1, 501):
        with pytest.raises(NotRefundable):
            await _ask(services, holder, recharge_id, amount_fen=amount_fen)
    assert await balance_fen(services, holder) == 1_400
    assert not await broken(services)


async def test_a_recharge_that_was_never_paid_gives_nothing_back(services: Services) -> None:
    holder, _ = await _holder(services)
    unpaid_id = await _recharged(services, holder, amount_fen=100, is_paid=False)
    with pytest.raises(NotRefundable) as refused:
        await _ask(services, holder, unpaid_id, amount_fen=100)
    assert refused.value.facts == {"left_fen": 0}


async def test_a_lost_card_refunds_nothing(services: Services) -> None:
    holder, recharge_id = await _holder(services)
    async with services.db.begin() as session:
        await cards.report_loss(session, holder.citizen_id, holder.card_id, now=services.clock())
    with pytest.raises(CardNotActive):
        await _ask(services, holder, recharge_id, amount_fen=100)


async def test_a_refund_is_paid_out_once_however_often_the_provider_says_so(
    services: Services,
) -> None:
    holder, recharge_id = await _holder(services)
    refund_id, _ = await _ask(services, holder, recharge_id, amount_fen=None)
    assert not await provider_says(services, refund_id, "processing")
    assert not await provider_says(services, refund_id, "abnormal")
    assert not await broken(services)
    told = (provider_says(services, refund_id, "succeeded") for _ in range(20))
    assert all(await asyncio.gather(*told))
    # Whatever is said afterwards, it was paid out.
    await provider_says(services, refund_id, "failed")
    async with services.db.begin() as session:
        own = await refunds.get_own(session, holder.card_id, refund_id)
        assert (own.state, own.amount_fen) == ("succeeded", 500)
        assert await refunds.unfinished_of_card(session, holder.card_id) == []
        with pytest.raises(NotFound):
            await refunds.get_own(session, new_id(services.clock()), refund_id)
    assert await _state(services, recharge_id) == ("refunded", 500)
    assert not await broken(services)


async def test_what_a_provider_gives_up_is_back_on_the_card_and_can_be_asked_again(
    services: Services,
) -> None:
    holder, recharge_id = await _holder(services)
    first_id, _ = await _ask(services, holder, recharge_id, amount_fen=100)
    second_id, _ = await _ask(services, holder, recharge_id, amount_fen=400)
    assert await _state(services, recharge_id) == ("refunded", 500)
    told = (provider_says(services, second_id, "failed") for _ in range(20))
    assert all(await asyncio.gather(*told))
    assert await balance_fen(services, holder) == 400
    assert await _state(services, recharge_id) == ("partly_refunded", 100)
    assert not await broken(services)
    await provider_says(services, first_id, "closed")
    assert await _state(services, recharge_id) == ("succeeded", 0)
    assert await balance_fen(services, holder) == 500
    assert not await broken(services)
    again_id, _ = await _ask(services, holder, recharge_id, amount_fen=None)
    assert await provider_says(services, again_id, "succeeded")
    assert await balance_fen(services, holder) == 0
    assert not await broken(services)


async def test_a_refund_is_sent_at_once_and_again_until_it_is_done(
    services: Services, clock: SetClock
) -> None:
    holder, recharge_id = await _holder(services)
    refund_id, _ = await _ask(services, holder, recharge_id, amount_fen=100)
    with pytest.raises(InsufficientBalance):
        await _ask(services, holder, recharge_id, amount_fen=500)
    rows = await services.db.pool.fetch("SELECT args FROM procrastinate_jobs")
    assert [row["args"] for row in rows] == [f'{{"refund_id": "{refund_id}"}}']
    due = []
    for seconds in (4, 1, 29, 1, 299, 1, 3_599, 1, 3_599, 1):
        clock.go(seconds=seconds)
        async with services.db.begin() as session:
            due.append(await refunds.take_due(session, now=clock()) == [refund_id])
    assert due == [False, True] * 5
    await provider_says(services, refund_id, "succeeded")
    clock.go(days=1)
    async with services.db.begin() as session:
        assert await refunds.take_due(session, now=clock()) == []
