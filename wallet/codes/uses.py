"""Uses of a code (用码记录): each (credential, slot) once, and slots only forward (§4.3)."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, Integer
from sqlalchemy.orm import Mapped, mapped_column

from identity.kernel import Base
from wallet.codes.credentials import CREDENTIALS, LockedCredential
from wallet.codes.presentations import Presented
from wallet.ledger.plans import Change


class CodeUse(Base):
    """One code that was taken, and for what. Appended only."""

    __tablename__ = "codes_use"
    __table_args__ = (CheckConstraint("used_by IN ('charge', 'admission')", name="used_by"),)
    cid: Mapped[bytes] = mapped_column(primary_key=True)
    slot: Mapped[int] = mapped_column(Integer, primary_key=True)
    used_by: Mapped[str]
    used_by_id: Mapped[UUID]
    used_at: Mapped[datetime]


def use(presented: Presented, *, by: str, by_id: UUID, now: datetime) -> tuple[CodeUse, Change]:
    """Return the rows that use a code up; the decision has seen that its slot is new."""
    row = CodeUse(cid=presented.cid, slot=presented.slot, used_by=by, used_by_id=by_id, used_at=now)
    return row, Change(CREDENTIALS, LockedCredential(presented.cid, presented.slot))
