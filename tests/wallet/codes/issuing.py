"""An issuer and a phone of the tests: they make codes the real way, of any fields at all."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec

from wallet.codes.chains import Chain, make_code
from wallet.codes.suites import ED25519_SHA256, SM2_SM3, Suite
from wallet.codes.trust import Trust, TrustedKey
from wallet.codes.wire import SLOTS_MAX, Code, Credential, Flag, Kind

START_UNIX = 1_796_090_400
SLOT = 960
NOW_UNIX = START_UNIX + SLOT * 15 + 4
SEED = bytes(range(16))
DEVICE_KEY = bytes(range(32))
CARD = bytes.fromhex("0123456789abcdef")


@lru_cache(maxsize=64)
def _chain(suite_number: int, cid: bytes, slot_count: int) -> Chain:
    suite = {1: ED25519_SHA256, 2: SM2_SM3}[suite_number]
    return Chain(suite, cid=cid, seed=SEED, slot_count=slot_count)


@lru_cache(maxsize=4096)
def _signature(suite_number: int, private_key: bytes, message: bytes) -> bytes:
    # SM2 signs differently each time, and an issuer signs a credential once.
    return {1: ED25519_SHA256, 2: SM2_SM3}[suite_number].sign(private_key, message)


@dataclass(frozen=True)
class Issuer:
    suite: Suite
    private_key: bytes = b"\x01" * 32

    def trust(self, **changes: Any) -> Trust:
        key = TrustedKey(
            issuer=32020001,
            key_id=7,
            suite=self.suite.number,
            public_key=self.suite.public_key(self.private_key),
            kinds=frozenset(Kind),
            verify_from_unix=0,
            verify_until_unix=NOW_UNIX + 86_400 * 400,
            is_revoked=False,
        )
        key = msgspec.structs.replace(key, **changes)
        return Trust({key.issuer: {key.key_id: key}})

    def credential(self, **changes: Any) -> Credential:
        """A chain credential with these fields changed, and the anchor of its own chain."""
        fields: dict[str, Any] = {
            "suite": self.suite.number,
            "kind": Kind.CHAIN,
            "flags": Flag.PAY | Flag.GATE,
            "issuer": 32020001,
            "key_id": 7,
            "card": CARD,
            "gen": 1,
            "holder_class": 0,
            "groups": 5,
            "cap_yuan": 50,
            "starts_unix": START_UNIX,
            "slot_seconds": 15,
            "span": 1560,
        }
        bare = Credential(**(fields | changes))
        if bare.kind is Kind.STATIC or "anchor" in changes:
            return bare
        return msgspec.structs.replace(bare, anchor=self.chain(bare).anchor)

    def chain(self, credential: Credential) -> Chain:
        slot_count = min(max(credential.span, 1), SLOTS_MAX)
        return _chain(self.suite.number, credential.cid, slot_count)

    def code(self, slot: int = SLOT, **changes: Any) -> Code:
        """A code of such a credential, signed and tagged; past the chain's end its last proof."""
        credential = self.credential(**changes)
        message = credential.signed_message
        signature = _signature(self.suite.number, self.private_key, message)
        proof = b""
        if credential.kind is Kind.CHAIN:
            slot_count = min(max(credential.span, 1), SLOTS_MAX)
            proof = self.chain(credential).proof(min(slot, slot_count - 1))
        return make_code(credential, signature, slot=slot, proof=proof, key=DEVICE_KEY)

    def static_code(self, **changes: Any) -> Code:
        fields = {"kind": Kind.STATIC, "slot_seconds": 0, "span": 365, "cap_yuan": 0}
        return self.code(0, **(fields | changes))


ISSUERS = (Issuer(ED25519_SHA256), Issuer(SM2_SM3))


def flip(data: bytes, bit: int = 0) -> bytes:
    """The same bytes with one bit changed."""
    altered = bytearray(data)
    altered[bit // 8 % len(data)] ^= 1 << bit % 8
    return bytes(altered)
