"""A phone that shows codes (手机): what the mini-program does, for the tour, seeds and tests.

It draws a chain per window, uploads the anchors, and then makes codes without a network.
"""

import secrets
import struct
from datetime import datetime
from typing import NamedTuple

from wallet.codes.chains import Chain, make_code
from wallet.codes.credentials import SLOT_SECONDS, SLOTS, WINDOW_STEP, Wanted, window_start
from wallet.codes.suites import SUITES
from wallet.codes.wire import encode, parse_body


class Signed(NamedTuple):
    """What the issuer sent back for one window."""

    body: bytes
    signature: bytes


class Phone:
    """One phone bound to one card.

    Args:
        issuer: number of the city.
        suite: of the issuer's key.
        card: the card's handle, 8 bytes.
        gen: generation of the phone.
        key: Kd, given once at binding.
    """

    def __init__(self, *, issuer: int, suite: int, card: bytes, gen: int, key: bytes) -> None:
        self._suite, self._key = SUITES[suite], key
        self._cid_head = struct.pack(">I8sB", issuer, card, gen)
        self._chains: dict[int, Chain] = {}
        self._signed: dict[int, Signed] = {}

    def draw(self, now: datetime, *, windows: int) -> list[Wanted]:
        """Draw a chain for the current window and those after it; return what is to be signed."""
        first = window_start(now)
        wanted = []
        for step in range(windows):
            nbf = int((first + step * WINDOW_STEP).timestamp())
            if nbf not in self._chains:
                self._chains[nbf] = Chain(
                    self._suite,
                    cid=self._cid_head + struct.pack(">I", nbf),
                    seed=secrets.token_bytes(16),
                    slot_count=SLOTS,
                )
            wanted.append(Wanted(nbf, SLOT_SECONDS, SLOTS, self._chains[nbf].anchor))
        return wanted

    def keep(self, nbf: int, signed: Signed) -> None:
        """Keep what the issuer signed for a window."""
        self._signed[nbf] = signed

    def slot_at(self, now: datetime) -> int:
        """Return the slot of this instant, in the window that began last."""
        return (int(now.timestamp()) - self._nbf(now)) // SLOT_SECONDS

    def code_at(self, now: datetime, *, slots_ahead: int = 0) -> str:
        """Return the text of the code for this instant's slot, or one some slots from it."""
        nbf = self._nbf(now)
        slot = self.slot_at(now) + slots_ahead
        signed = self._signed[nbf]
        code = make_code(
            parse_body(signed.body),
            signed.signature,
            slot=slot,
            proof=self._chains[nbf].proof(slot),
            key=self._key,
        )
        return encode(code)

    def _nbf(self, now: datetime) -> int:
        return int(window_start(now).timestamp())
