"""Recharge refunds: never more than came in, never what was spent, out of reach while under way."""

import asyncio
import secrets
from collections import Counter
from uuid import UUID

import pytest

from api.commands.making import make_recharge
from api.services import Services
from identity.kernel import NotFound, new_id
from identity.request_numbers import Claim, request_hash
from tests.makers import Holder, make_holder, make_shop
from tests.wallet.verbs import balance_fen, broken, show, take
from wallet.cards import cards
from wallet.cards.cards import CardNotActive
from wallet.channels.channel import RefundFound
from wallet.ledger import accounts
from wallet.ledger.chart import Kind
from wallet.ledger.transfers import InsufficientBalance
from wallet.recharge import refunds
from wallet.recharge.recharges import Recharge
from wallet.recharge.refunds import NotRefundable, Purse, RechargeRefund


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
    key, now = key or secrets.token_hex(8), services.clock()
    async with services.db.begin() as session:
        payable_id = await accounts.account_id(session, Kind.REFUND_PAYABLE)
    return await refunds.ask(
        services.poster,
        claim=Claim(
            "citizen.refund",
            holder.citizen_id,
            key,
            request_hash(recharge_id, amount_fen),
            new_id(now),
        ),
        purse=Purse(holder.card_id, holder.principal_id, payable_id),
        recharge_id=recharge_id,
        amount_fen=amount_fen,
        reason="不用了",
        now=now,
    )


async def _finish(services: Services, refund_id: UUID, *, state: str = "succeeded") -> bool:
    async with services.db.begin() as session:
        refund = await session.get_one(RechargeRefund, refund_id)
        payable_id = await accounts.account_id(session, Kind.REFUND_PAYABLE)
        clearing_id = await accounts.account_id(session, Kind.CLEARING_WECHAT_PAY)
    found = RefundFound(
        out_trade_no="RC",
        out_refund_no=refund.refund_no,
        state="succeeded" if state == "succeeded" else "processing",
        amount_fen=refund.amount_fen,
    )
    return await refunds.finish(
        services.poster,
        refund,
        found,
        payable_id=payable_id,
        clearing_id=clearing_id,
        now=services.clock(),
    )


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
    taken, *asked = await asyncio.gather(
        take(services, shop, code, amount_fen=300),
        *(_ask(services, holder, recharge_id, amount_fen=100) for _ in range(5)),
        return_exceptions=True,
    )
    assert isinstance(taken, tuple)
    is_paid = taken[0].state == "succeeded"
    assert [type(one) for one in asked].count(tuple) == (2 if is_paid else 5)
    assert await balance_fen(services, holder) == 0
    assert not await broken(services)


@pytest.mark.parametrize("amount_fen", [0, -1, 501])
async def test_no_more_than_is_left_and_no_less_than_a_fen(
    services: Services, amount_fen: int
) -> None:
    holder, recharge_id = await _holder(services)
    await _recharged(services, holder, amount_fen=900)
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
    assert not await _finish(services, refund_id, state="processing")
    assert not await broken(services)
    assert all(await asyncio.gather(*(_finish(services, refund_id) for _ in range(20))))
    async with services.db.begin() as session:
        own = await refunds.get_own(session, holder.card_id, refund_id)
        assert (own.state, own.amount_fen) == ("succeeded", 500)
        assert await refunds.unfinished_of_card(session, holder.card_id) == []
        with pytest.raises(NotFound):
            await refunds.get_own(session, new_id(services.clock()), refund_id)
    assert await _state(services, recharge_id) == ("refunded", 500)
    assert not await broken(services)


async def test_a_job_sends_the_refund_once_it_is_asked_for(services: Services) -> None:
    holder, recharge_id = await _holder(services)
    refund_id, _ = await _ask(services, holder, recharge_id, amount_fen=100)
    with pytest.raises(InsufficientBalance):
        await _ask(services, holder, recharge_id, amount_fen=500)
    rows = await services.db.pool.fetch(
        "SELECT args FROM procrastinate_jobs WHERE task_name = 'wallet.fulfilment:send_refund'"
    )
    assert [row["args"] for row in rows] == [f'{{"refund_id": "{refund_id}"}}']
