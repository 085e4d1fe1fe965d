"""May this code be believed (验码): the order of code format, section 4.0, first failure wins.

    parsed → trusted → authentic → fresh  (`verify`: needs no state)
           → unrevoked → unused           (`check_unrevoked`, `check_unused`: an acceptor's own)

Backend, gate and conformance tool share it. The backend replaces the second half by its issuance
log, card state and replay table; rights and money come after, elsewhere. Every check raises its
reason and nothing about the card leaves before signature and chain have passed.
"""

from collections import OrderedDict
from hmac import compare_digest
from threading import Lock

from msgspec import Struct

from wallet.codes.chains import Position, follow, make_tag
from wallet.codes.denials import DenyList
from wallet.codes.reasons import Reason, Refused
from wallet.codes.suites import SUITES
from wallet.codes.trust import Trust, TrustedKey
from wallet.codes.wire import Code, Flag, Kind, parse

ONLINE_SLOTS = 2
OFFLINE_SLOTS = 4
REMEMBERED_MAX = 20_000


class Verified(Struct, frozen=True, kw_only=True):
    """A code that passed, and what it cost."""

    code: Code
    key: TrustedKey
    slots_off: int
    """Slot shown minus the slot of our clock; 0 for a static code."""
    hashes: int
    """Links of the chain computed."""
    was_remembered: bool
    """The signature was checked before and not again."""


class Memory:
    """What a verifier remembers of credentials it has verified (验签缓存), so the next is cheap.

    The key is every byte the signature depends on, public key included: a credential altered
    in any way, or a key replaced in the trust list, is a stranger. The value is the latest
    position of the chain that was followed. Only `verify` writes, and only once signature, chain
    and tag have passed, so that a stranger can fill nothing. The oldest entries are forgotten
    first; one takes about 0.7 kB. Safe to share between threads.
    """

    def __init__(self, capacity: int = REMEMBERED_MAX) -> None:
        self._capacity = capacity
        self._positions: OrderedDict[bytes, Position] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._positions)

    def get(self, credential: bytes) -> Position | None:
        """Return the latest position followed; None for a credential never verified."""
        with self._lock:
            position = self._positions.get(credential)
            if position is not None:
                self._positions.move_to_end(credential)
            return position

    def put(self, credential: bytes, position: Position) -> None:
        """Remember a position that was followed, unless a later one is known."""
        with self._lock:
            known = self._positions.get(credential)
            if known is None or known.slot < position.slot:
                self._positions[credential] = position
            self._positions.move_to_end(credential)
            if len(self._positions) > self._capacity:
                self._positions.popitem(last=False)


def verify(
    code: Code,
    trust: Trust,
    *,
    now_unix: int,
    tolerance_slots: int = ONLINE_SLOTS,
    device_key: bytes | None = None,
    memory: Memory | None = None,
    accepts_test: bool = False,
) -> Verified:
    """Return the code as believed, whatever state its card is in.

    `device_key` is Kd of this card and generation, where it is at hand. The second scan of a
    credential that is in `memory` costs one hash per slot since the last, and no signature check.

    Raises:
        Refused: 207, 201, 202, 203, 208, 204, 301, 302, 101 (slot past the window), 303, 304,
            205, 206: tried in this order.
    """
    if code.flags & Flag.TEST and not accepts_test:
        raise Refused(Reason.TEST_CODE)
    key = trust.key_at(now_unix, issuer=code.issuer, key_id=code.key_id)
    if key.suite != code.suite:
        raise Refused(Reason.SUITE_MISMATCH)
    if code.kind not in key.kinds:
        raise Refused(Reason.KEY_NOT_FOR_TYPE)
    credential = key.public_key + code.body + code.signature
    known = memory.get(credential) if memory is not None else None
    _check_signature(code, key, was_remembered=known is not None)
    slots_off = _check_time(code, now_unix, tolerance_slots)
    position = known or Position(-1, code.anchor)
    hashes = _check_use(code, position, device_key)
    if memory is not None:
        memory.put(credential, Position(code.slot, code.proof))
    return Verified(
        code=code, key=key, slots_off=slots_off, hashes=hashes, was_remembered=known is not None
    )


def check_unrevoked(code: Code, deny_list: DenyList, *, now_unix: int) -> None:
    """Hold the code against a deny list an acceptor carries.

    Raises:
        Refused: 401, all that such a list can tell.
    """
    if deny_list.refuses(code, now_unix=now_unix):
        raise Refused(Reason.REVOKED)


def check_unused(code: Code, *, last_slot: int | None) -> None:
    """Hold a chain code against the last slot used of its credential.

    Not only the same slot but every earlier one is used up. A static code shows the same bytes
    each time, so replay says nothing of it; what it needs is the look at its holder (PHOTO).

    Raises:
        Refused: 305.
    """
    if code.kind is Kind.CHAIN and last_slot is not None and code.slot <= last_slot:
        raise Refused(Reason.REPLAYED)


def judge(
    text: str,
    trust: Trust,
    *,
    now_unix: int,
    deny_list: DenyList | None = None,
    last_slot: int | None = None,
    tolerance_slots: int = ONLINE_SLOTS,
    device_key: bytes | None = None,
    accepts_test: bool = False,
) -> Verified:
    """Return the verdict of an acceptor that has nothing but these lists (离线验码).

    Raises:
        Refused: 101, 102, 103; then as `verify`; then 401; then 305.
    """
    verified = verify(
        parse(text),
        trust,
        now_unix=now_unix,
        tolerance_slots=tolerance_slots,
        device_key=device_key,
        accepts_test=accepts_test,
    )
    if deny_list is not None:
        check_unrevoked(verified.code, deny_list, now_unix=now_unix)
    check_unused(verified.code, last_slot=last_slot)
    return verified


def _check_signature(code: Code, key: TrustedKey, *, was_remembered: bool) -> None:
    if was_remembered:
        return
    if not SUITES[key.suite].verify(key.public_key, code.signed_message, code.signature):
        raise Refused(Reason.BAD_SIGNATURE)


def _check_time(code: Code, now_unix: int, tolerance_slots: int) -> int:
    """Return by how many slots the code is ahead of our clock (behind: negative).

    A tolerance of k slots is −k…+k whole slots, counted between the slot shown and the slot of
    our clock. The window is widened by the same k at both ends, [start − k·length, end + k·length),
    since that is exactly when some slot of it is within the tolerance: a phone whose clock is
    ahead shows slot 0 before the window starts, one behind its last slot after the window ends.
    A static code has no slots (length 0) and so no tolerance: whole days need none.
    """
    margin_seconds = tolerance_slots * code.slot_seconds
    if now_unix < code.starts_unix - margin_seconds:
        raise Refused(Reason.NOT_YET_VALID)
    if now_unix >= code.ends_unix + margin_seconds:
        raise Refused(Reason.EXPIRED)
    if code.kind is Kind.STATIC:
        return 0
    if code.slot >= code.span:
        raise Refused(Reason.MALFORMED)
    slots_off = code.slot - (now_unix - code.starts_unix) // code.slot_seconds
    if slots_off < -tolerance_slots:
        raise Refused(Reason.STALE_CODE)
    if slots_off > tolerance_slots:
        raise Refused(Reason.FUTURE_CODE)
    return slots_off


def _check_use(code: Code, known: Position, device_key: bytes | None) -> int:
    """Return how many hashes joined the proof to its chain, once that and the tag hold."""
    if code.kind is Kind.STATIC:
        return 0
    hashes = follow(SUITES[code.suite], code, known)
    if hashes is None:
        raise Refused(Reason.BAD_PROOF)
    if device_key is not None and not compare_digest(make_tag(device_key, code), code.tag):
        raise Refused(Reason.BAD_TAG)
    return hashes
