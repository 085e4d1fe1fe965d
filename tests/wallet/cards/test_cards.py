"""Cards: one living card per holder, stopped at once by a loss, whole again after a reissue."""

import asyncio
from datetime import timedelta

import pytest

from api.services import Services
from identity.kernel import NotFound, StateConflict
from identity.people.real_names import RealNameRequired
from tests.conftest import SetClock
from tests.makers import Holder, make_citizen, make_gate, make_holder, make_pass_type, make_shop
from tests.wallet.verbs import balance_fen, broken, buy, enter, show, take, with_another_phone
from wallet.cards import cards, media
from wallet.cards.cards import TAKE_BACK_WITHIN, Card, CardExists, TakeBackTooLate
from wallet.codes.reasons import Reason


async def _lose(services: Services, holder: Holder) -> Card:
    async with services.db.begin() as session:
        return await cards.report_loss(
            session, holder.citizen_id, holder.card_id, now=services.clock()
        )


async def _take_back(services: Services, holder: Holder) -> Card:
    async with services.db.begin() as session:
        return await cards.take_back_loss(
            session, holder.citizen_id, holder.card_id, now=services.clock()
        )


async def _reissue(services: Services, holder: Holder) -> Card:
    async with services.db.begin() as session:
        return await cards.reissue(session, holder.citizen_id, holder.card_id, now=services.clock())


async def _charged(services: Services, holder: Holder) -> int:
    """Return the reason that a charge of one fen gets now."""
    shop = await make_shop(services)
    charge, _ = await take(services, shop, await show(services, holder), amount_fen=1)
    return charge.reason


async def test_a_lost_card_pays_nothing_also_with_a_code_judged_before(
    services: Services,
) -> None:
    holder, shop = await make_holder(services, balance_fen=500), await make_shop(services)
    judged_before = await show(services, holder)
    assert judged_before.reason == Reason.OK
    await _lose(services, holder)
    charge, _ = await take(services, shop, judged_before, amount_fen=1)
    assert (charge.state, charge.reason) == ("declined", Reason.LOST)
    assert await _charged(services, holder) == Reason.LOST
    assert (await _lose(services, holder)).state == "lost"
    assert await balance_fen(services, holder) == 500
    assert not await broken(services)


async def test_a_loss_and_charges_at_once_come_one_after_the_other(services: Services) -> None:
    holder, shop = await make_holder(services, balance_fen=500), await make_shop(services)
    code = await show(services, holder)
    (charge, _), card = await asyncio.gather(
        take(services, shop, code, amount_fen=1), _lose(services, holder)
    )
    assert card.state == "lost"
    assert charge.reason in {Reason.OK, Reason.LOST}
    assert await balance_fen(services, holder) == 500 - (charge.reason == Reason.OK)
    assert not await broken(services)


async def test_a_loss_can_be_taken_back_for_fifteen_days(
    services: Services, clock: SetClock
) -> None:
    holder = await make_holder(services, balance_fen=500)
    for days in (0, 15):
        await _lose(services, holder)
        clock.go(days=days)
        assert (await _take_back(services, holder)).state == "active"
    with pytest.raises(StateConflict):
        await _take_back(services, holder)
    await _lose(services, holder)
    clock.now += TAKE_BACK_WITHIN + timedelta(seconds=1)
    with pytest.raises(TakeBackTooLate):
        await _take_back(services, holder)
    # What is left is a new handle for the same card.
    assert (await _reissue(services, holder)).state == "active"
    holder = await with_another_phone(services, holder)
    assert await _charged(services, holder) == Reason.OK
    assert not await broken(services)


async def test_a_taken_back_card_works_with_its_old_phone(services: Services) -> None:
    holder = await make_holder(services, balance_fen=500)
    await _lose(services, holder)
    await _take_back(services, holder)
    assert await _charged(services, holder) == Reason.OK


async def test_a_reissued_card_keeps_money_and_passes_and_kills_the_old_handle(
    services: Services, clock: SetClock
) -> None:
    holder, gate = await make_holder(services, balance_fen=5_000), await make_gate(services)
    await buy(services, holder, await make_pass_type(services, [gate.park.id], price_fen=1_000))
    async with services.db.begin() as session:
        old = await media.active(session, holder.card_id)
    await _lose(services, holder)
    await _reissue(services, holder)
    async with services.db.begin() as session:
        new = await media.active(session, holder.card_id)
    assert (new.gen, new.device_id) == (0, None)
    assert new.handle != old.handle
    assert new.card_no != old.card_no
    clock.go(seconds=15)
    assert await _charged(services, holder) == Reason.LOST
    assert (await enter(services, gate, holder)).reason == Reason.LOST
    renewed = await with_another_phone(services, holder)
    assert await balance_fen(services, renewed) == 4_000
    assert await _charged(services, renewed) == Reason.OK
    clock.go(seconds=15)
    assert (await enter(services, gate, renewed)).reason == Reason.OK
    assert not await broken(services)


async def test_a_code_judged_before_a_reissue_or_another_phone_pays_nothing_after(
    services: Services,
) -> None:
    holder, shop = await make_holder(services, balance_fen=500), await make_shop(services)
    first = await show(services, holder)
    holder = await with_another_phone(services, holder)
    second = await show(services, holder)
    await _reissue(services, holder)
    reasons = []
    for code in (first, second):
        assert code.reason == Reason.OK
        charge, _ = await take(services, shop, code, amount_fen=1)
        reasons.append(charge.reason)
    # The handle went after the phone did; whichever is told, nothing is paid.
    assert reasons == [Reason.LOST, Reason.LOST]
    assert await balance_fen(services, holder) == 500
    assert not await broken(services)


async def test_a_card_is_issued_once_to_a_verified_person(services: Services) -> None:
    unverified = await make_citizen(services, is_verified=False)
    verified = await make_citizen(services)

    async def issue() -> Card:
        async with services.db.begin() as session:
            return await cards.issue(session, verified, card_type="standard", now=services.clock())

    async with services.db.begin() as session:
        with pytest.raises(RealNameRequired):
            await cards.issue(session, unverified, card_type="standard", now=services.clock())
    told = await asyncio.gather(*(issue() for _ in range(8)), return_exceptions=True)
    assert sorted(type(one).__name__ for one in told) == ["Card"] + ["CardExists"] * 7
    assert any(isinstance(one, CardExists) for one in told)
    async with services.db.begin() as session:
        assert len(await cards.list_own(session, verified)) == 1
    assert not await broken(services)


async def test_a_card_is_nobody_elses(services: Services) -> None:
    holder, stranger = await make_holder(services), await make_citizen(services)
    for verb in (cards.report_loss, cards.take_back_loss, cards.reissue):
        async with services.db.begin() as session:
            with pytest.raises(NotFound):
                await verb(session, stranger, holder.card_id, now=services.clock())
    async with services.db.begin() as session:
        with pytest.raises(NotFound):
            await cards.get_own(session, stranger, holder.card_id)
