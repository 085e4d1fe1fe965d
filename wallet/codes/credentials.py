"""Credentials (离线凭证): the signed body behind a phone's codes for one window of six hours.

The phone draws a hash chain and uploads its anchor; we sign header and anchor and keep a row, the
issuance log. Rules and bytes: code-format.md §1–§3. A row's `last_slot` is the replay protection:
it only grows, under lock.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import CheckConstraint, ForeignKey, Integer, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from identity.kernel import SHANGHAI, Base, Refusal, Said, business_date
from identity.sealing import IssuerKey, KeyRing
from wallet.cards.cards import CardState
from wallet.cards.media import Medium
from wallet.codes.chains import device_key
from wallet.codes.reasons import Reason
from wallet.codes.suites import SUITES
from wallet.codes.wire import Credential, Flag, Kind
from wallet.ledger.plans import Lockable
from wallet.passes.pass_types import PassType
from wallet.passes.passes import Pass

WINDOW_HOURS = (4, 10, 16, 22)
"""Local hours at which a window starts."""
WINDOW_STEP = timedelta(hours=6)
SLOT_SECONDS = 15
SLOTS = 1560
PREFETCH = timedelta(hours=72)
PREFETCH_NEW_PHONE = timedelta(hours=24)
PHONE_IS_NEW_FOR = timedelta(hours=24)
OFFLINE_CAP_YUAN = 0
"""Offline payment is off by default per merchant, so no credential carries a cap (§3)."""
NOT_USED = -1


class IssuedCredential(Base):
    """One row of the issuance log."""

    __tablename__ = "codes_credential"
    __table_args__ = (
        CheckConstraint("length(cid) = 17", name="cid_length"),
        CheckConstraint("last_slot >= -1", name="last_slot"),
        # The slot of a credential moves with every use: leave room for it on the page.
        {"postgresql_with": {"fillfactor": "80"}},
    )
    cid: Mapped[bytes] = mapped_column(primary_key=True)
    """ISS ‖ CARD ‖ GEN ‖ NBF (code-format.md §2)."""
    medium_id: Mapped[UUID] = mapped_column(ForeignKey("cards_medium.id"), index=True)
    anchor: Mapped[bytes]
    body: Mapped[bytes]
    signature: Mapped[bytes]
    last_slot: Mapped[int] = mapped_column(Integer)
    """Highest slot used; -1 before the first use."""
    issued_at: Mapped[datetime]


class LockedCredential(msgspec.Struct, frozen=True):
    """A credential as a decision sees it, with the card and medium it speaks for."""

    cid: bytes
    last_slot: int
    card_state: CardState
    medium_state: str
    gen: int
    """The phone generation that is good now."""


# Card and medium are locked too, so that a loss report, a reissue or another phone comes either
# before this decision, which then says no, or after it. The card first, as those verbs do.
_READ_AND_LOCK = """
SELECT i.cid, i.last_slot, c.state, m.state, m.gen
FROM codes_credential i
JOIN cards_medium m ON m.id = i.medium_id
JOIN cards_card c ON c.id = m.card_id
WHERE i.cid = ANY($1::bytea[]) ORDER BY i.cid
FOR NO KEY UPDATE OF i FOR SHARE OF c FOR SHARE OF m"""

CREDENTIALS = Lockable(
    IssuedCredential, LockedCredential, writes=("last_slot",), rank=10, reads=_READ_AND_LOCK
)

_CARD_REASONS: dict[CardState, Reason] = {
    "active": Reason.OK,
    "lost": Reason.LOST,
    "closing": Reason.CLOSED,
    "closed": Reason.CLOSED,
}


def standing(card_state: CardState, medium_state: str, gen: int, *, cid: bytes) -> Reason:
    """Return what card and medium say of a genuine code (401 … 406 of code-format.md §4.0).

    Args:
        card_state: of the card.
        medium_state: of the medium whose handle the code carries.
        gen: the phone generation that is good now.
        cid: of the code; its byte 12 is the generation that it was made by.
    """
    reason = _CARD_REASONS[card_state]
    if reason == Reason.OK and medium_state != "active":
        # Reissued: the handle is denied for ever, online by the reason of a lost card (api.md).
        return Reason.LOST
    if reason == Reason.OK and cid[12] != gen:
        return Reason.PHONE_REPLACED
    return reason


class CredentialExists(Refusal):
    """The window has a credential with another anchor."""

    code, status = "credential-exists", 409
    title = Said("该时段已有凭证", "This window has a credential already")
    next_step = Said("请重新绑定手机后再试。", "Bind the phone again, then try.")


class PhoneNotBound(Refusal):
    """No phone is bound to the card."""

    code, status = "phone-not-bound", 409
    title = Said("尚未绑定手机", "No phone is bound to this card")
    next_step = Said("请先绑定手机。", "Bind the phone first.")


class WindowNotOffered(Refusal):
    """What was asked for is not a window of the grid."""

    code, status = "window-not-offered", 422
    title = Said("凭证时段不正确", "There is no such window")
    next_step = Said(
        "时段从每日 4、10、16、22 时开始，每段 1560 个 15 秒。",
        "Windows start at 4, 10, 16 and 22 o'clock, with 1560 slots of 15 seconds.",
    )


class IssuerKeyMissing(Refusal):
    """No issuer key may sign now; an operator has to see to it."""

    code, status, retryable = "issuer-key-missing", 503, True
    title = Said("暂时无法签发凭证", "Credentials cannot be signed at the moment")
    next_step = Said("请稍后重试。", "Try again later.")


class Wanted(NamedTuple):
    """One window that a phone asks for, with the anchor of its chain."""

    nbf: int
    """Unix seconds at which slot 0 begins."""
    slot_seconds: int
    slots: int
    anchor: bytes


def window_start(now: datetime) -> datetime:
    """Return when the current window began: the last of 4, 10, 16, 22 o'clock, local time."""
    local = now.astimezone(SHANGHAI)
    hours_in = (local.hour - WINDOW_HOURS[0]) % 6
    return local.replace(minute=0, second=0, microsecond=0) - timedelta(hours=hours_in)


def is_offered(wanted: Wanted) -> bool:
    """Say whether a window lies on the grid and has its shape."""
    starts = datetime.fromtimestamp(wanted.nbf, SHANGHAI)
    on_grid = starts.hour in WINDOW_HOURS and starts.minute == starts.second == 0
    return on_grid and wanted.slot_seconds == SLOT_SECONDS and wanted.slots == SLOTS


async def issue(
    session: AsyncSession,
    medium: Medium,
    wanted: Sequence[Wanted],
    *,
    issuer: int,
    ring: KeyRing,
    now: datetime,
) -> list[IssuedCredential]:
    """Sign credentials for a bound phone; windows outside what it may hold are left out.

    Same window and anchor again: the same credential.

    Raises:
        PhoneNotBound: the card has no phone.
        WindowNotOffered: a window is not on the grid.
        CredentialExists: a window has another anchor.
    """
    if medium.gen == 0 or medium.bound_at is None:
        raise PhoneNotBound
    if not all(is_offered(one) for one in wanted):
        raise WindowNotOffered
    is_new_phone = now - medium.bound_at < PHONE_IS_NEW_FOR
    until = now + (PREFETCH_NEW_PHONE if is_new_phone else PREFETCH)
    first, last = window_start(now).timestamp(), until.timestamp()
    key = _signing_key(ring, now)
    groups = await _pass_groups(session, medium.card_id)
    issued = []
    for one in wanted:
        if not first <= one.nbf < last:
            continue
        credential = Credential(
            suite=key.suite,
            kind=Kind.CHAIN,
            flags=Flag.PAY | Flag.GATE,
            issuer=issuer,
            key_id=key.kid,
            card=medium.handle,
            gen=medium.gen,
            holder_class=0,
            groups=_bits(groups, datetime.fromtimestamp(one.nbf, SHANGHAI)),
            cap_yuan=OFFLINE_CAP_YUAN,
            starts_unix=one.nbf,
            slot_seconds=one.slot_seconds,
            span=one.slots,
            anchor=one.anchor,
        )
        issued.append(await _keep(session, credential, medium, key, now=now))
    return issued


async def _keep(
    session: AsyncSession,
    credential: Credential,
    medium: Medium,
    key: IssuerKey,
    *,
    now: datetime,
) -> IssuedCredential:
    row = {
        "cid": credential.cid,
        "medium_id": medium.id,
        "anchor": credential.anchor,
        "body": credential.body,
        "signature": SUITES[key.suite].sign(key.private_key.reveal(), credential.signed_message),
        "last_slot": NOT_USED,
        "issued_at": now,
    }
    await session.execute(insert(IssuedCredential).values(row).on_conflict_do_nothing())
    kept = await session.get_one(IssuedCredential, credential.cid, populate_existing=True)
    if kept.anchor != credential.anchor:
        raise CredentialExists(nbf=credential.starts_unix)
    return kept


def phone_key(ring: KeyRing, medium: Medium, *, issuer: int, suite: int) -> bytes:
    """Return Kd, the key that a phone gets once, at binding (code-format.md §2)."""
    return device_key(
        ring.code_master.reveal(), issuer=issuer, card=medium.handle, gen=medium.gen, suite=suite
    )


def signing_suite(ring: KeyRing, now: datetime) -> int:
    """Return the suite that credentials are signed with now."""
    return _signing_key(ring, now).suite


def next_window(now: datetime) -> datetime:
    """Return when the next window begins, and one more can be fetched."""
    return window_start(now) + WINDOW_STEP


def _signing_key(ring: KeyRing, now: datetime) -> IssuerKey:
    for key in ring.issuer_keys:
        if key.may_sign(now):
            return key
    raise IssuerKeyMissing


class _Group(NamedTuple):
    bit: int
    passed: Pass


async def _pass_groups(session: AsyncSession, card_id: UUID) -> list[_Group]:
    rows = await session.execute(
        select(Pass, PassType.group_bit)
        .join(PassType, PassType.id == Pass.pass_type_id)
        .where(Pass.card_id == card_id, Pass.state == "active")
    )
    return [_Group(bit, held) for held, bit in rows]


def _bits(groups: list[_Group], starts: datetime) -> int:
    """Return ENT: the pass groups that are valid on the day the window starts."""
    day = business_date(starts)
    bits = 0
    for bit, held in groups:
        if held.valid_from_on <= day <= held.valid_until_on:
            bits |= 1 << bit
    return bits
