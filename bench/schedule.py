"""Which card is scanned when, and in which slot it is then (排程): pure.

A code is good for one use, and the next use of its card needs a later slot, within two of the
server's own. So a card is used at most a few times, and every use is planned before the first.
Slots are counted from the epoch; windows begin at multiples of a slot, so that differs from the
phone's own numbers by a constant.
"""

from collections.abc import Mapping
from typing import NamedTuple

from wallet.codes.credentials import SLOT_SECONDS
from wallet.codes.verifier import ONLINE_SLOTS

LATE_SECONDS_MAX = 3.0
"""How late a request may be answered with its code still of a slot that the server takes."""


class Use(NamedTuple):
    """One request: which card, in which slot, and when it is due, in seconds after the first."""

    card: int
    slot: int
    due_seconds: float


class TooFewCards(ValueError):
    """The cards cannot show that many distinct codes in that time."""


def plan(
    *, start_unix: float, rate: float, calls: int, cards: int, last_slots: Mapping[int, int]
) -> list[Use]:
    """Return what is sent when, the cards in turn.

    Args:
        start_unix: when the first request is due.
        rate: requests per second.
        calls: how many requests.
        cards: how many cards there are.
        last_slots: the slot that a card showed last, of the cards used before.

    Raises:
        TooFewCards: a card would have to show a slot too far ahead.
    """
    last = dict(last_slots)
    uses = []
    for number in range(calls):
        card, due_seconds = number % cards, number / rate
        due_unix = start_unix + due_seconds
        earliest = slot_at(due_unix + LATE_SECONDS_MAX) - ONLINE_SLOTS
        slot = max(earliest, last.get(card, 0) + 1)
        if slot > slot_at(due_unix) + ONLINE_SLOTS:
            raise TooFewCards(f"{cards} cards are too few for {calls} calls at {rate:g}/s")
        last[card] = slot
        uses.append(Use(card, slot, due_seconds))
    return uses


def plan_soon(
    *, after_unix: float, rate: float, calls: int, cards: int, last_slots: Mapping[int, int]
) -> tuple[float, list[Use]]:
    """Return the first start after an instant at which the cards suffice, and its plan.

    Raises:
        TooFewCards: they do not suffice whenever it starts.
    """
    for start_unix in starts(after_unix):
        try:
            uses = plan(
                start_unix=start_unix, rate=rate, calls=calls, cards=cards, last_slots=last_slots
            )
        except TooFewCards as refused:
            problem = refused
        else:
            return start_unix, uses
    raise problem


def starts(after_unix: float) -> list[float]:
    """Return an instant, and the beginnings of the slots after it."""
    first = slot_at(after_unix) + 1
    return [after_unix, *(float((first + step) * SLOT_SECONDS) for step in range(ONLINE_SLOTS + 3))]


def slot_at(unix: float) -> int:
    """Return the slot of an instant."""
    return int(unix) // SLOT_SECONDS
