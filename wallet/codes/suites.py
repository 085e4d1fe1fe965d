"""The two sets of algorithms a code may use (算法套件): 1 = Ed25519 + SHA-256, 2 = SM2 + SM3.

Which of them holds for a code is told by the trust list, never by the code alone. All signatures
are 64 raw bytes; for SM2 that is r‖s with the standard's default ID, never DER (code format,
sections 1 and 2). A program that checks codes calls `self_test` before its first code.
"""

import hashlib
import hmac
from collections.abc import Callable
from functools import lru_cache

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.hmac import HMAC
from msgspec import Struct
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

# Why this library: it is silent on a bad signature and lets other threads run while it computes.
# gmssl-pyx prints to stderr whenever a stranger shows a forged code, which cannot be silenced in a
# threaded server without losing what other threads print.
from tongsuopy.crypto import hashes as tongsuo_hashes
from tongsuopy.crypto.asymciphers import ec
from tongsuopy.crypto.exceptions import InvalidSignature

SIGNATURE_BYTES = 64
DEVICE_KEY_BYTES = 32
_SM2_ORDER = 0xFFFFFFFE_FFFFFFFF_FFFFFFFF_FFFFFFFF_7203DF6B_21C6052B_53BBF409_39D54123
_SM2_ALGORITHM = ec.ECDSA(tongsuo_hashes.SM3())  # Over this curve the library means SM2's own.
_SM3_START = hashes.Hash(hashes.SM3())  # Copied for each hash, in less than half the time.
_KEYS_KEPT = 256


class Suite(Struct, frozen=True, kw_only=True):
    """One set of algorithms, all over bytes."""

    number: int
    name: str
    public_key_bytes: int
    digest: Callable[[bytes], bytes]
    """Message → 32 bytes."""
    mac: Callable[[bytes, bytes], bytes]
    """HMAC with the suite's hash: key, message → 32 bytes."""
    verify: Callable[[bytes, bytes, bytes], bool]
    """Public key, message, signature → whether it is genuine; never raises, whatever the bytes."""
    sign: Callable[[bytes, bytes], bytes]
    """Private key (32 bytes), message → signature."""
    public_key: Callable[[bytes], bytes]
    """Private key → public key."""


class SelfTestFailed(Exception):
    """A library does not compute what the standards say; the program must not start."""


def _sha256(message: bytes) -> bytes:
    return hashlib.sha256(message).digest()


def _hmac_sha256(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


@lru_cache(maxsize=_KEYS_KEPT)
def _ed25519_key(public_key: bytes) -> VerifyKey:
    return VerifyKey(public_key)


def _verify_ed25519(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """RFC 8032; keys of small order and signatures with s ≥ order are refused (libsodium)."""
    try:
        _ed25519_key(public_key).verify(message, signature)
    except (BadSignatureError, ValueError):
        return False
    return True


def _sign_ed25519(private_key: bytes, message: bytes) -> bytes:
    return SigningKey(private_key).sign(message).signature


def _ed25519_public_key(private_key: bytes) -> bytes:
    return bytes(SigningKey(private_key).verify_key)


def _sm3(message: bytes) -> bytes:
    state = _SM3_START.copy()
    state.update(message)
    return state.finalize()


def _hmac_sm3(key: bytes, message: bytes) -> bytes:
    state = HMAC(key, hashes.SM3())
    state.update(message)
    return state.finalize()


@lru_cache(maxsize=_KEYS_KEPT)
def _sm2_key(public_key: bytes) -> ec.EllipticCurvePublicKey:
    # 04 says "both coordinates follow"; the library refuses a point off the curve.
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SM2(), b"\x04" + public_key)


def _verify_sm2(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """GB/T 32918.2 section 7, over raw r‖s; DER of any kind has another length or other numbers."""
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    is_shaped = len(signature) == SIGNATURE_BYTES and 0 < r < _SM2_ORDER and 0 < s < _SM2_ORDER
    if not is_shaped:
        return False
    try:
        _sm2_key(public_key).verify(encode_dss_signature(r, s), message, _SM2_ALGORITHM)
    except (InvalidSignature, ValueError):
        return False
    return True


def _sign_sm2(private_key: bytes, message: bytes) -> bytes:
    signer = ec.derive_private_key(int.from_bytes(private_key, "big"), ec.SM2())
    r, s = decode_dss_signature(signer.sign(message, _SM2_ALGORITHM))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _sm2_public_key(private_key: bytes) -> bytes:
    signer = ec.derive_private_key(int.from_bytes(private_key, "big"), ec.SM2())
    numbers = signer.public_key().public_numbers()
    return bytes(numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big"))


ED25519_SHA256 = Suite(
    number=1,
    name="Ed25519/SHA-256",
    public_key_bytes=32,
    digest=_sha256,
    mac=_hmac_sha256,
    verify=_verify_ed25519,
    sign=_sign_ed25519,
    public_key=_ed25519_public_key,
)
SM2_SM3 = Suite(
    number=2,
    name="SM2/SM3",
    public_key_bytes=64,
    digest=_sm3,
    mac=_hmac_sm3,
    verify=_verify_sm2,
    sign=_sign_sm2,
    public_key=_sm2_public_key,
)
SUITES: dict[int, Suite] = {suite.number: suite for suite in (ED25519_SHA256, SM2_SM3)}


class StandardVector(Struct, frozen=True, kw_only=True):
    """What a published standard says a suite computes."""

    suite: Suite
    source: str
    private_key: bytes
    public_key: bytes
    message: bytes
    signature: bytes
    abc_digest: bytes
    """Hash of the three letters abc."""


STANDARD_VECTORS = (
    StandardVector(
        suite=ED25519_SHA256,
        source="RFC 8032 7.1 TEST 2, FIPS 180-2 B.1",
        private_key=bytes.fromhex(
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"
        ),
        public_key=bytes.fromhex(
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
        ),
        message=b"\x72",
        signature=bytes.fromhex(
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        ),
        abc_digest=bytes.fromhex(
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        ),
    ),
    StandardVector(
        suite=SM2_SM3,
        source="GB/T 32918.5 A.2, GB/T 32905 A.1",
        private_key=bytes.fromhex(
            "3945208f7b2144b13f36e38ac6d39f95889393692860b51a42fb81ef4df7c5b8"
        ),
        public_key=bytes.fromhex(
            "09f9df311e5421a150dd7d161e4bc5c672179fad1833fc076bb08ff356f35020"
            "ccea490ce26775a52dc6ea718cc1aa600aed05fbf35e084a6632f6072da9ad13"
        ),
        message=b"message digest",
        signature=bytes.fromhex(
            "f5a03b0648d2c4630eeac513e1bb81a15944da3827d5b74143ac7eaceee720b3"
            "b1b6aa29df212fd8763182bc0d421ca1bb9038fd1f7f42d4840b69c485bbc1aa"
        ),
        abc_digest=bytes.fromhex(
            "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"
        ),
    ),
)


def self_test(vectors: tuple[StandardVector, ...] = STANDARD_VECTORS) -> None:
    """Check every suite against the published vectors; to be called once before the first code.

    Raises:
        SelfTestFailed: a library computes something else, or accepts an altered message.
    """
    for vector in vectors:
        suite, key, message = vector.suite, vector.public_key, vector.message
        claims = {
            "hash": suite.digest(b"abc") == vector.abc_digest,
            "public key": suite.public_key(vector.private_key) == key,
            "signature": suite.verify(key, message, vector.signature),
            "alteration": not suite.verify(key, message + b"\0", vector.signature),
            "own signature": suite.verify(key, message, suite.sign(vector.private_key, message)),
        }
        failed = [name for name, holds in claims.items() if not holds]
        if failed:
            raise SelfTestFailed(f"{suite.name}: {', '.join(failed)} against {vector.source}")
