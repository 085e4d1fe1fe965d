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
    """Return whether a code may be used now, under lock: card and medium, then replay (§4.0)."""
    if not presented.cid:
        return presented.reason
    locked = rows.get(CREDENTIALS, presented.cid)
    reason = standing(locked.card_state, locked.medium_state, locked.gen, cid=presented.cid)
    if reason == Reason.OK and locked.last_slot >= presented.slot:
        return Reason.REPLAYED
    return presented.reason if reason == Reason.OK else reason


def use(
    presented: Presented, rows: Rows, *, by: str, by_id: UUID, now: datetime
) -> tuple[tuple[CodeUse, ...], tuple[Change, ...]]:
    """Return the rows that use a code up; none where it is not genuine, or was used before.

    A stored no uses the code as a yes does (api.md); only an answer 7xx would not.
    """
    locked = rows.get(CREDENTIALS, presented.cid) if presented.cid else None
    if locked is None or locked.last_slot >= presented.slot:
        return (), ()
    row = CodeUse(cid=presented.cid, slot=presented.slot, used_by=by, used_by_id=by_id, used_at=now)
    used = msgspec.structs.replace(locked, last_slot=presented.slot)
    return (row,), (Change(CREDENTIALS, used),)
