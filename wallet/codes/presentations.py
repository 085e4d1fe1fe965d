"""A code as it was shown to us: read, verified, and looked up (raw driver: the hot path).

The pure part is `verifier`, in the order of code-format.md §4.0. What follows here is what only
the issuer knows: the issuance log (210) and the card's state (402 … 405), in one statement. The
state is judged again under lock, with replay (305) and money (6xx). Nothing is written here.
"""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import asyncpg

from identity.kernel import Database, business_date
from identity.sealing import KeyRing
from wallet.codes.chains import device_key
from wallet.codes.credentials import standing
from wallet.codes.reasons import Reason, Refused
from wallet.codes.trust import Trust
from wallet.codes.verifier import Memory, Verified, verify
from wallet.codes.wire import Flag, Kind, parse

_LOOK_UP = """
SELECT m.card_id, m.gen, m.state AS medium_state, c.state AS card_state, c.display_name,
       a.id AS principal_id,
       EXISTS (SELECT FROM codes_credential i
               WHERE i.cid = $2 AND i.anchor = $3 AND i.medium_id = m.id) AS is_issued{passes}
FROM cards_medium m
JOIN cards_card c ON c.id = m.card_id
JOIN ledger_account a ON a.owner_id = c.id AND a.kind = 'card.principal'
WHERE m.handle = $1"""

_PASSES = """,
       (SELECT coalesce(jsonb_agg(jsonb_build_array(p.id, p.state, p.valid_from_on,
                   p.valid_until_on, t.park_ids, t.entries_per_park_and_day)), '[]')
        FROM passes_pass p JOIN passes_pass_type t ON t.id = p.pass_type_id
        WHERE p.card_id = c.id AND p.valid_until_on >= least($4::date, (
            SELECT max(l.valid_until_on) FROM passes_pass l WHERE l.card_id = c.id))) AS passes"""
# Where every pass has ended, the last one is read too: the gate says "ended" (503), not "none".

LOOK_UP = _LOOK_UP.format(passes="")
LOOK_UP_WITH_PASSES = _LOOK_UP.format(passes=_PASSES)


class Presented(NamedTuple):
    """A code as judged so far. The card is known only where the code is genuine."""

    reason: Reason
    cid: bytes = b""
    slot: int = 0
    card_id: UUID | None = None
    principal_id: int = 0
    display_name: str = ""
    passes: str = "[]"
    """JSON rows of the card's passes, where they were asked for."""


class Issuer(NamedTuple):
    """What this process needs to judge its own city's codes."""

    number: int
    ring: KeyRing
    trust: Trust
    memory: Memory
    """Signatures and chain positions verified before, by this process."""


async def present(
    db: Database, issuer: Issuer, text: str, *, purpose: Flag, now: datetime
) -> Presented:
    """Judge a code for a payment; one statement at most."""
    verified = _verify(issuer, text, purpose, now)
    if isinstance(verified, Presented):
        return verified
    code = verified.code
    row = await db.pool.fetchrow(LOOK_UP, code.card, code.cid, code.anchor)
    return _judge(verified, row, "[]")


async def present_with_passes(
    db: Database, issuer: Issuer, text: str, *, now: datetime
) -> Presented:
    """Judge a code for an admission, and read the passes that may open a gate today or later."""
    verified = _verify(issuer, text, Flag.GATE, now)
    if isinstance(verified, Presented):
        return verified
    code, today = verified.code, business_date(now)
    row = await db.pool.fetchrow(LOOK_UP_WITH_PASSES, code.card, code.cid, code.anchor, today)
    return _judge(verified, row, row["passes"] if row else "[]")


def _verify(issuer: Issuer, text: str, purpose: Flag, now: datetime) -> Verified | Presented:
    try:
        code = parse(text)
        if code.kind is not Kind.CHAIN:
            # Printed cards come with their own rules (photo, PIN, small sums); none is issued yet.
            return Presented(Reason.KEY_NOT_FOR_TYPE)
        key = device_key(
            issuer.ring.code_master.reveal(),
            issuer=code.issuer,
            card=code.card,
            gen=code.gen,
            suite=code.suite,
        )
        verified = verify(
            code,
            trust=issuer.trust,
            now_unix=int(now.timestamp()),
            device_key=key,
            memory=issuer.memory,
        )
    except Refused as refused:
        return Presented(refused.reason)
    if not code.flags & purpose:
        return Presented(Reason.NOT_ENTITLED)
    return verified


def _judge(verified: Verified, row: asyncpg.Record | None, passes: str) -> Presented:
    """Return what the issuer's own rows say of a genuine code, in the order of §4.0."""
    code = verified.code
    if row is None or not row["is_issued"]:
        return Presented(Reason.NOT_IN_ISSUANCE_LOG)
    reason = standing(row["card_state"], row["medium_state"], row["gen"], cid=code.cid)
    return Presented(
        reason,
        code.cid,
        code.slot,
        row["card_id"],
        row["principal_id"],
        row["display_name"],
        passes,
    )
