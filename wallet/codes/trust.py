"""Whose signatures count (信任名单): the keys of each issuer, until when and for which codes.

Read from the bare JSON form of docs and tests, or from the signed list, whose own signature is
checked by whoever fetched it: what arrives here is believed. Members this verifier has no use for
(names of groups, addresses, acceptance) are left alone. Rule: code format, sections 2, 3 and 6.
"""

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from wallet.codes.reasons import Reason, Refused
from wallet.codes.suites import SUITES

U8 = Annotated[int, Meta(ge=0, le=0xFF)]
U32 = Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)]


class TrustMalformed(ValueError):
    """The text is no trust list; no part of it is used."""


class TrustedKey(Struct, frozen=True, kw_only=True):
    """One key of one issuer; good for checking in [verify_from_unix, verify_until_unix)."""

    issuer: int
    key_id: int
    suite: int
    public_key: bytes
    kinds: frozenset[int]
    """Types of code it may sign: 0 static, 1 chain."""
    verify_from_unix: int
    verify_until_unix: int
    is_revoked: bool


class Trust(Struct, frozen=True):
    """Issuer number → key id → key."""

    issuers: Mapping[int, Mapping[int, TrustedKey]]

    def key_at(self, now_unix: int, *, issuer: int, key_id: int) -> TrustedKey:
        """Return the key if it may check signatures at this second.

        Raises:
            Refused: 201 the issuer is not in the list, 202 the key is not, or was revoked, or is
                outside its verify time.
        """
        keys = self.issuers.get(issuer)
        if keys is None:
            raise Refused(Reason.UNKNOWN_ISSUER)
        key = keys.get(key_id)
        if key is None or key.is_revoked:
            raise Refused(Reason.UNKNOWN_KEY)
        if not key.verify_from_unix <= now_unix < key.verify_until_unix:
            raise Refused(Reason.UNKNOWN_KEY)
        return key


class _KeyEntry(Struct, frozen=True):
    kid: U8
    suite: int
    pub: str
    types: frozenset[int]
    verify_until: int
    sign_from: int = 0
    status: str = "active"


class _IssuerEntry(Struct, frozen=True):
    iss: U32
    keys: list[_KeyEntry]


class _TrustEntry(Struct, frozen=True):
    issuers: list[_IssuerEntry]


def parse_trust(text: str | bytes) -> Trust:
    """Return the trust a JSON list states, bare or signed form; `pub` is hex.

    A key of a suite this program does not know is kept, so that its codes are told apart (203)
    from those of an unknown key.

    Raises:
        TrustMalformed: not in this form, a key that cannot be one, or an issuer or key id twice:
            which of the two is meant must never be a guess.
    """
    try:
        entry = msgspec.json.decode(text, type=_TrustEntry)
        issuers = {each.iss: _keys(each) for each in entry.issuers}
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise TrustMalformed(f"no trust list: {error}") from error
    if len(issuers) != len(entry.issuers):
        raise TrustMalformed("an issuer stands in the trust list twice")
    return Trust(issuers)


def _keys(entry: _IssuerEntry) -> dict[int, TrustedKey]:
    keys = {key.kid: _key(entry.iss, key) for key in entry.keys}
    if len(keys) != len(entry.keys):
        raise TrustMalformed(f"issuer {entry.iss} has a key id twice")
    return keys


def _key(issuer: int, entry: _KeyEntry) -> TrustedKey:
    try:
        public_key = bytes.fromhex(entry.pub)
    except ValueError as error:
        raise TrustMalformed(f"key {entry.kid} of issuer {issuer} is not hex") from error
    suite = SUITES.get(entry.suite)
    if suite is not None and len(public_key) != suite.public_key_bytes:
        raise TrustMalformed(f"key {entry.kid} of issuer {issuer} is not of {suite.name}")
    return TrustedKey(
        issuer=issuer,
        key_id=entry.kid,
        suite=entry.suite,
        public_key=public_key,
        kinds=entry.types,
        verify_from_unix=entry.sign_from,
        verify_until_unix=entry.verify_until,
        is_revoked=entry.status == "revoked",
    )
