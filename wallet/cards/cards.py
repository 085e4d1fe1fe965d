"""Cards (卡): what is issued to a verified holder; its money is an account, its code a medium.

States: `active ↔ lost`, `active → closing → closed`. Reissue replaces the medium and moves no
money. A card that is not active is blocked in the ledger by the reason that its holder will read
(code-format.md §5), in the same transaction.
"""

from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, Text, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from identity.audit import Actor, record
from identity.kernel import Base, NotFound, Refusal, Said, StateConflict, new_id
from identity.people import real_names
from wallet.cards import media
from wallet.ledger import accounts
from wallet.ledger.accounts import Account, new_account
from wallet.ledger.chart import Kind

CardState = Literal["active", "lost", "closing", "closed"]

LOST, CLOSED = 402, 404
"""Reason numbers of code-format.md §5."""

TAKE_BACK_WITHIN = timedelta(days=15)
"""How long a loss may be taken back (ledger.md C.5); later the card is reissued instead."""


class Card(Base):
    """One card of one holder."""

    __tablename__ = "cards_card"
    __table_args__ = (
        CheckConstraint("state IN ('active', 'lost', 'closing', 'closed')", name="state"),
        # One living card of a type per holder.
        Index(
            "uq_cards_card_holder",
            "citizen_id",
            "card_type",
            unique=True,
            postgresql_where="state <> 'closed'",
        ),
    )
    id: Mapped[UUID] = mapped_column(primary_key=True)
    citizen_id: Mapped[UUID] = mapped_column(ForeignKey("people_citizen.id"), index=True)
    card_type: Mapped[str]
    state: Mapped[CardState] = mapped_column(Text)
    display_name: Mapped[str]
    """The holder's masked name, for the gate's screen."""
    created_at: Mapped[datetime]
    lost_at: Mapped[datetime | None]
    closed_at: Mapped[datetime | None]


class CardExists(Refusal):
    """The holder has a living card of this type."""

    code, status = "card-exists", 409
    title = Said("您已有一张有效的卡", "You have a card already")
    next_step = Said("请使用已有的卡，或先销卡。", "Use that card, or close it first.")


class CardNotActive(Refusal):
    """The card is lost, closing or closed."""

    code, status = "card-not-active", 409
    title = Said("卡片当前不可用", "The card cannot be used in its current state")
    next_step = Said(
        "已挂失的卡请先解除挂失或补卡。", "Take back the loss report or reissue the card first."
    )


class TakeBackTooLate(Refusal):
    """The loss was reported too long ago to be taken back."""

    code, status = "take-back-too-late", 409
    title = Said("已超过解除挂失期限", "It is too late to take back the loss report")
    next_step = Said("请办理补卡，余额和权益不变。", "Reissue the card: balance and passes stay.")


async def issue(session: AsyncSession, citizen_id: UUID, *, card_type: str, now: datetime) -> Card:
    """Issue a card to a verified citizen, with its account and its first medium.

    Raises:
        RealNameRequired: the citizen's identity is not checked.
        CardExists: there is a living card of this type.
    """
    person = await real_names.require_passed(session, citizen_id)
    # The lock on the citizen's case makes two first cards at once come one after the other.
    await session.refresh(person, with_for_update=True)
    if await session.scalar(
        select(Card.id).where(
            Card.citizen_id == citizen_id, Card.card_type == card_type, Card.state != "closed"
        )
    ):
        raise CardExists
    card = Card(
        id=new_id(now),
        citizen_id=citizen_id,
        card_type=card_type,
        state="active",
        display_name=person.name_masked,
        created_at=now,
        lost_at=None,
        closed_at=None,
    )
    session.add(card)
    await session.flush()
    session.add(new_account(Kind.CARD_PRINCIPAL, card.id))
    media.add(session, card.id, now=now)
    record(session, Actor("citizen", citizen_id), "card.issue", card.id, now=now)
    return card


async def get_own(
    session: AsyncSession, citizen_id: UUID, card_id: UUID, *, for_update: bool = False
) -> Card:
    """Return a card of this citizen.

    Raises:
        NotFound: there is none, or it is somebody else's.
    """
    query = select(Card).where(Card.id == card_id, Card.citizen_id == citizen_id)
    if for_update:
        # FOR NO KEY UPDATE: a charge under way needs the key of this row for its foreign key while
        # it holds the account that we are about to block, so a stronger lock would deadlock.
        query = query.with_for_update(key_share=True).execution_options(populate_existing=True)
    card = await session.scalar(query)
    if card is None:
        raise NotFound
    return card


async def list_own(session: AsyncSession, citizen_id: UUID) -> list[Card]:
    """Return a citizen's cards, newest first."""
    found = await session.scalars(
        select(Card).where(Card.citizen_id == citizen_id).order_by(Card.created_at.desc())
    )
    return list(found)


async def report_loss(
    session: AsyncSession, citizen_id: UUID, card_id: UUID, *, now: datetime
) -> Card:
    """Refuse the card everywhere from the commit on. Reporting twice changes nothing.

    Raises:
        NotFound: no such card of this citizen.
        StateConflict: the card is closing or closed.
    """
    card = await get_own(session, citizen_id, card_id, for_update=True)
    if card.state == "lost":
        return card
    if card.state != "active":
        raise StateConflict(state=card.state)
    card.state, card.lost_at = "lost", now
    await accounts.block(session, card.id, reason=LOST)
    record(session, Actor("citizen", citizen_id), "card.report_loss", card.id, now=now)
    return card


async def take_back_loss(
    session: AsyncSession, citizen_id: UUID, card_id: UUID, *, now: datetime
) -> Card:
    """Make a lost card good again; the caller has seen a step-up.

    Raises:
        NotFound: no such card of this citizen.
        StateConflict: the card is not lost.
        TakeBackTooLate: it was reported more than fifteen days ago.
    """
    card = await get_own(session, citizen_id, card_id, for_update=True)
    if card.state != "lost" or card.lost_at is None:
        raise StateConflict(state=card.state)
    if now - card.lost_at > TAKE_BACK_WITHIN:
        raise TakeBackTooLate
    card.state, card.lost_at = "active", None
    await accounts.block(session, card.id, reason=0)
    record(session, Actor("citizen", citizen_id), "card.take_back_loss", card.id, now=now)
    return card


async def reissue(session: AsyncSession, citizen_id: UUID, card_id: UUID, *, now: datetime) -> Card:
    """Give the card a new number and handle; balance and passes stay, old codes die.

    Raises:
        NotFound: no such card of this citizen.
        StateConflict: the card is closing or closed.
    """
    card = await get_own(session, citizen_id, card_id, for_update=True)
    if card.state not in {"active", "lost"}:
        raise StateConflict(state=card.state)
    await media.replace(session, card.id, now=now)
    card.state, card.lost_at = "active", None
    await accounts.block(session, card.id, reason=0)
    record(session, Actor("citizen", citizen_id), "card.reissue", card.id, now=now)
    return card


async def balance_fen(session: AsyncSession, card_id: UUID) -> int:
    """Return a card's refundable money."""
    found = await session.scalar(
        select(Account.balance_fen).where(
            Account.kind == Kind.CARD_PRINCIPAL, Account.owner_id == card_id
        )
    )
    assert found is not None
    return found
