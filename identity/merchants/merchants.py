"""Merchants (商户): who takes money from cards."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from sqlalchemy import CheckConstraint
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from identity.kernel import Base, new_id, number_of

MerchantKind = Literal["shop", "hotel"]


class Merchant(Base):
    """A business that may charge cards: `active ↔ suspended`."""

    __tablename__ = "merchants_merchant"
    __table_args__ = (
        CheckConstraint("kind IN ('shop', 'hotel')", name="kind"),
        CheckConstraint("state IN ('active', 'suspended')", name="state"),
    )
    id: Mapped[UUID] = mapped_column(primary_key=True)
    merchant_no: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    kind: Mapped[str]
    state: Mapped[str]
    created_at: Mapped[datetime]


def add(session: AsyncSession, *, name: str, kind: MerchantKind, now: datetime) -> Merchant:
    """Take a merchant on; the ledger account is opened by the caller in the same transaction."""
    merchant_id = new_id(now)
    merchant = Merchant(
        id=merchant_id,
        merchant_no=number_of("MC", merchant_id),
        name=name,
        kind=kind,
        state="active",
        created_at=now,
    )
    session.add(merchant)
    return merchant
