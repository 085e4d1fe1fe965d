"""Signed requests of machines: the profile `yuanka-v1` of RFC 9421 (签名请求).

Merchants' servers, tills and gates sign every call with their own Ed25519 key. What a signature
covers is policy, so there is one fixed list, and the verifier accepts one spelling of it:

    read → check_body → check_time → (the caller looks the key up) → check_signature

A nonce only makes two signatures differ. A request happens once by its own number.
Source: RFC 9421 sections 2 and 3, RFC 9530 section 2, RFC 8032;
docs of the profile: security and reliability, A2.
"""

import re
import secrets
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from hmac import compare_digest
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from nacl.bindings import crypto_core_ed25519_is_valid_point, crypto_sign_open
from nacl.exceptions import BadSignatureError

WINDOW_SECONDS: Final = 60
"""How far `created` may lie from the server's clock, either way, both ends included."""

PUBLIC_KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64

_COVERED: Final = '("@method" "@authority" "@path" "@query" "content-digest")'
_TAG: Final = "yuanka-v1"
_NONCE_BYTES: Final = 16
_ENROLMENT_DOMAIN: Final = b"YK1E"

# The last character before the padding has bits that decoding drops; only the one spelling with
# those bits at zero is accepted, so that no byte of a signed request can change unseen.
_BASE64_OF_32: Final = rb"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]="
_BASE64_OF_64: Final = rb"[A-Za-z0-9+/]{85}[AQgw]=="

_INPUT: Final = re.compile(
    rb"sig1=(?P<params>"
    + re.escape(_COVERED.encode())
    + rb";created=(?P<created>[1-9][0-9]{9})"
    + rb';keyid="(?P<keyid>[A-Za-z0-9._:-]{1,64})"'
    + rb';nonce="[A-Za-z0-9_-]{22}"'
    + rb';tag="'
    + re.escape(_TAG.encode())
    + rb'")'
)
_SIGNATURE: Final = re.compile(rb"sig1=:(?P<signature>" + _BASE64_OF_64 + rb"):")
_DIGEST: Final = re.compile(rb"sha-256=:" + _BASE64_OF_32 + rb":")
_KEYID: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
# What a line of the signature base may hold: printable ASCII. A line feed in a path would let
# one request be read as another.
_VISIBLE: Final = re.compile(rb"[\x21-\x7e]*")


class SignatureProblem(StrEnum):
    """Why a request is not taken as its signer's. A closed set."""

    MISSING = "missing"
    MALFORMED = "malformed"
    DIGEST_MISMATCH = "digest-mismatch"
    CLOCK_SKEW = "clock-skew"
    UNKNOWN_KEY = "unknown-key"
    BAD_SIGNATURE = "bad-signature"


class SignatureRefused(Exception):
    """A request, or an enrolment's proof, that is not taken; the edge decides what to say."""

    def __init__(self, problem: SignatureProblem) -> None:
        super().__init__(problem.value)
        self.problem: Final = problem


class WeakPublicKey(Exception):
    """Not a public key that can be trusted: wrong length, no point, or of small order."""


@dataclass(frozen=True, slots=True)
class SignedInput:
    """What the three headers of a signed request say, before any of it is believed."""

    keyid: str
    created: int
    """Unix seconds."""
    params: bytes
    """The value of `@signature-params`, byte for byte as sent."""
    content_digest: bytes
    """The whole value of the header `Content-Digest`."""
    signature: bytes


def sign(
    private_key: Ed25519PrivateKey,
    *,
    keyid: str,
    method: str,
    authority: str,
    path: str,
    query: str,
    body: bytes,
    now: datetime,
) -> dict[str, str]:
    """Return the three headers that sign a request; a retry is signed anew.

    Args:
        private_key: the machine's own key.
        keyid: the id under which its public key is registered, 1 to 64 of `A-Za-z0-9._:-`.
        method: in upper case.
        authority: host and port as the server is configured, not as the client resolved it.
        path: percent-encoded, as it goes over the wire.
        query: without the question mark, percent-encoded; empty where there is none.
        body: the raw bytes; empty bytes are digested too.
        now: the signer's clock.

    Raises:
        ValueError: a part cannot be signed in this profile.
    """
    created = int(now.timestamp())
    nonce = secrets.token_urlsafe(_NONCE_BYTES)
    if _KEYID.fullmatch(keyid) is None:
        raise ValueError("keyid must be 1 to 64 of A-Z a-z 0-9 . _ : -")
    params = f'{_COVERED};created={created};keyid="{keyid}";nonce="{nonce}";tag="{_TAG}"'
    digest = _digest_of(body)
    base = _base(
        method=method.encode(),
        authority=authority.encode(),
        path=path.encode(),
        query=query.encode(),
        content_digest=digest,
        params=params.encode(),
    )
    if base is None:
        raise ValueError("method, authority, path and query must be printable ASCII")
    signature = b64encode(private_key.sign(base)).decode()
    return {
        "Content-Digest": digest.decode(),
        "Signature-Input": f"sig1={params}",
        "Signature": f"sig1=:{signature}:",
    }


def read(headers: Iterable[tuple[bytes, bytes]]) -> SignedInput:
    """Read the headers of a signed request, each exactly once and in the one spelling.

    Args:
        headers: pairs of lower-case name and value, as an ASGI scope holds them.

    Raises:
        SignatureRefused: `malformed` for a header sent twice or spelled otherwise,
            `missing` where one of the three is absent.
    """
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in (b"content-digest", b"signature-input", b"signature"):
            if name in found:
                raise SignatureRefused(SignatureProblem.MALFORMED)
            found[name] = value
    if len(found) < 3:  # noqa: PLR2004 - the three names above
        raise SignatureRefused(SignatureProblem.MISSING)
    said = _INPUT.fullmatch(found[b"signature-input"])
    signature = _SIGNATURE.fullmatch(found[b"signature"])
    digest = _DIGEST.fullmatch(found[b"content-digest"])
    if said is None or signature is None or digest is None:
        raise SignatureRefused(SignatureProblem.MALFORMED)
    return SignedInput(
        keyid=said["keyid"].decode(),
        created=int(said["created"]),
        params=said["params"],
        content_digest=digest[0],
        signature=b64decode(signature["signature"]),
    )


def check_body(signed: SignedInput, body: bytes) -> None:
    """Refuse a body other than the one that was digested (RFC 9530, raw bytes).

    Raises:
        SignatureRefused: `digest-mismatch`.
    """
    if not compare_digest(signed.content_digest, _digest_of(body)):
        raise SignatureRefused(SignatureProblem.DIGEST_MISMATCH)


def check_time(signed: SignedInput, *, now: datetime) -> None:
    """Refuse a request made more than `WINDOW_SECONDS` before or after `now`.

    Raises:
        SignatureRefused: `clock-skew`.
    """
    if abs(now.timestamp() - signed.created) > WINDOW_SECONDS:
        raise SignatureRefused(SignatureProblem.CLOCK_SKEW)


def check_signature(
    signed: SignedInput,
    public_key: bytes,
    *,
    method: str,
    authority: str,
    path: bytes,
    query: bytes,
) -> None:
    """Refuse a signature that is not this key's over this request.

    Args:
        signed: what `read` returned.
        public_key: the 32 bytes registered under `signed.keyid`.
        method: as received.
        authority: from our configuration, never from the header Host.
        path: the raw path, percent-encoded as received.
        query: the raw query without its question mark; empty where there is none.

    Raises:
        SignatureRefused: `bad-signature`; `malformed` for a path or query that is not ASCII.
    """
    base = _base(
        method=method.encode(),
        authority=authority.encode(),
        path=path,
        query=query,
        content_digest=signed.content_digest,
        params=signed.params,
    )
    if base is None:
        raise SignatureRefused(SignatureProblem.MALFORMED)
    _check_ed25519(public_key, signed.signature, base)


def verify(
    headers: Iterable[tuple[bytes, bytes]],
    *,
    method: str,
    authority: str,
    path: bytes,
    query: bytes,
    body: bytes,
    now: datetime,
    public_key_of: Callable[[str], bytes | None],
) -> SignedInput:
    """Take a request as its signer's, or refuse it: all steps in their order.

    Arguments are those of the single steps; `public_key_of` answers None for a key id that may
    not sign now.

    Raises:
        SignatureRefused: with the first problem met.
    """
    signed = read(headers)
    check_body(signed, body)
    check_time(signed, now=now)
    public_key = public_key_of(signed.keyid)
    if public_key is None:
        raise SignatureRefused(SignatureProblem.UNKNOWN_KEY)
    check_signature(signed, public_key, method=method, authority=authority, path=path, query=query)
    return signed


def reject_small_order(public_key: bytes) -> None:
    """Refuse a public key under which signatures can be forged, before it is registered.

    The key must be the canonical encoding of a point of the prime-order group: under the
    identity point, any signature passes with verifiers that do not look.

    Raises:
        WeakPublicKey: wrong length, not canonical, no point, of small or of mixed order.
    """
    is_good = len(public_key) == PUBLIC_KEY_BYTES and crypto_core_ed25519_is_valid_point(public_key)
    if not is_good:
        raise WeakPublicKey


def prove_enrolment(private_key: Ed25519PrivateKey, code: str) -> bytes:
    """Return a machine's proof that it holds the key it enrols under a one-time code."""
    return private_key.sign(_enrolment(code, raw_public_key(private_key)))


def check_enrolment(code: str, public_key: bytes, proof: bytes) -> None:
    """Refuse an enrolment whose key is weak, or whose sender does not hold the key.

    The code is taken as it was sent; the public key has a fixed length, so nothing of the
    code can pass for a part of the key.

    Raises:
        WeakPublicKey: see `reject_small_order`.
        SignatureRefused: `bad-signature`.
    """
    reject_small_order(public_key)
    _check_ed25519(public_key, proof, _enrolment(code, public_key))


def dump_private_key(private_key: Ed25519PrivateKey) -> bytes:
    """Return the key as PKCS 8 PEM, not encrypted: the form access.json hands out."""
    return private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def load_private_key(pem: bytes) -> Ed25519PrivateKey:
    """Read an unencrypted PKCS 8 PEM.

    Raises:
        ValueError: not such a PEM, or not an Ed25519 key.
        TypeError: the PEM is encrypted.
    """
    key = load_pem_private_key(pem, password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("not an Ed25519 key")  # noqa: TRY004 - the file is wrong, not the call
    return key


def raw_public_key(private_key: Ed25519PrivateKey) -> bytes:
    """Return the 32 bytes that are registered for a private key."""
    return private_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def _digest_of(body: bytes) -> bytes:
    return b"sha-256=:" + b64encode(sha256(body).digest()) + b":"


def _base(
    *,
    method: bytes,
    authority: bytes,
    path: bytes,
    query: bytes,
    content_digest: bytes,
    params: bytes,
) -> bytes | None:
    """Return the signature base (RFC 9421 section 2.5), or None where a part is not ASCII."""
    if _VISIBLE.fullmatch(method + authority + path + query) is None:
        return None
    return (
        b'"@method": %b\n"@authority": %b\n"@path": %b\n"@query": ?%b\n'
        b'"content-digest": %b\n"@signature-params": %b'
        % (method, authority, path, query, content_digest, params)
    )


def _enrolment(code: str, public_key: bytes) -> bytes:
    return _ENROLMENT_DOMAIN + code.encode() + public_key


def _check_ed25519(public_key: bytes, signature: bytes, message: bytes) -> None:
    # libsodium rather than cryptography: it is faster, and it refuses keys of small order and
    # signatures that are not canonical, under which OpenSSL lets a forgery pass.
    is_whole = len(public_key) == PUBLIC_KEY_BYTES and len(signature) == SIGNATURE_BYTES
    if not is_whole:
        raise SignatureRefused(SignatureProblem.BAD_SIGNATURE)
    try:
        crypto_sign_open(signature + message, public_key)
    except BadSignatureError:
        raise SignatureRefused(SignatureProblem.BAD_SIGNATURE) from None
