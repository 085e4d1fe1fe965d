"""May this card enter now (入园规则): pure, on values. Reason numbers are code-format.md §5."""

from collections.abc import Sequence
from datetime import date
from typing import NamedTuple
from uuid import UUID

from wallet.codes.reasons import Reason


class HeldPass(NamedTuple):
    """A pass as the rule sees it."""

    id: UUID
    state: str
    valid_from_on: date
    valid_until_on: date
    park_ids: frozenset[UUID]
    entries_per_park_and_day: int
    entries_today: int
    """At this park, before this admission."""


class May(NamedTuple):
    """What the rule says: 0 and the pass that is used, or a reason."""

    reason: Reason
    pass_id: UUID | None = None
    left: int | None = None
    """Entries left at this park today, after this one."""


def may_enter(passes: Sequence[HeldPass], *, park_id: UUID, is_open: bool, today: date) -> May:
    """Return which pass opens the park now, or the reason that comes nearest to opening it.

    Of several good passes, the one that ends soonest is used, so that the longer one lasts.
    """
    if not is_open:
        return May(Reason.CLOSED_NOW)
    if not passes:
        return May(Reason.NOT_ENTITLED)
    running = [
        held
        for held in passes
        if held.state == "active" and held.valid_from_on <= today <= held.valid_until_on
    ]
    if not running:
        return May(Reason.PASS_INACTIVE)
    here = sorted(
        (held for held in running if park_id in held.park_ids),
        key=lambda held: (held.valid_until_on, held.id),
    )
    if not here:
        return May(Reason.WRONG_PARK)
    for held in here:
        left = held.entries_per_park_and_day - held.entries_today
        if left > 0:
            return May(Reason.OK, held.id, left - 1)
    return May(Reason.DAILY_LIMIT)
