"""Citizens (市民): a natural person's record, as far as we hold one."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Index, SmallInteger
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from identity.kernel import Base, NotFound


class Citizen(Base):
    """A person. What identifies them is sealed; searching goes by blind index."""

    __tablename__ = "people_citizen"
    __table_args__ = (Index(None, "phone_index"),)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    created_at: Mapped[datetime]
    phone_sealed: Mapped[bytes | None]
    phone_index: Mapped[bytes | None]
    """Not unique: a family may share a number, and a number alone never merges people."""
    pin_hash: Mapped[str | None]
    pin_wrong_count: Mapped[int] = mapped_column(SmallInteger)
    pin_locked_until: Mapped[datetime | None]


async def get(session: AsyncSession, citizen_id: UUID, *, for_update: bool = False) -> Citizen:
    """Return a citizen.

    Raises:
        NotFound: there is none of this id.
    """
    citizen = await session.get(
        Citizen, citizen_id, with_for_update=for_update or None, populate_existing=True
    )
    if citizen is None:
        raise NotFound
    return citizen
