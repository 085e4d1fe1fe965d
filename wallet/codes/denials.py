"""Cards an acceptor refuses without asking (拒绝名单), as lists it carries for when it is offline.

    "YKD1" ISS4 SEQ4 BASE4 ISSUED4 KID1 SUITE1 N4, N × {CARD8 MIN_GEN1 CODE1 UNTIL4}, SIG64

SIG64 is the issuer's signature over "YK1D" ‖ everything before it. A code is hit if its card is
equal and its phone generation lower than MIN_GEN; 255 stands above every generation. Rule: code
format, section 6. The bare JSON form, [["CARD_HEX", MIN_GEN], …], is for tests alone.
"""

import struct
from collections.abc import Mapping
from itertools import pairwise

import msgspec
from msgspec import Struct

from wallet.codes.reasons import Refused
from wallet.codes.suites import SIGNATURE_BYTES, SUITES
from wallet.codes.trust import U8, Trust
from wallet.codes.wire import Credential

MAGIC = b"YKD1"
_HEAD = struct.Struct(">4sIIIIBBI")
_ENTRY = struct.Struct(">8sBBI")
_CARD_BYTES = 8


class DenyListMalformed(ValueError):
    """The bytes are no deny list, or not a trusted issuer's; no part of them is used."""


class Denial(Struct, frozen=True):
    """Which phone generations of one card are refused, and until when."""

    min_gen: int
    until_unix: int | None
    """First second at which no credential it concerns can be alive; None for ever."""


class DenyList(Struct, frozen=True, kw_only=True):
    """One issuer's refused cards; the bare form names no issuer and holds for all."""

    issuer: int | None
    sequence: int
    base: int
    issued_unix: int
    denials: Mapping[bytes, Denial]

    def refuses(self, credential: Credential, *, now_unix: int) -> bool:
        """Whether the list hits this credential's card and phone generation at this second."""
        if self.issuer is not None and self.issuer != credential.issuer:
            return False
        denial = self.denials.get(credential.card)
        if denial is None or credential.gen >= denial.min_gen:
            return False
        return denial.until_unix is None or now_unix < denial.until_unix


def parse_deny_list(data: bytes, *, trust: Trust, now_unix: int) -> DenyList:
    """Return the list of either form; of the signed one only if a trusted key signed it.

    Raises:
        DenyListMalformed: in neither form, cards out of order or twice, or not signed by a key
            that its issuer may use now.
    """
    if not data.startswith(MAGIC):
        return _parse_bare(data)
    if len(data) < _HEAD.size + SIGNATURE_BYTES:
        raise DenyListMalformed("cut short")
    _, issuer, sequence, base, issued_unix, key_id, suite, count = _HEAD.unpack_from(data)
    if len(data) != _HEAD.size + count * _ENTRY.size + SIGNATURE_BYTES:
        raise DenyListMalformed("its length is not that of its number of entries")
    # Before the entries are read, so that nobody but the issuer can make us read a million.
    _check_signature(data, trust, now_unix, issuer=issuer, key_id=key_id, suite=suite)
    entries = list(_ENTRY.iter_unpack(data[_HEAD.size : -SIGNATURE_BYTES]))
    if any(card >= next_card for (card, *_), (next_card, *_) in pairwise(entries)):
        raise DenyListMalformed("cards are not in ascending order")
    return DenyList(
        issuer=issuer,
        sequence=sequence,
        base=base,
        issued_unix=issued_unix,
        denials={card: Denial(min_gen, until) for card, min_gen, _, until in entries},
    )


def _check_signature(
    data: bytes, trust: Trust, now_unix: int, *, issuer: int, key_id: int, suite: int
) -> None:
    try:
        key = trust.key_at(now_unix, issuer=issuer, key_id=key_id)
    except Refused as refusal:
        raise DenyListMalformed(f"not of a trusted key: {refusal}") from refusal
    if key.suite != suite or suite not in SUITES:
        raise DenyListMalformed("the key is of another suite")
    signed, signature = b"YK1D" + data[:-SIGNATURE_BYTES], data[-SIGNATURE_BYTES:]
    if not SUITES[suite].verify(key.public_key, signed, signature):
        raise DenyListMalformed("the signature is not the issuer's")


def _parse_bare(data: bytes) -> DenyList:
    try:
        rows = msgspec.json.decode(data, type=list[tuple[str, U8]])
        pairs = [(bytes.fromhex(card), min_gen) for card, min_gen in rows]
    except ValueError as error:  # All of msgspec's and the hex reader's complaints are of it.
        raise DenyListMalformed(f"no deny list: {error}") from error
    if any(len(card) != _CARD_BYTES for card, _ in pairs):
        raise DenyListMalformed(f"a card handle has {_CARD_BYTES} bytes")
    denials: dict[bytes, Denial] = {}
    for card, min_gen in pairs:
        known = denials.get(card)
        denials[card] = Denial(max(min_gen, known.min_gen if known else 0), None)
    return DenyList(issuer=None, sequence=0, base=0, issued_unix=0, denials=denials)
