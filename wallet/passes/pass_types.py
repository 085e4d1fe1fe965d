"""Pass types (票种): which parks a pass opens, for how long, how often a day, at what price."""

from datetime import date, datetime, timedelta
from uuid import UUID

from sqlalchemy import CheckConstraint, SmallInteger, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from identity.kernel import Base, NotFound, new_id
from wallet.ledger.accounts import new_account
from wallet.ledger.chart import Kind


class PassType(Base):
    """A kind of pass on sale: `on_sale ↔ withdrawn`. What was sold keeps its own dates."""

    __tablename__ = "passes_pass_type"
    __table_args__ = (
        CheckConstraint("state IN ('on_sale', 'withdrawn')", name="state"),
        CheckConstraint("price_fen >= 0", name="price"),
        CheckConstraint("valid_days > 0", name="valid_days"),
        CheckConstraint("entries_per_park_and_day > 0", name="entries"),
        CheckConstraint("group_bit BETWEEN 0 AND 31", name="group_bit"),
    )
    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    name_en: Mapped[str]
    price_fen: Mapped[int]
    valid_days: Mapped[int]
    """Days a pass is valid from the day it is bought, that day included."""
    park_ids: Mapped[list[str]]
    entries_per_park_and_day: Mapped[int]
    group_bit: Mapped[int] = mapped_column(SmallInteger)
    """Which bit of ENT (code-format.md §1) says that the holder has such a pass."""
    state: Mapped[str]
    created_at: Mapped[datetime]


def add(
    session: AsyncSession,
    *,
    name: str,
    name_en: str,
    price_fen: int,
    valid_days: int,
    park_ids: list[UUID],
    entries_per_park_and_day: int,
    group_bit: int,
    now: datetime,
) -> PassType:
    """Put a pass type on sale, with the account that its unearned money waits in."""
    pass_type = PassType(
        id=new_id(now),
        name=name,
        name_en=name_en,
        price_fen=price_fen,
        valid_days=valid_days,
        park_ids=[str(park_id) for park_id in park_ids],
        entries_per_park_and_day=entries_per_park_and_day,
        group_bit=group_bit,
        state="on_sale",
        created_at=now,
    )
    session.add(pass_type)
    session.add(new_account(Kind.PASS_DEFERRED, pass_type.id))
    return pass_type


async def on_sale(session: AsyncSession) -> list[PassType]:
    """Return what can be bought, cheapest first."""
    found = await session.scalars(
        select(PassType)
        .where(PassType.state == "on_sale")
        .order_by(PassType.price_fen, PassType.id)
    )
    return list(found)


async def get_on_sale(session: AsyncSession, pass_type_id: UUID) -> PassType:
    """Return a pass type that can be bought.

    Raises:
        NotFound: there is none of this id on sale.
    """
    found = await session.get(PassType, pass_type_id)
    if found is None or found.state != "on_sale":
        raise NotFound
    return found


def last_day(first_on: date, valid_days: int) -> date:
    """Return the last business date on which a pass opens anything."""
    return first_on + timedelta(days=valid_days - 1)
