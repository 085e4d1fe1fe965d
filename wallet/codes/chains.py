"""The hash chain under a chain code (哈希链): what the phone makes and what an acceptor follows.

P(n−1) is drawn at random, P(j−1) = H("YK1H" ‖ cid ‖ j ‖ P(j))[0:16], and the issuer signs
P(−1), the anchor. To show slot j the phone reveals P(j), from which everybody can compute all
earlier positions and nobody a later one (code format, section 2).
"""

from bisect import bisect_left
from hmac import compare_digest

from msgspec import Struct, structs

from wallet.codes.suites import SUITES, Suite
from wallet.codes.wire import Code, Credential, Kind

LINK_BYTES = 16
TAG_BYTES = 8
_CHECKPOINT_EVERY = 64


class Position(Struct, frozen=True):
    """A link of a chain; slot −1 is the anchor."""

    slot: int
    link: bytes


class Chain:
    """A phone's chain of one credential, with a checkpoint every 64 links.

    So the next proof costs at most 63 hashes while 6000 links need 95 kept, not 6000.
    """

    def __init__(self, suite: Suite, *, cid: bytes, seed: bytes, slot_count: int) -> None:
        """Hash the whole chain once; `seed` is its last link, 16 random bytes."""
        if len(seed) != LINK_BYTES:
            raise ValueError(f"a seed has {LINK_BYTES} bytes, not {len(seed)}")
        self._suite = suite
        self._cid = cid
        self._slot_count = slot_count
        last = Position(slot_count - 1, seed)
        self._checkpoints = [last]
        for slot in reversed(range(0, slot_count - 1, _CHECKPOINT_EVERY)):
            last = Position(slot, walk(suite, cid, start=last, to_slot=slot))
            self._checkpoints.append(last)
        self._checkpoints.reverse()
        self.anchor = walk(suite, cid, start=last, to_slot=-1)

    def proof(self, slot: int) -> bytes:
        """Return P(slot), 16 bytes.

        Raises:
            ValueError: the chain has no such slot.
        """
        if not 0 <= slot < self._slot_count:
            raise ValueError(f"slot {slot} is outside 0…{self._slot_count - 1}")
        next_index = bisect_left(self._checkpoints, slot, key=lambda position: position.slot)
        start = self._checkpoints[next_index]
        return walk(self._suite, self._cid, start=start, to_slot=slot)


def walk(suite: Suite, cid: bytes, *, start: Position, to_slot: int) -> bytes:
    """Return the link at an earlier slot, one hash for each slot between."""
    digest, prefix, link = suite.digest, b"YK1H" + cid, start.link
    for slot in range(start.slot, to_slot, -1):
        link = digest(prefix + slot.to_bytes(2, "big") + link)[:LINK_BYTES]
    return link


def follow(suite: Suite, code: Code, known: Position) -> int | None:
    """Return how many hashes it took to join the code's proof to its chain; None if it is none.

    `known` is a position of this very credential that was followed before, or its anchor. Links
    later than it are hashed down to it, earlier ones are reached from it, or else from the
    proof to the anchor where that is shorter; comparison takes constant time.
    """
    shown, anchor = Position(code.slot, code.proof), Position(-1, code.anchor)
    if known.slot > shown.slot and known.slot - shown.slot <= shown.slot - anchor.slot:
        start, end = known, shown
    else:
        start, end = shown, known if known.slot <= shown.slot else anchor
    reached = walk(suite, code.cid, start=start, to_slot=end.slot)
    return start.slot - end.slot if compare_digest(reached, end.link) else None


def device_key(master_key: bytes, *, issuer: int, card: bytes, gen: int, suite: int) -> bytes:
    """Return Kd, 32 bytes, given once to the phone of this generation when it is bound."""
    message = b"YK1K" + issuer.to_bytes(4, "big") + card + gen.to_bytes(1, "big")
    return SUITES[suite].mac(master_key, message)


def make_tag(key: bytes, code: Code) -> bytes:
    """Return the tag that Kd gives a chain code, whatever tag it carries now."""
    return SUITES[code.suite].mac(key, code.tag_message)[:TAG_BYTES]


def make_code(
    credential: Credential, signature: bytes, *, slot: int, proof: bytes, key: bytes
) -> Code:
    """Return what the phone shows in this slot; a static credential has neither slot nor tag.

    `key` is Kd.
    """
    fields = structs.asdict(credential)
    if credential.kind is Kind.STATIC:
        return Code(**fields, signature=signature)
    untagged = Code(**fields, signature=signature, slot=slot, proof=proof)
    return structs.replace(untagged, tag=make_tag(key, untagged))
