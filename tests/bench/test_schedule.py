"""Every use of a card is a new slot that the server takes, or the plan is refused."""

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.open_loop import percentile
from bench.schedule import LATE_SECONDS_MAX, TooFewCards, plan, plan_soon, slot_at
from wallet.codes.verifier import ONLINE_SLOTS

STARTS = st.floats(min_value=1.7e9, max_value=1.9e9)


@given(
    start_unix=STARTS,
    rate=st.floats(min_value=0.5, max_value=500),
    calls=st.integers(min_value=1, max_value=400),
    cards=st.integers(min_value=1, max_value=200),
)
def test_slots_only_rise_and_are_taken_even_when_late(
    start_unix: float, rate: float, calls: int, cards: int
) -> None:
    try:
        uses = plan(start_unix=start_unix, rate=rate, calls=calls, cards=cards, last_slots={})
    except TooFewCards:
        assert calls > cards
        return
    shown = defaultdict(list)
    for number, use in enumerate(uses):
        assert use.due_seconds == number / rate
        shown[use.card].append(use.slot)
        for late_seconds in (0.0, LATE_SECONDS_MAX):
            slot_of_server = slot_at(start_unix + use.due_seconds + late_seconds)
            assert abs(use.slot - slot_of_server) <= ONLINE_SLOTS
    assert all(slots == sorted(set(slots)) for slots in shown.values())
    assert len(uses) == calls


def test_a_card_used_before_goes_on_after_its_last_slot() -> None:
    start_unix = 1_800_000_000.0
    before = {0: slot_at(start_unix) + 1}
    (use,) = plan(start_unix=start_unix, rate=1, calls=1, cards=1, last_slots=before)
    assert use.slot == slot_at(start_unix) + 2


def test_it_waits_for_a_later_slot_rather_than_give_up() -> None:
    start_unix = 1_800_000_000.0
    before = {0: slot_at(start_unix) + ONLINE_SLOTS}
    later, (use,) = plan_soon(after_unix=start_unix, rate=1, calls=1, cards=1, last_slots=before)
    assert later > start_unix
    assert use.slot == before[0] + 1


def test_one_card_cannot_carry_a_whole_run() -> None:
    with pytest.raises(TooFewCards):
        plan_soon(after_unix=1_800_000_000.0, rate=100, calls=1000, cards=1, last_slots={})


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 50), (0.99, 99), (0.999, 100), (1.0, 100), (0.001, 1)]
)
def test_percentile_is_a_value_that_was_seen(share: float, expected: float) -> None:
    assert percentile([float(number) for number in range(1, 101)], share) == expected
