"""Public keys of machines that sign their calls: merchants' servers and tills, gates (公钥).

The private key never reaches us. A key belongs to one owner for ever: `active → revoked`.
"""

from datetime import datetime
from typing import Literal, NamedTuple
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from identity.kernel import Base, Database

OwnerKind = Literal["merchant", "gate"]


class MachineKey(Base):
    """One Ed25519 public key, by the id that signatures name."""

    __tablename__ = "identity_machine_key"
    __table_args__ = (
        CheckConstraint("owner_kind IN ('merchant', 'gate')", name="owner_kind"),
        CheckConstraint("length(public_key) = 32", name="public_key_length"),
        Index(None, "owner_id"),
    )
    keyid: Mapped[str] = mapped_column(primary_key=True)
    owner_kind: Mapped[str]
    owner_id: Mapped[UUID]
    public_key: Mapped[bytes]
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class KnownKey(NamedTuple):
    """A key that may sign now, and for whom."""

    owner_kind: str
    owner_id: UUID
    public_key: bytes


def register(
    session: AsyncSession,
    *,
    keyid: str,
    owner_kind: OwnerKind,
    owner_id: UUID,
    public_key: bytes,
    now: datetime,
) -> None:
    """Accept a public key from now on; the caller has refused weak ones."""
    session.add(
        MachineKey(
            keyid=keyid,
            owner_kind=owner_kind,
            owner_id=owner_id,
            public_key=public_key,
            created_at=now,
            revoked_at=None,
        )
    )


async def revoke(session: AsyncSession, keyid: str, *, now: datetime) -> None:
    """Stop accepting a key; processes that cached it forget it within `KEY_CACHE_SECONDS`."""
    await session.execute(
        update(MachineKey)
        .where(MachineKey.keyid == keyid, MachineKey.revoked_at.is_(None))
        .values(revoked_at=now)
    )


KEY_CACHE_SECONDS = 5.0
"""The longest time for which a process still accepts a revoked key."""


async def find(db: Database, keyid: str) -> KnownKey | None:
    """Return the key of this id if it may sign, else None."""
    async with db.begin() as session:
        row = await session.scalar(
            select(MachineKey).where(MachineKey.keyid == keyid, MachineKey.revoked_at.is_(None))
        )
    return KnownKey(row.owner_kind, row.owner_id, row.public_key) if row else None
