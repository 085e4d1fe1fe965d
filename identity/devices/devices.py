"""Devices (设备): gates that let people in, each at one place."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from identity.kernel import Base, new_id


class Gate(Base):
    """A gate: `active → retired`."""

    __tablename__ = "devices_gate"
    __table_args__ = (CheckConstraint("state IN ('active', 'retired')", name="state"),)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    site_id: Mapped[UUID] = mapped_column(index=True)
    """The place it stands at; what a place is, the wallet knows."""
    state: Mapped[str]
    created_at: Mapped[datetime]


def add(session: AsyncSession, *, name: str, site_id: UUID, now: datetime) -> Gate:
    """Register a gate at a place."""
    gate = Gate(id=new_id(now), name=name, site_id=site_id, state="active", created_at=now)
    session.add(gate)
    return gate
