"""May this card enter now: the rule alone, on values."""

from datetime import date, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wallet.admission.rules import HeldPass, May, may_enter
from wallet.codes.reasons import Reason

PARK, OTHER_PARK = UUID(int=1), UUID(int=2)
TODAY = date(2026, 11, 22)
DAY = timedelta(days=1)
GOOD = HeldPass(UUID(int=7), "active", TODAY, TODAY, frozenset({PARK}), 2, 0)

held_passes = st.builds(
    HeldPass,
    id=st.uuids(),
    state=st.sampled_from(["active", "refunded"]),
    valid_from_on=st.sampled_from([TODAY - DAY, TODAY, TODAY + DAY]),
    valid_until_on=st.sampled_from([TODAY - DAY, TODAY, TODAY + DAY]),
    park_ids=st.frozensets(st.sampled_from([PARK, OTHER_PARK])),
    entries_per_park_and_day=st.integers(1, 3),
    entries_today=st.integers(0, 4),
)


def _may(*held: HeldPass, is_open: bool = True) -> May:
    return may_enter(held, park_id=PARK, is_open=is_open, today=TODAY)


@pytest.mark.parametrize(
    ("held", "reason"),
    [
        (GOOD, Reason.OK),
        (GOOD._replace(valid_from_on=TODAY - 364 * DAY), Reason.OK),
        (GOOD._replace(valid_until_on=TODAY + DAY), Reason.OK),
        (GOOD._replace(entries_today=1), Reason.OK),
        (GOOD._replace(valid_from_on=TODAY + DAY, valid_until_on=TODAY + DAY), 503),
        (GOOD._replace(valid_from_on=TODAY - DAY, valid_until_on=TODAY - DAY), 503),
        (GOOD._replace(state="refunded"), 503),
        (GOOD._replace(park_ids=frozenset({OTHER_PARK})), 502),
        (GOOD._replace(park_ids=frozenset()), 502),
        (GOOD._replace(entries_today=2), 504),
        (GOOD._replace(entries_today=3), 504),
    ],
)
def test_a_pass_opens_its_parks_on_its_days_as_often_as_it_says(
    held: HeldPass, reason: int
) -> None:
    assert _may(held).reason == reason


def test_without_a_pass_nobody_enters_and_a_closed_park_says_so_first() -> None:
    assert _may().reason == Reason.NOT_ENTITLED
    assert _may(is_open=False).reason == _may(GOOD, is_open=False).reason == Reason.CLOSED_NOW


def test_the_pass_that_ends_soonest_is_used_and_the_entries_left_are_said() -> None:
    longer = GOOD._replace(id=UUID(int=3), valid_until_on=TODAY + DAY)
    assert _may(longer, GOOD) == May(Reason.OK, GOOD.id, 1)
    used_up = GOOD._replace(entries_today=2)
    assert _may(longer, used_up) == May(Reason.OK, longer.id, 1)


@given(st.lists(held_passes, max_size=4, unique_by=lambda held: held.id))
def test_the_answer_is_yes_exactly_where_one_of_the_passes_would_do(held: list[HeldPass]) -> None:
    good = {
        one.id
        for one in held
        if one.state == "active" and PARK in one.park_ids
        if one.valid_from_on <= TODAY <= one.valid_until_on
        if one.entries_today < one.entries_per_park_and_day
    }
    may = _may(*held)
    assert (may.reason == Reason.OK) == bool(good)
    assert (may.pass_id in good) if good else may.pass_id is None
    assert _may(*held[::-1]) == may
