"""Media: a card's handle and number, and the phones that take it over, in generations."""

import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.services import Services
from tests.conftest import SetClock
from tests.makers import Holder, make_holder, make_shop
from tests.wallet.verbs import show, take, with_another_phone
from wallet.cards import media
from wallet.cards.media import CARD_NO_DIGITS, Medium, TooManyPhones, luhn_digit, new_card_no
from wallet.codes.reasons import Reason


async def _bind(services: Services, holder: Holder, device_id: str) -> tuple[Medium, bool]:
    async with services.db.begin() as session:
        medium = await media.active(session, holder.card_id, for_update=True)
        is_another = await media.bind_phone(
            session, medium, device_id=device_id, model="demo", now=services.clock()
        )
    return medium, is_another


async def test_a_new_phone_ends_the_codes_of_the_one_before(
    services: Services, clock: SetClock
) -> None:
    first, shop = await make_holder(services, balance_fen=500), await make_shop(services)
    judged_before = await show(services, first)
    assert judged_before.reason == Reason.OK
    second = await with_another_phone(services, first)
    too_late, _ = await take(services, shop, judged_before, amount_fen=1)
    assert too_late.reason == Reason.PHONE_REPLACED
    stale, _ = await take(services, shop, await show(services, first), amount_fen=1)
    good, _ = await take(services, shop, await show(services, second), amount_fen=1)
    assert (stale.reason, good.reason) == (Reason.PHONE_REPLACED, Reason.OK)
    assert (stale.card_id, stale.state) == (first.card_id, "declined")


async def test_the_same_phone_again_is_no_change(services: Services) -> None:
    holder, device_id = await make_holder(services), secrets.token_hex(8)
    changed, is_another = await _bind(services, holder, device_id)
    same, is_another_again = await _bind(services, holder, device_id)
    assert (changed.gen, same.gen) == (2, 2)
    assert (is_another, is_another_again) == (True, False)
    assert not media.is_another_phone(same, device_id)
    assert media.is_another_phone(same, "another")


async def test_a_card_changes_phones_three_times_in_thirty_days(
    services: Services, clock: SetClock
) -> None:
    holder = await make_holder(services)
    for _ in range(3):
        clock.go(days=1)
        await _bind(services, holder, secrets.token_hex(8))
    with pytest.raises(TooManyPhones):
        await _bind(services, holder, "phone-5")
    clock.go(days=27)
    with pytest.raises(TooManyPhones):
        await _bind(services, holder, "phone-5")
    # The first change is thirty days ago now, and counts no more; the second still does.
    clock.go(days=1)
    medium, _ = await _bind(services, holder, "phone-5")
    assert medium.gen == 5
    with pytest.raises(TooManyPhones):
        await _bind(services, holder, "phone-6")


async def test_a_reissued_card_takes_a_phone_whatever_was_changed_before(
    services: Services,
) -> None:
    holder = await make_holder(services)
    for _ in range(3):
        await _bind(services, holder, secrets.token_hex(8))
    async with services.db.begin() as session:
        await media.replace(session, holder.card_id, now=services.clock())
    medium, _ = await _bind(services, holder, secrets.token_hex(8))
    assert medium.gen == 1
    with pytest.raises(TooManyPhones):
        await _bind(services, holder, secrets.token_hex(8))


async def test_there_is_no_generation_after_the_last(services: Services) -> None:
    holder = await make_holder(services)
    await services.db.pool.execute("UPDATE cards_medium SET gen = 254")
    with pytest.raises(TooManyPhones):
        await _bind(services, holder, secrets.token_hex(8))


def _luhn_holds(number: str) -> bool:
    """Check a number as the standard says it: from the right, every second digit doubled."""
    total = 0
    for place, digit in enumerate(map(int, reversed(number))):
        doubled = digit * 2 if place % 2 else digit
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0


def test_card_numbers_check_themselves_and_differ() -> None:
    numbers = [new_card_no() for _ in range(500)]
    assert all(len(number) == CARD_NO_DIGITS and number[0] != "0" for number in numbers)
    assert all(_luhn_holds(number) for number in numbers)
    assert len(set(numbers)) == 500


@given(st.lists(st.integers(0, 9), min_size=1, max_size=18), st.data())
def test_one_wrong_digit_is_found(digits: list[int], data: st.DataObject) -> None:
    number = [*digits, luhn_digit(digits)]
    assert _luhn_holds("".join(map(str, number)))
    place = data.draw(st.integers(0, len(number) - 1))
    number[place] = (number[place] + data.draw(st.integers(1, 9))) % 10
    assert not _luhn_holds("".join(map(str, number)))
