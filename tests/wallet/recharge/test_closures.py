"""Closures: every fen goes back where it came from, newest recharge first, then the card ends."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from api.commands.making import make_recharge
from api.services import Services
from identity.kernel import NotFound, StateConflict, new_id
from tests.conftest import SetClock
from tests.makers import Holder, make_holder, make_shop
from tests.wallet.recharge.paying_back import ask_back, provider_says
from tests.wallet.verbs import balance_fen, broken, give_back, show, take
from wallet import fulfilment
from wallet.cards import cards
from wallet.cards.cards import Card, CardExists
from wallet.recharge import closures
from wallet.recharge.closures import NeedsCounter, RechargeOpen, split
from wallet.recharge.refunds import Part, RechargeRefund

reaches = st.lists(
    st.tuples(st.uuids(), st.integers(1, 500)), max_size=5, unique_by=lambda reach: reach[0]
)


@given(st.integers(0, 1_500), reaches)
def test_a_balance_goes_back_whole_in_order_or_not_at_all(
    balance: int, left: list[tuple[UUID, int]]
) -> None:
    reach = dict(left)
    if balance > sum(reach.values()):
        with pytest.raises(NeedsCounter) as refused:
            split(balance, left)
        assert refused.value.facts == {"left_fen": balance - sum(reach.values())}
        return
    parts = split(balance, left)
    assert sum(part.amount_fen for part in parts) == balance
    assert [part.recharge_id for part in parts] == [one for one, _ in left][: len(parts)]
    assert all(0 < part.amount_fen <= reach[part.recharge_id] for part in parts)
    assert all(part.amount_fen == reach[part.recharge_id] for part in parts[:-1])


async def _recharged(
    services: Services, holder: Holder, clock: SetClock, *amounts: int
) -> list[UUID]:
    made = []
    for amount_fen in amounts:
        clock.go(seconds=1)
        recharge_id, _ = await make_recharge(
            services, holder.citizen_id, holder.card_id, amount_fen=amount_fen
        )
        made.append(recharge_id)
    return made


async def _begin(services: Services, holder: Holder) -> Card:
    async with services.db.begin() as session:
        return await closures.begin(
            session, holder.citizen_id, holder.card_id, now=services.clock()
        )


async def _pay_out(services: Services, holder: Holder) -> list[RechargeRefund]:
    """Return the refunds of a closing card, the smallest first."""
    now = services.clock()
    async with services.db.begin() as session:
        purse = await fulfilment.purse_of(session, holder.card_id)
    await closures.pay_out(services.db, services.poster, purse, now=now)
    query = select(RechargeRefund).where(RechargeRefund.card_id == holder.card_id)
    async with services.db.begin() as session:
        return list(await session.scalars(query.order_by(RechargeRefund.amount_fen)))


async def _finish(services: Services, refund: RechargeRefund) -> str:
    """Let the provider pay a refund out; return the card's state after it."""
    assert await provider_says(services, refund.id, "succeeded")
    async with services.db.begin() as session:
        return (await session.get_one(Card, refund.card_id)).state


async def test_a_card_closes_when_the_last_fen_has_arrived(
    services: Services, clock: SetClock
) -> None:
    holder, shop = await make_holder(services), await make_shop(services)
    _, middle, newest = await _recharged(services, holder, clock, 1_000, 300, 200)
    clock.go(seconds=15)
    await take(services, shop, await show(services, holder), amount_fen=1_100)
    assert (await _begin(services, holder)).state == "closing"
    assert not await broken(services)
    # Asking again, and paying out again, finds it done.
    assert (await _begin(services, holder)).state == "closing"
    for _ in range(2):
        parts = await _pay_out(services, holder)
    # 400 are left: the newest recharge gets its 200 back, the one before it the rest.
    assert {Part(part.recharge_id, part.amount_fen) for part in parts} == {
        Part(newest, 200),
        Part(middle, 200),
    }
    assert await balance_fen(services, holder) == 0
    assert await _finish(services, parts[0]) == "closing"
    assert not await broken(services)
    assert await _finish(services, parts[1]) == "closed"
    assert not await broken(services)
    async with services.db.begin() as session:
        with pytest.raises(StateConflict):
            await cards.reissue(session, holder.citizen_id, holder.card_id, now=clock())
    assert (await _begin(services, holder)).state == "closed"
    async with services.db.begin() as session:
        # And the holder may have a new one.
        await cards.issue(session, holder.citizen_id, card_type="standard", now=clock())


async def test_an_empty_card_closes_at_once(services: Services) -> None:
    holder = await make_holder(services)
    await _begin(services, holder)
    assert await _pay_out(services, holder) == []
    await closures.finish(services.db, holder.card_id, now=services.clock())
    async with services.db.begin() as session:
        assert (await session.get_one(Card, holder.card_id)).state == "closed"
    assert not await broken(services)


async def test_what_cannot_go_back_the_way_it_came_is_refused_before_anything_changes(
    services: Services, clock: SetClock
) -> None:
    holder, shop = await make_holder(services), await make_shop(services)
    (recharge_id,) = await _recharged(services, holder, clock, 500)
    clock.go(seconds=15)
    charge, _ = await take(services, shop, await show(services, holder), amount_fen=400)
    await ask_back(services, holder.card_id, recharge_id, amount_fen=100)
    await give_back(services, shop, holder, charge.id, amount_fen=400)
    # A year later no channel takes anything back.
    clock.go(days=366)
    with pytest.raises(NeedsCounter) as refused:
        await _begin(services, holder)
    assert refused.value.facts == {"left_fen": 400}
    async with services.db.begin() as session:
        card = await session.get_one(Card, holder.card_id)
    assert (card.state, card.closed_at) == ("active", None)
    assert not await broken(services)


async def test_a_card_with_an_open_recharge_or_of_somebody_else_does_not_close(
    services: Services,
) -> None:
    holder = await make_holder(services)
    await make_recharge(services, holder.citizen_id, holder.card_id, amount_fen=100, is_paid=False)
    with pytest.raises(RechargeOpen):
        await _begin(services, holder)
    stranger = holder._replace(citizen_id=new_id(services.clock()))
    with pytest.raises(NotFound):
        await _begin(services, stranger)
    async with services.db.begin() as session:
        with pytest.raises(CardExists):
            await cards.issue(
                session, holder.citizen_id, card_type="standard", now=services.clock()
            )


async def test_a_lost_card_can_be_closed_and_its_money_goes_back(
    services: Services, clock: SetClock
) -> None:
    holder = await make_holder(services)
    await _recharged(services, holder, clock, 500)
    async with services.db.begin() as session:
        await cards.report_loss(session, holder.citizen_id, holder.card_id, now=clock())
    await _begin(services, holder)
    (part,) = await _pay_out(services, holder)
    assert await _finish(services, part) == "closed"
    assert not await broken(services)


async def test_a_closing_card_whose_refund_fails_keeps_the_money_and_stays_closing(
    services: Services, clock: SetClock
) -> None:
    holder = await make_holder(services)
    await _recharged(services, holder, clock, 500)
    await _begin(services, holder)
    (part,) = await _pay_out(services, holder)
    assert await provider_says(services, part.id, "failed")
    # Nothing is sent again by itself: people of ours see to it (docs/channels.md).
    assert len(await _pay_out(services, holder)) == 1
    async with services.db.begin() as session:
        assert (await session.get_one(Card, holder.card_id)).state == "closing"
        assert await closures.closing(session) == [holder.card_id]
    assert await balance_fen(services, holder) == 500
    assert not await broken(services)
