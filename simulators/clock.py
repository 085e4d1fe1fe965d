"""The one place where the simulators read the clock; everyone else is handed `now`."""

from datetime import UTC, datetime


def now() -> datetime:
    """Return the present moment, in UTC."""
    return datetime.now(UTC)  # noqa: TID251 - the simulators' own edge; api/clock.py is not theirs
