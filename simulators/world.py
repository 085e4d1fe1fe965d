"""What every part of the simulators is handed, and what a provider must be able to tell."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from simulators.keys import Keys
from simulators.store import Notice, Order, ProviderName, Refund, Store

Mode = Literal[
    "normal",
    "drop",
    "duplicate",
    "tamper_body",
    "bad_signature",
    "wrong_amount",
    "wrong_merchant",
    "old_timestamp",
    "unknown_serial",
    "sign_test",
]
"""How notices go: as they should, not at all, several at once, or wrong in one point."""


@dataclass(frozen=True, kw_only=True)
class News:
    """Something the merchant is to be told: what kind, and the facts."""

    event: str
    content: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Message:
    """A notification as it goes over the wire."""

    headers: Mapping[str, str]
    body: bytes


class Provider(Protocol):
    """How one provider tells its merchants what happened."""

    @property
    def retry_seconds(self) -> Sequence[int]:
        """The pauses between sends, before they are scaled; after the last one it gives up."""

    def paid(self, order: Order) -> News:
        """Tell that an order was paid."""

    def closed(self, order: Order) -> News | None:
        """Tell that an order was closed unpaid, if this provider does."""

    def refunded(self, order: Order, refund: Refund, refunds: Sequence[Refund]) -> News | None:
        """Tell how a refund ended, `refunds` being all of the order's, if this provider does."""

    def write(self, notice: Notice, mode: Mode, now: datetime) -> Message:
        """Put a notice into the provider's form, sealed and signed at this moment."""

    def is_acknowledged(self, status: int, body: bytes) -> bool:
        """Tell whether this answer ends the sending."""


@dataclass(frozen=True, kw_only=True)
class World:
    """The keys, the memory, the providers and the clock."""

    keys: Keys
    store: Store
    providers: Mapping[ProviderName, Provider]
    time_scale: float
    """What the providers' pauses are multiplied by; 0.02 turns 15 seconds into 0.3."""
    now: Callable[[], datetime]
