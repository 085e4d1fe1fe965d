"""Access tokens of signed-in people: JWTs that live ten minutes at most (访问令牌).

The only file that knows PyJWT. The library alone takes a token without `exp`, of any `typ`, and
reads the clock itself; here one algorithm, one type and one set of claims are accepted, and time
is an argument. A token is not a session: `session_id` says which session to look at where money
moves. Source: RFC 9068, RFC 8725; docs: security and reliability, A1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Literal
from uuid import UUID

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from identity.sealing import KeyRing

LIFETIME_SECONDS_MAX: Final = 600

Audience = Literal["citizen"]
"""Whom tokens are made for; operators have cookies, machines sign."""

_ISSUER: Final = "yuanka"
_TYPE: Final = "at+jwt"
_ALGORITHM: Final = "EdDSA"
_CHARACTERS_MAX: Final = 2_048
# Two of our processes may differ by this much; a token is made by one and read by the other.
_FUTURE_SECONDS_MAX: Final = 5


class TokenProblem(StrEnum):
    """Why a token is not taken. A closed set; outward they are one refusal."""

    MALFORMED = "malformed"
    WRONG_TYPE = "wrong-type"
    UNKNOWN_KEY = "unknown-key"
    BAD_SIGNATURE = "bad-signature"
    WRONG_AUDIENCE = "wrong-audience"
    WRONG_CLAIMS = "wrong-claims"
    TOO_LONG_LIVED = "too-long-lived"
    NOT_YET = "not-yet"
    EXPIRED = "expired"


class TokenRefused(Exception):
    """A token that does not speak for anybody."""

    def __init__(self, problem: TokenProblem) -> None:
        super().__init__(problem.value)
        self.problem: Final = problem


@dataclass(frozen=True, slots=True)
class TokenKeys:
    """Keys of access tokens, made ready once; the objects do not print what they hold."""

    active_kid: str
    private_key: Ed25519PrivateKey
    public_keys: Mapping[str, Ed25519PublicKey]


@dataclass(frozen=True, slots=True)
class Claims:
    """Whom a token speaks for, in which session, and in what span."""

    subject: UUID
    session_id: UUID
    audience: str
    issued_at: datetime
    expires_at: datetime


class _Payload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    iss: str
    aud: str
    sub: UUID
    sid: UUID
    iat: int
    exp: int


def keys_of(ring: KeyRing) -> TokenKeys:
    """Return the ring's access-token keys: the active one signs, all of them verify."""
    private_keys = {
        key.kid: Ed25519PrivateKey.from_private_bytes(key.private_key.reveal())
        for key in ring.access_token_keys
    }
    return TokenKeys(
        active_kid=ring.active_access_token_key,
        private_key=private_keys[ring.active_access_token_key],
        public_keys={kid: key.public_key() for kid, key in private_keys.items()},
    )


def issue(
    keys: TokenKeys,
    *,
    audience: Audience,
    subject: UUID,
    session_id: UUID,
    now: datetime,
    lifetime_seconds: int,
) -> str:
    """Return a token for `subject` in a session, good for `[now, now + lifetime_seconds)`.

    `lifetime_seconds` is 1 to `LIFETIME_SECONDS_MAX`.
    """
    assert 1 <= lifetime_seconds <= LIFETIME_SECONDS_MAX
    issued_at = int(now.timestamp())
    payload = {
        "iss": _ISSUER,
        "aud": audience,
        "sub": str(subject),
        "sid": str(session_id),
        "iat": issued_at,
        "exp": issued_at + lifetime_seconds,
    }
    headers = {"typ": _TYPE, "kid": keys.active_kid}
    return jwt.encode(payload, keys.private_key, algorithm=_ALGORITHM, headers=headers)


def read(token: str, keys: TokenKeys, *, audience: Audience, now: datetime) -> Claims:
    """Return what a token says, if it is ours, for this audience and good at `now`.

    Raises:
        TokenRefused: with the first problem met.
    """
    payload = _payload(token, _public_key(token, keys), audience)
    now_unix = now.timestamp()
    if not 0 < payload.exp - payload.iat <= LIFETIME_SECONDS_MAX:
        raise TokenRefused(TokenProblem.TOO_LONG_LIVED)
    if payload.iat > now_unix + _FUTURE_SECONDS_MAX:
        raise TokenRefused(TokenProblem.NOT_YET)
    if now_unix >= payload.exp:
        raise TokenRefused(TokenProblem.EXPIRED)
    return Claims(
        subject=payload.sub,
        session_id=payload.sid,
        audience=payload.aud,
        issued_at=datetime.fromtimestamp(payload.iat, UTC),
        expires_at=datetime.fromtimestamp(payload.exp, UTC),
    )


def _public_key(token: str, keys: TokenKeys) -> Ed25519PublicKey:
    """Return the key that a token's header names; the header must be exactly ours."""
    if len(token) > _CHARACTERS_MAX or not token.isascii():
        raise TokenRefused(TokenProblem.MALFORMED)
    try:
        header: dict[str, Any] = jwt.get_unverified_header(token)
    except jwt.InvalidTokenError:
        raise TokenRefused(TokenProblem.MALFORMED) from None
    if header.keys() != {"alg", "typ", "kid"} or header["alg"] != _ALGORITHM:
        raise TokenRefused(TokenProblem.MALFORMED)
    if header["typ"] != _TYPE:
        raise TokenRefused(TokenProblem.WRONG_TYPE)
    public_key = keys.public_keys.get(header["kid"])
    if public_key is None:
        raise TokenRefused(TokenProblem.UNKNOWN_KEY)
    return public_key


def _payload(token: str, public_key: Ed25519PublicKey, audience: Audience) -> _Payload:
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            public_key,
            algorithms=[_ALGORITHM],
            audience=audience,
            issuer=_ISSUER,
            options={
                "require": ["iss", "aud", "sub", "iat", "exp"],
                "strict_aud": True,
                # The library would read the clock; `read` judges both against `now`.
                "verify_exp": False,
                "verify_iat": False,
            },
        )
        return msgspec.convert(claims, _Payload)
    except jwt.InvalidSignatureError:
        raise TokenRefused(TokenProblem.BAD_SIGNATURE) from None
    except jwt.InvalidAudienceError:
        raise TokenRefused(TokenProblem.WRONG_AUDIENCE) from None
    except (jwt.InvalidTokenError, msgspec.ValidationError):
        raise TokenRefused(TokenProblem.WRONG_CLAIMS) from None
