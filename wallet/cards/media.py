"""Media (介质): what carries one card handle; here the phone. Reissue replaces it.

A phone is bound in generations: another phone taking over makes GEN one higher, and codes of a
lower generation die (code-format.md §7). States: `active → replaced`.
"""

import secrets
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Index,
    SmallInteger,
    func,
    select,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from identity.kernel import Base, Refusal, Said, new_id

CARD_NO_DIGITS = 16
GEN_MAX = 254
CHANGES_MAX = 3
CHANGES_WITHIN = timedelta(days=30)


class Medium(Base):
    """One handle of one card."""

    __tablename__ = "cards_medium"
    __table_args__ = (
        CheckConstraint("state IN ('active', 'replaced')", name="state"),
        CheckConstraint("gen BETWEEN 0 AND 254", name="gen"),
        CheckConstraint("length(handle) = 8", name="handle_length"),
        Index(
            "uq_cards_medium_active",
            "card_id",
            unique=True,
            postgresql_where="state = 'active'",
        ),
    )
    id: Mapped[UUID] = mapped_column(primary_key=True)
    card_id: Mapped[UUID] = mapped_column(ForeignKey("cards_card.id"), index=True)
    card_no: Mapped[str] = mapped_column(unique=True)
    """The number people read out; it never comes again, and codes never carry it."""
    handle: Mapped[bytes] = mapped_column(unique=True)
    """CARD of code-format.md: random, new at every reissue."""
    gen: Mapped[int] = mapped_column(SmallInteger)
    """0 until a phone is bound."""
    device_id: Mapped[str | None]
    bound_at: Mapped[datetime | None]
    state: Mapped[str]
    created_at: Mapped[datetime]


class PhoneBinding(Base):
    """One phone taking the card over, for the limit on changes. Appended only."""

    __tablename__ = "cards_phone_binding"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    card_id: Mapped[UUID] = mapped_column(ForeignKey("cards_card.id"), index=True)
    medium_id: Mapped[UUID] = mapped_column(ForeignKey("cards_medium.id"))
    gen: Mapped[int] = mapped_column(SmallInteger)
    model: Mapped[str]
    bound_at: Mapped[datetime]


class TooManyPhones(Refusal):
    """The card changed phones too often."""

    code, status = "too-many-phones", 409
    title = Said("换机次数过多", "The card changed phones too often")
    next_step = Said(
        "30 天内最多换机 3 次，请到服务点办理。",
        "Three changes in 30 days at most; please go to a service point.",
    )


def add(session: AsyncSession, card_id: UUID, *, now: datetime) -> Medium:
    """Give a card a new handle and number, with no phone bound yet."""
    medium = Medium(
        id=new_id(now),
        card_id=card_id,
        card_no=new_card_no(),
        handle=secrets.token_bytes(8),
        gen=0,
        device_id=None,
        bound_at=None,
        state="active",
        created_at=now,
    )
    session.add(medium)
    return medium


async def active(session: AsyncSession, card_id: UUID, *, for_update: bool = False) -> Medium:
    """Return the medium that a card works with now; a card always has one."""
    query = select(Medium).where(Medium.card_id == card_id, Medium.state == "active")
    if for_update:
        query = query.with_for_update(key_share=True).execution_options(populate_existing=True)
    return (await session.scalars(query)).one()


async def replace(session: AsyncSession, card_id: UUID, *, now: datetime) -> Medium:
    """Retire the card's handle for ever and give it a new one; the card's row is locked."""
    old = await active(session, card_id, for_update=True)
    old.state = "replaced"
    await session.flush()
    return add(session, card_id, now=now)


def is_another_phone(medium: Medium, device_id: str) -> bool:
    """Say whether binding this phone takes the card from another one, which needs a step-up."""
    return medium.device_id is not None and medium.device_id != device_id


async def bind_phone(
    session: AsyncSession, medium: Medium, *, device_id: str, model: str, now: datetime
) -> bool:
    """Bind a phone to a locked medium; return whether it is another one than before.

    The same phone again changes nothing and gets no new key.

    Raises:
        TooManyPhones: three changes in thirty days, or no generation is left.
    """
    if medium.device_id == device_id:
        return False
    changes = await session.scalar(
        select(func.count())
        .select_from(PhoneBinding)
        .where(
            PhoneBinding.card_id == medium.card_id,
            PhoneBinding.gen > 1,
            PhoneBinding.bound_at > now - CHANGES_WITHIN,
        )
    )
    assert changes is not None
    if (medium.gen > 0 and changes >= CHANGES_MAX) or medium.gen >= GEN_MAX:
        raise TooManyPhones
    medium.gen, medium.device_id, medium.bound_at = medium.gen + 1, device_id, now
    session.add(
        PhoneBinding(
            id=new_id(now),
            card_id=medium.card_id,
            medium_id=medium.id,
            gen=medium.gen,
            model=model,
            bound_at=now,
        )
    )
    return True


def new_card_no() -> str:
    """Return a random card number whose last digit checks the others (ISO/IEC 7812-1, Luhn)."""
    digits = [secrets.randbelow(9) + 1, *(secrets.randbelow(10) for _ in range(CARD_NO_DIGITS - 2))]
    return "".join(map(str, [*digits, luhn_digit(digits)]))


def luhn_digit(digits: list[int]) -> int:
    """Return the digit that completes a number; it finds any one wrong digit."""
    doubled = [2 * digit - 9 * (digit > 4) for digit in digits[::-1][::2]]  # noqa: PLR2004
    return -(sum(doubled) + sum(digits[::-1][1::2])) % 10
