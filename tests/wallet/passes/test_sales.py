"""Passes sold from the balance: once per key, for the card's own money, dated by Shanghai."""

import asyncio
import secrets
from collections import Counter
from datetime import UTC, date, datetime

import pytest

from api.services import Services
from identity.kernel import NotFound
from identity.request_numbers import RequestNumberReused
from tests.conftest import SetClock
from tests.makers import make_holder, make_pass_type
from tests.wallet.verbs import account_fen, balance_fen, broken, buy
from wallet.cards import cards
from wallet.cards.cards import CardNotActive
from wallet.ledger.transfers import InsufficientBalance
from wallet.passes import pass_types, passes
from wallet.passes.pass_types import last_day
from wallet.passes.passes import Pass


async def test_fifty_purchases_at_once_of_money_for_ten_succeed_ten_times(
    services: Services,
) -> None:
    holder = await make_holder(services, balance_fen=10_999)
    pass_type = await make_pass_type(services, [], price_fen=1_000)
    told = await asyncio.gather(
        *(buy(services, holder, pass_type) for _ in range(50)), return_exceptions=True
    )
    assert Counter(map(type, told)) == {tuple: 10, InsufficientBalance: 40}
    assert {one.facts["missing_fen"] for one in told if isinstance(one, InsufficientBalance)} == {1}
    assert await balance_fen(services, holder) == 999
    assert await account_fen(services, pass_type[1]) == 10_000
    async with services.db.begin() as session:
        sold = await passes.of_card(session, holder.card_id)
    assert len(sold) == len({one.pass_no for one in sold}) == 10
    assert not await broken(services)


async def test_fifty_equal_purchases_at_once_sell_one_pass(services: Services) -> None:
    holder = await make_holder(services, balance_fen=10_000)
    pass_type, key = await make_pass_type(services, []), secrets.token_hex(8)
    told = await asyncio.gather(*(buy(services, holder, pass_type, key=key) for _ in range(50)))
    assert len({sold.id for sold, _ in told}) == 1
    assert [is_new for _, is_new in told].count(True) == 1
    assert await balance_fen(services, holder) == 9_000
    assert not await broken(services)


async def test_a_key_serves_for_one_pass_type_and_a_refusal_stays(services: Services) -> None:
    holder = await make_holder(services, balance_fen=1_500)
    cheap = await make_pass_type(services, [], price_fen=1_000)
    dear = await make_pass_type(services, [], price_fen=2_000)
    await buy(services, holder, cheap, key="key0000000000001")
    with pytest.raises(RequestNumberReused):
        await buy(services, holder, dear, key="key0000000000001")
    for _ in range(2):
        with pytest.raises(InsufficientBalance) as refused:
            await buy(services, holder, dear, key="key0000000000002")
    assert refused.value.is_replayed
    assert refused.value.facts == {"missing_fen": 1_500}
    assert await balance_fen(services, holder) == 500
    assert not await broken(services)


async def test_a_lost_card_buys_nothing_and_a_free_pass_moves_nothing(
    services: Services,
) -> None:
    holder = await make_holder(services, balance_fen=1_500)
    free = await make_pass_type(services, [], price_fen=0)
    sold, _ = await buy(services, holder, free)
    assert (sold.price_fen, await balance_fen(services, holder)) == (0, 1_500)
    async with services.db.begin() as session:
        await cards.report_loss(session, holder.citizen_id, holder.card_id, now=services.clock())
    with pytest.raises(CardNotActive):
        await buy(services, holder, free)
    assert not await broken(services)


async def test_a_pass_is_valid_from_the_day_in_shanghai_on_which_it_is_bought(
    services: Services, clock: SetClock
) -> None:
    holder = await make_holder(services, balance_fen=10_000)
    pass_type = await make_pass_type(services, [], valid_days=365)
    bought: list[Pass] = []
    for clock.now in (
        datetime(2026, 11, 22, 15, 59, 59, tzinfo=UTC),
        datetime(2026, 11, 22, 16, 0, 0, tzinfo=UTC),
    ):
        bought.append((await buy(services, holder, pass_type))[0])
    assert [(one.valid_from_on, one.valid_until_on) for one in bought] == [
        (date(2026, 11, 22), date(2027, 11, 21)),
        (date(2026, 11, 23), date(2027, 11, 22)),
    ]


async def test_a_withdrawn_type_is_not_sold_and_what_was_sold_stays(services: Services) -> None:
    holder = await make_holder(services, balance_fen=10_000)
    pass_type = await make_pass_type(services, [])
    await buy(services, holder, pass_type)
    await services.db.pool.execute("UPDATE passes_pass_type SET state = 'withdrawn'")
    async with services.db.begin() as session:
        assert await pass_types.on_sale(session) == []
        with pytest.raises(NotFound):
            await pass_types.get_on_sale(session, pass_type[0].id)
        (kept,) = await passes.of_card(session, holder.card_id)
    assert kept.state == "active"


@pytest.mark.parametrize(
    ("first_on", "days", "last_on"),
    [
        (date(2026, 11, 22), 1, date(2026, 11, 22)),
        (date(2027, 2, 28), 2, date(2027, 3, 1)),
        (date(2028, 2, 28), 2, date(2028, 2, 29)),
        (date(2027, 12, 31), 366, date(2028, 12, 30)),
    ],
)
def test_the_first_day_counts(first_on: date, days: int, last_on: date) -> None:
    assert last_day(first_on, days) == last_on
