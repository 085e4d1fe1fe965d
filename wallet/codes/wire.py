"""Bytes and text of a code (码的编码): fixed layout, no choices, so nothing to guess while reading.

    text  = "YK1" + base32(bytes), RFC 4648 alphabet, upper case, no padding
    bytes = credential ‖ issuer signature                                   static, 93 bytes
    bytes = credential ‖ anchor ‖ issuer signature ‖ slot ‖ proof ‖ tag     chain, 135 bytes

Layout and rules: code format, section 1. This module only reads and writes; whether a code is true
is the verifier's question.
"""

import base64
import struct
from enum import IntEnum, IntFlag

from msgspec import Struct, structs

from wallet.codes.reasons import Reason, Refused

PREFIX = b"YK1"
VERSION = 1
KNOWN_SUITES = frozenset({1, 2})
SLOT_SECONDS = frozenset({10, 15, 20, 30})
SLOTS_MAX = 6000
STATIC_DAYS_MAX = 400
GEN_MAX = 254
HOLDER_CLASS_MAX = 7
SECONDS_PER_DAY = 86_400

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_TO_RADIX_32 = bytes.maketrans(_ALPHABET, b"0123456789ABCDEFGHIJKLMNOPQRSTUV")
_TEXT_MAX = 1000  # Longer text is refused unread; the longest code has 219 characters.
_HEADER = struct.Struct(">BBIB8sBBIBIBH")
_USE = struct.Struct(">H16s8s")
_SIGNATURE_BYTES = 64
_BYTES_MIN = 2  # Version, suite and type.
_SYMBOL_BITS = 5
# Numbering plans of the other wallets: name, numbers of digits, first two digits.
_FOREIGN_CODES = (
    ("wechat", range(18, 19), range(10, 16)),
    ("alipay", range(16, 25), range(25, 31)),
)


class Kind(IntEnum):
    """What keeps a code from being copied: nothing, or the chain."""

    STATIC = 0
    CHAIN = 1


class Flag(IntFlag):
    """What the code may be used for, and what its holder must show besides."""

    PAY = 1
    GATE = 2
    TRANSIT = 4
    PHOTO = 8
    """A look at the face, by camera or staff, is required."""
    PIN = 16
    TEST = 32


_KINDS = {int(kind): kind for kind in Kind}
_BODY_BYTES = {Kind.STATIC: 29, Kind.CHAIN: 45}
_CODE_BYTES = {Kind.STATIC: 93, Kind.CHAIN: 135}


class Credential(Struct, frozen=True, kw_only=True):
    """The part the issuer signs, behind all codes a phone shows in one window (离线凭证)."""

    suite: int
    kind: Kind
    flags: Flag
    issuer: int
    key_id: int
    card: bytes
    """Random handle of 8 bytes, never the printed number."""
    gen: int
    """Phone generation of the card, 1…254."""
    holder_class: int
    """0 adult, 1 senior, 2 child, 3 student, 4 disabled, 5 low income, 6 service, 7 visitor."""
    groups: int
    """Bitmap of the pass groups valid in this window."""
    cap_yuan: int
    """Most that may be spent offline on this credential."""
    starts_unix: int
    slot_seconds: int
    """Length of a slot; 0 in a static code."""
    span: int
    """Slots of a chain code, days of a static code."""
    anchor: bytes = b""
    """P(-1), 16 bytes; empty in a static code."""

    @property
    def ends_unix(self) -> int:
        """First second after the window."""
        unit_seconds = SECONDS_PER_DAY if self.kind is Kind.STATIC else self.slot_seconds
        return self.starts_unix + self.span * unit_seconds

    @property
    def cid(self) -> bytes:
        """The credential id, 17 bytes; together with the slot it is the replay key."""
        return struct.pack(">I8sBI", self.issuer, self.card, self.gen, self.starts_unix)

    @property
    def body(self) -> bytes:
        """Every byte before the signature: 45 in a chain code, 29 in a static one."""
        return (
            _HEADER.pack(
                VERSION << 4 | self.suite,
                self.kind << 6 | self.flags,
                self.issuer,
                self.key_id,
                self.card,
                self.gen,
                self.holder_class,
                self.groups,
                self.cap_yuan,
                self.starts_unix,
                self.slot_seconds,
                self.span,
            )
            + self.anchor
        )

    @property
    def signed_message(self) -> bytes:
        """What the issuer's signature covers."""
        return b"YK1C" + self.body


class Code(Credential, frozen=True, kw_only=True):
    """What a phone shows: a credential, its signature, and for a chain code this one use of it."""

    signature: bytes
    """64 bytes; for SM2 raw r‖s."""
    slot: int = 0
    proof: bytes = b""
    """P(slot), 16 bytes; empty in a static code."""
    tag: bytes = b""
    """8 bytes only the issuer's backend can check; empty in a static code."""

    @property
    def tag_message(self) -> bytes:
        """What the tag covers: bytes 0…126 of a chain code."""
        use = self.slot.to_bytes(2, "big") + self.proof
        return b"YK1T" + self.body + self.signature + use


def encode(code: Code) -> str:
    """Return the text of a code.

    Raises:
        struct.error: a number does not fit its field.
    """
    raw = code.body + code.signature
    if code.kind is Kind.CHAIN:
        raw += _USE.pack(code.slot, code.proof, code.tag)
    return (PREFIX + base64.b32encode(raw).rstrip(b"=")).decode()


def parse(text: str) -> Code:
    """Return the code a scanner read, not yet verified.

    CR, LF and space are dropped and lower case is accepted, since scanners add and change those.
    Every field is held against its range in the code format, section 1, before any key is used.

    Raises:
        Refused: 101 not a code, 102 of a version, suite or type this program does not know,
            103 a pay code of WeChat or Alipay (fact `provider`). Nothing else, whatever the text.
    """
    raw = _decode(_clean(text))
    if raw[0] >> 4 != VERSION or raw[0] & 15 not in KNOWN_SUITES or raw[1] >> 6 not in _KINDS:
        # Before the length, because another version or type may have another one.
        raise Refused(Reason.UNSUPPORTED_VERSION)
    kind = _KINDS[raw[1] >> 6]
    if len(raw) != _CODE_BYTES[kind]:
        raise Refused(Reason.MALFORMED)
    body_bytes = _BODY_BYTES[kind]
    credential = parse_body(raw[:body_bytes])
    if not _is_in_range(credential):
        raise Refused(Reason.MALFORMED)
    use = raw[body_bytes + _SIGNATURE_BYTES :]
    slot, proof, tag = _USE.unpack(use) if use else (0, b"", b"")
    return Code(
        **structs.asdict(credential),
        signature=raw[body_bytes : body_bytes + _SIGNATURE_BYTES],
        slot=slot,
        proof=proof,
        tag=tag,
    )


def parse_body(body: bytes) -> Credential:
    """Return the credential of a body, or of its first 29 bytes alone: then without an anchor.

    Raises:
        ValueError: too short, or of a type this program does not know.
    """
    if len(body) < _HEADER.size:
        raise ValueError(f"a body begins with {_HEADER.size} bytes, here are {len(body)}")
    (vs, tf, issuer, key_id, card, gen, holder_class, groups, cap, starts, seconds, span) = (
        _HEADER.unpack_from(body)
    )
    return Credential(
        suite=vs & 15,
        kind=Kind(tf >> 6),
        flags=Flag(tf & 63),
        issuer=issuer,
        key_id=key_id,
        card=card,
        gen=gen,
        holder_class=holder_class,
        groups=groups,
        cap_yuan=cap,
        starts_unix=starts,
        slot_seconds=seconds,
        span=span,
        anchor=body[_HEADER.size :],
    )


def _is_in_range(credential: Credential) -> bool:
    """Each field with a closed list of values holds one of them (code format, section 1)."""
    if credential.kind is Kind.STATIC:
        is_timed = credential.slot_seconds == 0 and 1 <= credential.span <= STATIC_DAYS_MAX
    else:
        is_timed = credential.slot_seconds in SLOT_SECONDS and 1 <= credential.span <= SLOTS_MAX
    return (
        is_timed and 1 <= credential.gen <= GEN_MAX and credential.holder_class <= HOLDER_CLASS_MAX
    )


def _clean(text: str) -> bytes:
    """Return the base32 part of the text, upper case."""
    if len(text) > _TEXT_MAX or not text.isascii():
        # Python's own upper() turns some letters outside ASCII into letters of our alphabet.
        raise Refused(Reason.MALFORMED)
    stripped = text.encode("ascii").translate(None, b"\r\n ").upper()
    if not stripped.startswith(PREFIX):
        raise _not_ours(stripped)
    return stripped[len(PREFIX) :]


def _not_ours(digits: bytes) -> Refused:
    """Tell a pay code of another wallet, by its length and first two digits, from noise."""
    if digits.isdigit():
        head = int(digits[:2])
        for provider, lengths, heads in _FOREIGN_CODES:
            if len(digits) in lengths and head in heads:
                return Refused(Reason.FOREIGN_CODE, provider=provider)
    return Refused(Reason.MALFORMED)


def _decode(symbols: bytes) -> bytes:
    """Decode canonical base32 without padding into at least two bytes.

    Canonical means that encoding again gives the same symbols. With the alphabet checked, two
    texts of one value can differ only in the unused low bits of the last symbol, and a length no
    encoder produces leaves five or more of those; so both are excluded here, which is the same
    as to encode again and compare (a property test holds the two against each other).
    """
    byte_count, spare_bits = divmod(len(symbols) * 5, 8)
    if byte_count < _BYTES_MIN or spare_bits >= _SYMBOL_BITS or symbols.translate(None, _ALPHABET):
        raise Refused(Reason.MALFORMED)
    # Python reads base 32 with the digits 0-9A-V in one native step, many times faster than
    # base64.b32decode, and this runs before anything is known about who sent the text.
    value = int(symbols.translate(_TO_RADIX_32), 32)
    if value & ((1 << spare_bits) - 1):
        raise Refused(Reason.MALFORMED)
    return (value >> spare_bits).to_bytes(byte_count, "big")
