"""Operators (运营人员): people in the back office, signed in by password and TOTP.

A session is a random cookie of which only the hash is stored; it ends after 15 idle minutes or
8 hours. A TOTP step counts once, and wrong passwords are counted under the row lock.
"""

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ForeignKey, SmallInteger, delete, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from identity import passwords
from identity.audit import Actor, record
from identity.kernel import Base, Database, Refusal, Said, new_id
from identity.sealing import KeyRing, open_sealed, seal

IDLE = timedelta(minutes=15)
LIFE = timedelta(hours=8)
TRIES = 5
LOCK = timedelta(minutes=15)
NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$AAAAAAAAAAAAAAAAAAAAAA$" + "A" * 43
"""Hashed against where there is no such login, so that the answer takes as long."""


class Operator(Base):
    """A person in the back office."""

    __tablename__ = "staff_operator"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    login: Mapped[str] = mapped_column(unique=True)
    password_hash: Mapped[str]
    totp_sealed: Mapped[bytes]
    totp_last_step: Mapped[int]
    """The last TOTP step that was used: each counts once."""
    wrong_count: Mapped[int] = mapped_column(SmallInteger)
    locked_until: Mapped[datetime | None]
    created_at: Mapped[datetime]


class OperatorSession(Base):
    """One signed-in browser."""

    __tablename__ = "staff_operator_session"
    token_hash: Mapped[bytes] = mapped_column(primary_key=True)
    operator_id: Mapped[UUID] = mapped_column(ForeignKey("staff_operator.id"))
    csrf_hash: Mapped[bytes]
    created_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]


class SignInRefused(Refusal):
    """Login, password or one-time code is wrong, or locked: which of them is not said."""

    code, status = "sign-in-refused", 401
    title = Said("登录失败", "Sign-in failed")
    next_step = Said(
        "请检查账号、密码和动态口令；多次失败后请 15 分钟再试。",
        "Check login, password and one-time code; after several failures wait 15 minutes.",
    )


class SessionRequired(Refusal):
    """There is no live operator session."""

    code, status = "session-required", 401
    title = Said("请先登录运营后台", "Sign in to the operator console")
    next_step = Said("请重新登录。", "Sign in again.")


class CsrfRefused(Refusal):
    """The request does not carry the session's CSRF token."""

    code, status = "csrf-refused", 403
    title = Said("请求缺少防伪令牌", "The CSRF token is missing or wrong")
    next_step = Said("请刷新页面后重试。", "Reload the page and try again.")


class Opened(NamedTuple):
    """The two secrets of a new session; neither is stored."""

    token: str
    csrf_token: str


async def add(
    session: AsyncSession,
    *,
    login: str,
    password: str,
    totp_secret: str,
    ring: KeyRing,
    now: datetime,
) -> Operator:
    """Take an operator on."""
    operator_id = new_id(now)
    operator = Operator(
        id=operator_id,
        login=login,
        password_hash=await passwords.hash_password(password),
        totp_sealed=seal(
            ring,
            totp_secret.encode(),
            table=Operator.__tablename__,
            column="totp",
            row_id=operator_id,
        ),
        totp_last_step=0,
        wrong_count=0,
        locked_until=None,
        created_at=now,
    )
    session.add(operator)
    return operator


async def sign_in(
    db: Database, *, login: str, password: str, totp: str, ring: KeyRing, now: datetime
) -> Opened:
    """Open a session for an operator.

    Raises:
        SignInRefused: something is wrong; the try was counted.
    """
    async with db.begin() as session:
        operator = await session.scalar(select(Operator).where(Operator.login == login))
    # Hashing comes before any look at the row, and also for a login that does not exist.
    is_right = await passwords.verify_password(
        password, operator.password_hash if operator else NOBODY
    )
    if operator is None:
        raise SignInRefused
    async with db.begin() as session:
        opened = await _open(session, operator.id, is_right=is_right, totp=totp, ring=ring, now=now)
    if opened is None:
        raise SignInRefused
    return opened


async def _open(
    session: AsyncSession,
    operator_id: UUID,
    *,
    is_right: bool,
    totp: str,
    ring: KeyRing,
    now: datetime,
) -> Opened | None:
    operator = await session.get(
        Operator, operator_id, with_for_update=True, populate_existing=True
    )
    assert operator
    if operator.locked_until and now < operator.locked_until:
        return None
    secret = open_sealed(
        ring, operator.totp_sealed, table=Operator.__tablename__, column="totp", row_id=operator.id
    ).decode()
    step = passwords.totp_step(secret, totp, now=now)
    if not is_right or step is None or step <= operator.totp_last_step:
        operator.wrong_count += 1
        if operator.wrong_count >= TRIES:
            operator.wrong_count, operator.locked_until = 0, now + LOCK
        return None
    operator.totp_last_step, operator.wrong_count, operator.locked_until = step, 0, None
    opened = Opened(secrets.token_urlsafe(32), secrets.token_urlsafe(32))
    session.add(
        OperatorSession(
            token_hash=_hash(opened.token),
            operator_id=operator.id,
            csrf_hash=_hash(opened.csrf_token),
            created_at=now,
            last_seen_at=now,
        )
    )
    record(session, Actor("operator", operator.id), "operator.sign_in", operator.id, now=now)
    return opened


async def of_session(
    session: AsyncSession, token: str | None, csrf_token: str | None, *, writes: bool, now: datetime
) -> UUID:
    """Return whose session it is, and keep it alive.

    Args:
        session: an open transaction.
        token: the cookie.
        csrf_token: the header; looked at only where the request writes.
        writes: whether the request changes anything.
        now: the request's instant.

    Raises:
        SessionRequired: there is no live session.
        CsrfRefused: the request writes and carries no proof of coming from our page.
    """
    found = await session.get(OperatorSession, _hash(token)) if token else None
    if found is None or now - found.last_seen_at > IDLE or now - found.created_at > LIFE:
        raise SessionRequired
    if writes and not secrets.compare_digest(found.csrf_hash, _hash(csrf_token or "")):
        raise CsrfRefused
    found.last_seen_at = max(found.last_seen_at, now)
    return found.operator_id


async def sign_out(session: AsyncSession, token: str) -> None:
    """End a session."""
    await session.execute(delete(OperatorSession).where(OperatorSession.token_hash == _hash(token)))


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
