"""Sessions of citizens: refresh tokens in families, revoked whole when one is used twice (会话).

The access token is short and self-contained (`identity.access_tokens`); its `sid` is the family,
which every citizen's request checks, so "sign out everywhere" bites at once. A family lives
`open → revoked | expired`. Only SHA-256 of a refresh token is stored.
"""

import hashlib
import secrets
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ForeignKey, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from identity.kernel import Base, Refusal, Said, new_id

REFRESH_SLIDING = timedelta(days=30)
FAMILY_LIFE = timedelta(days=90)
LOST_ANSWER_GRACE = timedelta(seconds=30)
"""A refresh repeated so soon, while its successor is unused, is a lost answer, not a theft."""


class TokenFamily(Base):
    """One signed-in phone, from sign-in to sign-out."""

    __tablename__ = "identity_token_family"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    citizen_id: Mapped[UUID] = mapped_column(index=True)
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    revoked_why: Mapped[str | None]


class RefreshToken(Base):
    """One link of a family's chain."""

    __tablename__ = "identity_refresh_token"
    token_hash: Mapped[bytes] = mapped_column(primary_key=True)
    family_id: Mapped[UUID] = mapped_column(ForeignKey("identity_token_family.id"), index=True)
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    successor_hash: Mapped[bytes | None]


class TokenRefused(Refusal):
    """The token is unknown, used up, expired, or its session was ended."""

    code, status = "token-invalid", 401
    title = Said("登录已失效", "You are signed out")
    next_step = Said("请重新登录。", "Sign in again.")


async def open_family(
    session: AsyncSession, citizen_id: UUID, *, now: datetime
) -> tuple[UUID, str]:
    """Begin a session; return its id (`sid`) and its first refresh token."""
    family = TokenFamily(
        id=new_id(now), citizen_id=citizen_id, created_at=now, revoked_at=None, revoked_why=None
    )
    session.add(family)
    await session.flush()
    return family.id, _issue(session, family.id, now=now)


async def rotate(session: AsyncSession, token: str, *, now: datetime) -> tuple[UUID, UUID, str]:
    """Use up a refresh token; return the citizen, the session and the next refresh token.

    A token used twice revokes its family, unless the first answer was plainly lost: within
    `LOST_ANSWER_GRACE` and with the successor unused, the successor is replaced instead.

    Raises:
        TokenRefused: nothing is issued. Commit all the same: it may have revoked the family.
    """
    old = await session.scalar(
        select(RefreshToken).where(RefreshToken.token_hash == _hash(token)).with_for_update()
    )
    if old is None:
        raise TokenRefused
    family = await session.get(TokenFamily, old.family_id, with_for_update=True)
    assert family
    if family.revoked_at or now >= min(old.expires_at, family.created_at + FAMILY_LIFE):
        raise TokenRefused
    if old.used_at is not None and not await _was_lost(session, old, now=now):
        family.revoked_at, family.revoked_why = now, "refresh token used twice"
        raise TokenRefused
    fresh = _issue(session, family.id, now=now)
    old.used_at, old.successor_hash = old.used_at or now, _hash(fresh)
    return family.citizen_id, family.id, fresh


async def is_open(session: AsyncSession, sid: UUID) -> bool:
    """Say whether a session was not ended."""
    return bool(
        await session.scalar(
            select(TokenFamily.id).where(TokenFamily.id == sid, TokenFamily.revoked_at.is_(None))
        )
    )


async def revoke(session: AsyncSession, sid: UUID, *, now: datetime) -> None:
    """End one session."""
    await session.execute(
        update(TokenFamily)
        .where(TokenFamily.id == sid, TokenFamily.revoked_at.is_(None))
        .values(revoked_at=now, revoked_why="signed out")
    )


async def revoke_all(session: AsyncSession, citizen_id: UUID, *, now: datetime) -> None:
    """End every session of a citizen."""
    await session.execute(
        update(TokenFamily)
        .where(TokenFamily.citizen_id == citizen_id, TokenFamily.revoked_at.is_(None))
        .values(revoked_at=now, revoked_why="signed out everywhere")
    )


async def _was_lost(session: AsyncSession, old: RefreshToken, *, now: datetime) -> bool:
    """Say whether the first answer got lost; if so its successor is taken out of use."""
    assert old.used_at
    if now - old.used_at > LOST_ANSWER_GRACE or old.successor_hash is None:
        return False
    successor = await session.get(RefreshToken, old.successor_hash, with_for_update=True)
    if successor is None or successor.used_at is not None:
        return False
    # Used up, not merely expired: whoever shows it later has shown that two hold this session.
    successor.used_at = now
    return True


def _issue(session: AsyncSession, family_id: UUID, *, now: datetime) -> str:
    token = secrets.token_urlsafe(32)
    session.add(
        RefreshToken(
            token_hash=_hash(token),
            family_id=family_id,
            expires_at=now + REFRESH_SLIDING,
            used_at=None,
            successor_hash=None,
        )
    )
    return token


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
