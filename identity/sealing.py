"""Keys of the issuer, fields sealed with them, and blind indexes (密钥环、字段加密、盲索引).

A sealed value carries all it needs but the key-encryption key:

    version 1 | algorithm 1 | key-encryption key's id 2 | nonce 12 | wrapped data key 48 |
    nonce 12 | ciphertext with its tag, 16 longer than the value

Version 1: a fresh data key for every value, wrapped inside it. Other versions are free for values
whose data key lies elsewhere, such as one key per person in a table. Algorithm 1: AES-256-GCM.
Table, column and row are authenticated, so that a value opens only where it was put. The key id
is bound to the wrapped key alone: rotation wraps the data key anew and leaves the ciphertext.
Source: NIST SP 800-38D; docs: security and reliability, B1.
"""

import hmac
import os
import secrets
import stat
from base64 import b64decode, b64encode
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, NoReturn
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SECRET_BYTES: Final = 32
INDEX_BYTES: Final = 16
SEALED_OVERHEAD_BYTES: Final = 92
"""What sealing adds to the length of a value."""

_KIND: Final = bytes([1, 1])
"""Version 1, a data key of its own inside; algorithm 1, AES-256-GCM."""
_NONCE_BYTES: Final = 12
_RING_BYTES_MAX: Final = 65_536
# 32 random bytes hold about 30 different values; fewer than 16 come from a hand, not from chance
# (below 1 in 10^15).
_DISTINCT_BYTES_MIN: Final = 16
_DEVELOPMENT_SIGNING: Final = timedelta(days=365)


class Secret:
    """A key that never prints, encodes, copies or pickles itself; `reveal` hands it out."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """Return the bytes. Use them in the same expression; give them no name."""
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    __hash__ = None  # type: ignore[assignment]  # a hash of a key would tell of the key

    def __repr__(self) -> str:
        return "Secret(…)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not copied or pickled")


class RingProblem(StrEnum):
    """Why a key ring is not used. A closed set."""

    UNREADABLE = "unreadable"
    OPEN_TO_OTHERS = "open-to-others"
    MALFORMED = "malformed"
    DEVELOPMENT = "development-ring"
    DUPLICATE_ID = "duplicate-id"
    NO_SUCH_ACTIVE_KEY = "no-such-active-key"
    SHORT_SECRET = "short-secret"  # noqa: S105 - the name of a problem
    WEAK_SECRET = "weak-secret"  # noqa: S105 - the name of a problem
    REUSED_SECRET = "reused-secret"  # noqa: S105 - the name of a problem
    EMPTY_WINDOW = "empty-window"


class KeyRingRefused(Exception):
    """The process must not start with this ring; `detail` names members, never their values."""

    def __init__(self, problem: RingProblem, detail: str) -> None:
        super().__init__(f"{problem.value}: {detail}")
        self.problem: Final = problem


class OpenProblem(StrEnum):
    """Why a sealed value does not open. A closed set."""

    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown-key"
    FORGED = "forged"


class CannotOpen(Exception):
    """A sealed value was changed, moved, or sealed under a key this ring has not: a fault."""

    def __init__(self, problem: OpenProblem) -> None:
        super().__init__(problem.value)
        self.problem: Final = problem


class KeyEncryptionKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key that wraps data keys. It goes when no value is sealed under it any more."""

    id: Annotated[int, msgspec.Meta(ge=1, le=65_535)]
    secret: Secret


class IssuerKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key that signs credentials, in the half-open span `[sign_from, sign_until)`."""

    kid: Annotated[int, msgspec.Meta(ge=0, le=255)]
    suite: Literal[1, 2]
    """1: Ed25519 with SHA-256, a seed; 2: SM2 with SM3, a scalar. Both 32 bytes."""
    private_key: Secret
    sign_from: int
    """Unix seconds."""
    sign_until: int

    def may_sign(self, now: datetime) -> bool:
        """Return whether `now` lies in the key's span."""
        return self.sign_from <= now.timestamp() < self.sign_until


class AccessTokenKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An Ed25519 seed that signs access tokens; one that is not active still verifies."""

    kid: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,32}\Z")]
    private_key: Secret


class KeyRing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every secret of the issuer that is not a provider's; the shape of its file as well."""

    format: Literal["yuanka-key-ring-1"]
    purpose: Literal["production", "development"]
    key_encryption_keys: tuple[KeyEncryptionKey, ...]
    active_key_encryption_key: int
    index_key: Secret
    pin_pepper: Secret
    code_master: Secret
    """From which the key of each card and phone is made (code format, Kd)."""
    issuer_keys: tuple[IssuerKey, ...]
    access_token_keys: tuple[AccessTokenKey, ...]
    active_access_token_key: str

    def __repr__(self) -> str:
        return f"KeyRing({self.purpose})"

    def key_encryption_key(self, key_id: int) -> Secret | None:
        """Return the key-encryption key of that id, or None."""
        return next((key.secret for key in self.key_encryption_keys if key.id == key_id), None)

    def issuer_key(self, kid: int) -> IssuerKey | None:
        """Return the issuer key of that id, whether or not it may sign, or None."""
        return next((key for key in self.issuer_keys if key.kid == kid), None)


def load_ring(path: Path, *, is_production: bool) -> KeyRing:
    """Read the key ring's file, which must be its owner's alone: mode 0400 or 0600.

    Raises:
        KeyRingRefused: the file or what it holds breaks a rule.
    """
    try:
        with path.open("rb") as file:
            # By descriptor, so that the file whose mode is judged is the file that is read.
            status = os.fstat(file.fileno())
            raw = file.read(_RING_BYTES_MAX + 1)
    except OSError as error:
        raise KeyRingRefused(RingProblem.UNREADABLE, f"{error.strerror}: {path}") from None
    mode = stat.S_IMODE(status.st_mode)
    if mode not in (0o400, 0o600) or status.st_uid not in (0, os.geteuid()):
        raise KeyRingRefused(RingProblem.OPEN_TO_OTHERS, f"mode {mode:04o}: {path}")
    return parse_ring(raw, is_production=is_production)


def parse_ring(raw: bytes, *, is_production: bool) -> KeyRing:
    """Read a key ring from JSON and judge it; keys are standard base64.

    Raises:
        KeyRingRefused: what it holds breaks a rule; production also refuses development rings.
    """
    if len(raw) > _RING_BYTES_MAX:
        raise KeyRingRefused(RingProblem.MALFORMED, f"longer than {_RING_BYTES_MAX} bytes")
    try:
        ring = msgspec.json.decode(raw, type=KeyRing, dec_hook=_secret)
    except msgspec.MsgspecError as error:
        # msgspec names the place, never the value; the chain is cut all the same.
        raise KeyRingRefused(RingProblem.MALFORMED, str(error)) from None
    if is_production and ring.purpose != "production":
        raise KeyRingRefused(RingProblem.DEVELOPMENT, "made for development")
    _check_ids(ring)
    _check_secrets(ring)
    for key in ring.issuer_keys:
        if key.sign_from >= key.sign_until:
            raise KeyRingRefused(RingProblem.EMPTY_WINDOW, f"issuer key {key.kid}")
    return ring


def make_development_ring(*, now: datetime) -> bytes:
    """Return the JSON of a fresh ring that production refuses, for the demo and the tests.

    Issuer key 1 is of suite 1, issuer key 2 of suite 2; both sign for a year around `now`,
    so that a demo left alone does not stop after the 90 days of a true key.
    """
    now_unix = int(now.timestamp())
    signs = {
        "sign_from": now_unix - 86_400,
        "sign_until": now_unix + int(_DEVELOPMENT_SIGNING.total_seconds()),
    }
    # An SM2 scalar must be below the order of the curve; of 255 bits it always is.
    scalar = b64encode(secrets.randbits(255).to_bytes(SECRET_BYTES, "big")).decode()
    ring = {
        "format": "yuanka-key-ring-1",
        "purpose": "development",
        "key_encryption_keys": [{"id": 1, "secret": _fresh()}],
        "active_key_encryption_key": 1,
        "index_key": _fresh(),
        "pin_pepper": _fresh(),
        "code_master": _fresh(),
        "issuer_keys": [
            {"kid": 1, "suite": 1, "private_key": _fresh(), **signs},
            {"kid": 2, "suite": 2, "private_key": scalar, **signs},
        ],
        "access_token_keys": [{"kid": "development-1", "private_key": _fresh()}],
        "active_access_token_key": "development-1",
    }
    return msgspec.json.format(msgspec.json.encode(ring))


def seal(ring: KeyRing, plaintext: bytes, *, table: str, column: str, row_id: UUID) -> bytes:
    """Return `plaintext` sealed for one field of one row, `SEALED_OVERHEAD_BYTES` longer.

    The length of the value shows; pad what must not tell it. Moving the value to another
    field, or the row to another id, makes it unreadable.
    """
    context = _context(table, column, row_id)
    data_key = Secret(secrets.token_bytes(SECRET_BYTES))
    head = _wrap(ring, data_key, context)
    nonce = secrets.token_bytes(_NONCE_BYTES)
    ciphertext = AESGCM(data_key.reveal()).encrypt(nonce, plaintext, context)
    return head + nonce + ciphertext


def open_sealed(ring: KeyRing, sealed: bytes, *, table: str, column: str, row_id: UUID) -> bytes:
    """Return what was sealed for this field of this row.

    Raises:
        CannotOpen: changed, moved, or sealed under a key that the ring has not.
    """
    context = _context(table, column, row_id)
    parts = _split(sealed)
    data_key = _unwrap(ring, parts, context)
    try:
        return AESGCM(data_key.reveal()).decrypt(parts.nonce, parts.ciphertext, context)
    except InvalidTag:
        raise CannotOpen(OpenProblem.FORGED) from None


def rewrap(ring: KeyRing, sealed: bytes, *, table: str, column: str, row_id: UUID) -> bytes:
    """Return the value under the active key-encryption key; the same bytes where it already is.

    The ciphertext is not opened: rotation never sees what is sealed.

    Raises:
        CannotOpen: the wrapped key was changed, moved, or is under a key that the ring has not.
    """
    context = _context(table, column, row_id)
    parts = _split(sealed)
    if parts.key_id == ring.active_key_encryption_key:
        return sealed
    head = _wrap(ring, _unwrap(ring, parts, context), context)
    return head + parts.nonce + parts.ciphertext


def key_id_of(sealed: bytes) -> int:
    """Return the id of the key-encryption key that a value is under, to count a rotation.

    Raises:
        CannotOpen: `malformed`.
    """
    return _split(sealed).key_id


def blind_index(ring: KeyRing, column: str, value: str) -> bytes:
    """Return 16 bytes that are equal for equal values of a column, and tell nothing else.

    HMAC-SHA256 under the index key over column, 0x1F and value in UTF-8, cut short. The caller
    normalizes the value; `column` names what is compared, the same wherever it is stored.
    Whoever holds the index key can try all ID numbers.
    """
    assert "\x1f" not in column, "the separator must separate"
    message = f"{column}\x1f{value}".encode()
    return hmac.digest(ring.index_key.reveal(), message, "sha256")[:INDEX_BYTES]


class _Sealed(NamedTuple):
    key_id: int
    wrap_nonce: bytes
    wrapped: bytes
    nonce: bytes
    ciphertext: bytes


def _split(sealed: bytes) -> _Sealed:
    if len(sealed) < SEALED_OVERHEAD_BYTES or sealed[:2] != _KIND:
        raise CannotOpen(OpenProblem.MALFORMED)
    return _Sealed(
        key_id=int.from_bytes(sealed[2:4], "big"),
        wrap_nonce=sealed[4:16],
        wrapped=sealed[16:64],
        nonce=sealed[64:76],
        ciphertext=sealed[76:],
    )


def _wrap(ring: KeyRing, data_key: Secret, context: bytes) -> bytes:
    """Return the head of a sealed value, up to and with its wrapped data key."""
    key_id = ring.active_key_encryption_key
    key = ring.key_encryption_key(key_id)
    assert key is not None, "parse_ring refuses a ring without its active key"
    bound_id = key_id.to_bytes(2, "big")
    nonce = secrets.token_bytes(_NONCE_BYTES)
    wrapped = AESGCM(key.reveal()).encrypt(nonce, data_key.reveal(), bound_id + context)
    return _KIND + bound_id + nonce + wrapped


def _unwrap(ring: KeyRing, parts: _Sealed, context: bytes) -> Secret:
    key = ring.key_encryption_key(parts.key_id)
    if key is None:
        raise CannotOpen(OpenProblem.UNKNOWN_KEY)
    bound_id = parts.key_id.to_bytes(2, "big")
    try:
        cipher = AESGCM(key.reveal())
        return Secret(cipher.decrypt(parts.wrap_nonce, parts.wrapped, bound_id + context))
    except InvalidTag:
        raise CannotOpen(OpenProblem.FORGED) from None


def _context(table: str, column: str, row_id: UUID) -> bytes:
    # Lengths in front, so that no two fields share a context, whatever their names hold.
    names = (table.encode(), column.encode())
    return _KIND + b"".join(bytes([len(name)]) + name for name in names) + row_id.bytes


def _secret(kind: type, value: Any) -> Secret:
    assert kind is Secret
    if not isinstance(value, str):
        raise TypeError("a secret is a string")
    try:
        return Secret(b64decode(value, validate=True))
    except ValueError:
        raise ValueError("a secret is standard base64") from None


def _fresh() -> str:
    return b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def _check_ids(ring: KeyRing) -> None:
    key_ids = [key.id for key in ring.key_encryption_keys]
    token_ids = [key.kid for key in ring.access_token_keys]
    issuer_ids = [key.kid for key in ring.issuer_keys]
    for ids in (key_ids, issuer_ids, token_ids):
        if len(ids) != len(set(ids)):
            raise KeyRingRefused(RingProblem.DUPLICATE_ID, f"among {ids}")
    if ring.active_key_encryption_key not in key_ids:
        raise KeyRingRefused(RingProblem.NO_SUCH_ACTIVE_KEY, "key-encryption key")
    if ring.active_access_token_key not in token_ids:
        raise KeyRingRefused(RingProblem.NO_SUCH_ACTIVE_KEY, "access-token key")


def _check_secrets(ring: KeyRing) -> None:
    secrets_by_name = {
        "index_key": ring.index_key,
        "pin_pepper": ring.pin_pepper,
        "code_master": ring.code_master,
        **{f"key-encryption key {key.id}": key.secret for key in ring.key_encryption_keys},
        **{f"issuer key {key.kid}": key.private_key for key in ring.issuer_keys},
        **{f"access-token key {key.kid}": key.private_key for key in ring.access_token_keys},
    }
    seen: dict[bytes, str] = {}
    for name, secret in secrets_by_name.items():
        value = secret.reveal()
        if len(value) != SECRET_BYTES:
            detail = f"{name} has {len(value)} bytes, not {SECRET_BYTES}"
            raise KeyRingRefused(RingProblem.SHORT_SECRET, detail)
        if len(set(value)) < _DISTINCT_BYTES_MIN:
            raise KeyRingRefused(RingProblem.WEAK_SECRET, f"{name} is not random")
        if value in seen:
            raise KeyRingRefused(RingProblem.REUSED_SECRET, f"{name} is {seen[value]}")
        seen[value] = name
