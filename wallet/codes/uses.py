"""Uses of a code (用码记录): each (credential, slot) once, and slots only forward (§4.3)."""

from datetime import datetime
from uuid import UUID

import msgspec
from sqlalchemy import CheckConstraint, Integer
from sqlalchemy.orm import Mapped, mapped_column

from identity.kernel import Base
from wallet.codes.credentials import CREDENTIALS, standing
from wallet.codes.presentations import Presented
from wallet.codes.reasons import Reason
from wallet.ledger.plans import Change, Rows


class CodeUse(Base):
    """One code that was taken, and for what. Appended only."""

    __tablename__ = "codes_use"
    __table_args__ = (CheckConstraint("used_by IN ('charge', 'admission')", name="used_by"),)
    cid: Mapped[bytes] = mapped_column(primary_key=True)
    slot: Mapped[int] = mapped_column(Integer, primary_key=True)
    used_by: Mapped[str]
    used_by_id: Mapped[UUID]
    used_at: Mapped[datetime]


def usable(presented: Presented, rows: Rows) -> Reason:
    """Return whether a code that was genuine when shown may be used now, under lock."""
    if presented.reason != Reason.OK:
        return presented.reason
    locked = rows.get(CREDENTIALS, presented.cid)
    reason = standing(locked.card_state, locked.medium_state, locked.gen, cid=presented.cid)
    if reason == Reason.OK and locked.last_slot >= presented.slot:
        return Reason.REPLAYED
    return reason


def use(
    presented: Presented, rows: Rows, *, by: str, by_id: UUID, now: datetime
) -> tuple[CodeUse, Change]:
    """Return the rows that use a code up; the decision has seen that it is usable."""
    row = CodeUse(cid=presented.cid, slot=presented.slot, used_by=by, used_by_id=by_id, used_at=now)
    locked = rows.get(CREDENTIALS, presented.cid)
    used = msgspec.structs.replace(locked, last_slot=presented.slot)
    return row, Change(CREDENTIALS, used)
