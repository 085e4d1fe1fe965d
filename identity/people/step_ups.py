"""Step-ups (二次验证): the person proved again who they are, for five minutes, in this session."""

import hashlib
import secrets
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ForeignKey, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from identity.kernel import Base, Refusal, Said

LIFE = timedelta(seconds=300)


class StepUp(Base):
    """One proof, by the hash of the token that stands for it."""

    __tablename__ = "people_step_up"
    token_hash: Mapped[bytes] = mapped_column(primary_key=True)
    citizen_id: Mapped[UUID] = mapped_column(ForeignKey("people_citizen.id"))
    sid: Mapped[UUID]
    """The session in which it was made; it counts in no other."""
    way: Mapped[str]
    expires_at: Mapped[datetime] = mapped_column(index=True)


class StepUpRequired(Refusal):
    """The act needs a fresh proof of who is asking."""

    code, status = "step-up-required", 403
    title = Said("请先验证身份", "Prove that it is you")
    next_step = Said(
        "请输入支付密码后重试；尚未设置的请先设置。",
        "Enter your payment PIN and try again; set one first if you have none.",
    )


def open_step_up(
    session: AsyncSession, citizen_id: UUID, *, sid: UUID, way: str, now: datetime
) -> str:
    """Return a token that stands for the proof just given."""
    token = secrets.token_urlsafe(32)
    session.add(
        StepUp(
            token_hash=_hash(token),
            citizen_id=citizen_id,
            sid=sid,
            way=way,
            expires_at=now + LIFE,
        )
    )
    return token


async def require(
    session: AsyncSession, citizen_id: UUID, *, sid: UUID, token: str | None, now: datetime
) -> None:
    """Go on only with a live proof of this citizen in this session.

    Raises:
        StepUpRequired: there is none; `ways` says how to give one.
    """
    found = token and await session.scalar(
        select(StepUp.citizen_id).where(
            StepUp.token_hash == _hash(token),
            StepUp.citizen_id == citizen_id,
            StepUp.sid == sid,
            StepUp.expires_at > now,
        )
    )
    if not found:
        raise StepUpRequired(ways=["pin"])


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
