"""Who did what to whom, written in the caller's transaction: no audit row, no act (审计)."""

from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

from sqlalchemy import Index
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from identity.kernel import Base, new_id


class Actor(NamedTuple):
    """Whoever acts: a citizen, an operator, a merchant, a gate, or a job of ours."""

    kind: Literal["citizen", "operator", "merchant", "gate", "job"]
    id: UUID


JOB = Actor("job", UUID(int=0))
"""What the platform does by itself."""


class AuditRow(Base):
    """One act. Appended, never changed or deleted."""

    __tablename__ = "identity_audit"
    __table_args__ = (Index(None, "subject_id", "at"),)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    actor_kind: Mapped[str]
    actor_id: Mapped[UUID]
    act: Mapped[str]
    """`noun.verb`, as in `card.report_loss`."""
    subject_id: Mapped[UUID]
    facts: Mapped[dict[str, Any]]
    """Ids, states and amounts; never a name, a number of a person, or a key."""


def audit_row(
    actor: Actor, act: str, subject_id: UUID, *, now: datetime, **facts: str | int
) -> AuditRow:
    """Return the row of an act, for a verb that writes its rows itself."""
    return AuditRow(
        id=new_id(now),
        at=now,
        actor_kind=actor.kind,
        actor_id=actor.id,
        act=act,
        subject_id=subject_id,
        facts=facts,
    )


def record(
    session: AsyncSession,
    actor: Actor,
    act: str,
    subject_id: UUID,
    *,
    now: datetime,
    **facts: str | int,
) -> None:
    """Write down an act in the transaction that does it."""
    session.add(audit_row(actor, act, subject_id, now=now, **facts))
