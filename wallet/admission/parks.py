"""Parks (园区): the places that passes open, and their hours."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, SmallInteger, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from identity.kernel import SHANGHAI, Base, new_id

MINUTES_OF_A_DAY = 1440


class Park(Base):
    """A place with hours in local time: open in `[opens, closes)`, minutes from midnight."""

    __tablename__ = "admission_park"
    __table_args__ = (
        CheckConstraint(
            "opens_minute BETWEEN 0 AND 1440 AND closes_minute BETWEEN 0 AND 1440", name="hours"
        ),
    )
    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    name_en: Mapped[str]
    opens_minute: Mapped[int] = mapped_column(SmallInteger)
    closes_minute: Mapped[int] = mapped_column(SmallInteger)
    """Equal to `opens_minute`: closed all day. 0 and 1440: never closes."""
    created_at: Mapped[datetime]


def add(
    session: AsyncSession,
    *,
    name: str,
    name_en: str,
    opens_minute: int,
    closes_minute: int,
    now: datetime,
) -> Park:
    """Add a park."""
    park = Park(
        id=new_id(now),
        name=name,
        name_en=name_en,
        opens_minute=opens_minute,
        closes_minute=closes_minute,
        created_at=now,
    )
    session.add(park)
    return park


def is_open(park: Park, now: datetime) -> bool:
    """Say whether a park is open at an instant."""
    local = now.astimezone(SHANGHAI)
    return park.opens_minute <= local.hour * 60 + local.minute < park.closes_minute


async def all_parks(session: AsyncSession) -> list[Park]:
    """Return every park, oldest first."""
    return list(await session.scalars(select(Park).order_by(Park.created_at, Park.id)))
