"""Sign-ins (登录): which WeChat or Alipay id is which citizen.

A WeChat and an Alipay person are two citizens until they are merged by step-up.
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, UniqueConstraint, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from identity.audit import Actor, record
from identity.kernel import Base, new_id
from identity.people.citizens import Citizen
from identity.providers.provider import ProviderPerson


class SignIn(Base):
    """One person at one provider's app."""

    __tablename__ = "people_sign_in"
    __table_args__ = (
        UniqueConstraint("provider", "app_id", "open_id"),
        CheckConstraint("provider IN ('wechat', 'alipay')", name="provider"),
    )
    id: Mapped[UUID] = mapped_column(primary_key=True)
    provider: Mapped[str]
    app_id: Mapped[str]
    open_id: Mapped[str]
    user_id: Mapped[str | None]
    """The id beside the open id, kept apart: WeChat's union id, Alipay's older user id."""
    citizen_id: Mapped[UUID] = mapped_column(ForeignKey("people_citizen.id"), index=True)
    created_at: Mapped[datetime]


async def sign_in(
    session: AsyncSession, person: ProviderPerson, *, now: datetime
) -> tuple[UUID, bool]:
    """Return the citizen of a provider's person, and whether they are new.

    Two first sign-ins at once make one citizen: the unique index decides, the loser reads.
    """
    found = await _find(session, person)
    if found:
        return found, False
    citizen_id = new_id(now)
    # The citizen is added first so that the sign-in's foreign key holds; if another first
    # sign-in of the same person commits before us, ours leaves a citizen nobody points at, so
    # it goes again in the same transaction.
    citizen = Citizen(
        id=citizen_id,
        created_at=now,
        phone_sealed=None,
        phone_index=None,
        pin_hash=None,
        pin_wrong_count=0,
        pin_locked_until=None,
    )
    session.add(citizen)
    await session.flush()
    made = await session.scalar(
        insert(SignIn)
        .values(
            id=new_id(now),
            provider=person.provider,
            app_id=person.app_id,
            open_id=person.open_id,
            user_id=person.user_id,
            citizen_id=citizen_id,
            created_at=now,
        )
        .on_conflict_do_nothing()
        .returning(SignIn.citizen_id)
    )
    if made is None:
        await session.delete(citizen)
        winner = await _find(session, person)
        assert winner
        return winner, False
    record(
        session,
        Actor("citizen", citizen_id),
        "citizen.sign_up",
        citizen_id,
        now=now,
        provider=person.provider,
    )
    return citizen_id, True


async def payer_of(session: AsyncSession, citizen_id: UUID, provider: str) -> SignIn | None:
    """Return how a citizen is known at a provider, for an order that they pay there."""
    found: SignIn | None = await session.scalar(
        select(SignIn)
        .where(SignIn.citizen_id == citizen_id, SignIn.provider == provider)
        .order_by(SignIn.created_at.desc())
        .limit(1)
    )
    return found


async def _find(session: AsyncSession, person: ProviderPerson) -> UUID | None:
    found: UUID | None = await session.scalar(
        select(SignIn.citizen_id).where(
            SignIn.provider == person.provider,
            SignIn.app_id == person.app_id,
            SignIn.open_id == person.open_id,
        )
    )
    return found
