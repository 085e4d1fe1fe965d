"""What the simulators remember, in one SQLite file: orders, refunds, notices and single facts.

Order:  open → paid | closed (and back to paid, if somebody insists)
Refund: processing → success | abnormal | closed
Notice: due while `next_at` is set; acknowledged, given up or lost once it is not

All calls come from the one thread of the event loop, so reads and the writes that follow them
cannot be interleaved; `transaction` is there so that a kill leaves all of a step or none of it.
"""

import sqlite3
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct

ProviderName = Literal["wechat_pay", "alipay"]
RefundState = Literal["processing", "success", "abnormal", "closed"]
T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS trade (
    provider TEXT, out_trade_no TEXT, trade_no TEXT, prepay_id TEXT, request TEXT,
    description TEXT, attach TEXT, payer TEXT, total_fen INTEGER, notify_url TEXT, state TEXT,
    created_at TEXT, expires_at TEXT, pay_at TEXT, paid_at TEXT,
    PRIMARY KEY (provider, out_trade_no)
);
CREATE TABLE IF NOT EXISTS refund (
    provider TEXT, out_trade_no TEXT, out_refund_no TEXT, refund_id TEXT, request TEXT,
    refund_fen INTEGER, notify_url TEXT, state TEXT, outcome TEXT,
    created_at TEXT, settles_at TEXT, settled_at TEXT,
    PRIMARY KEY (provider, out_trade_no, out_refund_no)
);
CREATE TABLE IF NOT EXISTS notice (
    id TEXT PRIMARY KEY, provider TEXT, out_trade_no TEXT, about TEXT, url TEXT, event TEXT,
    content TEXT, created_at TEXT, sends INTEGER, next_at TEXT, is_acknowledged INTEGER
);
CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, content TEXT);
CREATE INDEX IF NOT EXISTS trade_number ON trade (out_trade_no);
CREATE INDEX IF NOT EXISTS notice_trade ON notice (out_trade_no);
CREATE INDEX IF NOT EXISTS notice_due ON notice (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS refund_due ON refund (settles_at) WHERE settles_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS trade_due ON trade (pay_at) WHERE pay_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS trade_open ON trade (expires_at) WHERE state = 'open';
"""


class Order(Struct, frozen=True, kw_only=True):
    """What a merchant asked a provider to collect."""

    provider: ProviderName
    out_trade_no: str
    trade_no: str
    """The provider's own number: WeChat Pay's transaction id, Alipay's trade number."""
    prepay_id: str
    """What the WeChat client pays by; empty at Alipay, where that is the trade number."""
    request: str
    """The first request in canonical form, to tell a retry from another order."""
    description: str
    attach: str
    payer: str
    total_fen: int
    notify_url: str
    state: Literal["open", "paid", "closed"]
    created_at: datetime
    expires_at: datetime
    pay_at: datetime | None
    """When the payer will pay, if the control plane said so."""
    paid_at: datetime | None


class Refund(Struct, frozen=True, kw_only=True):
    """Money a merchant gives back out of one order."""

    provider: ProviderName
    out_trade_no: str
    out_refund_no: str
    refund_id: str
    request: str
    refund_fen: int
    notify_url: str
    state: RefundState
    outcome: RefundState
    """What it will become; `processing` stays until the control plane ends it."""
    created_at: datetime
    settles_at: datetime | None
    settled_at: datetime | None


class Notice(Struct, frozen=True, kw_only=True):
    """One notification, however often it is sent."""

    id: str
    provider: ProviderName
    out_trade_no: str
    about: Literal["payment", "refund", "closing"]
    url: str
    event: str
    content: str
    """What it says, as JSON; encrypted or signed afresh for every send."""
    created_at: datetime
    sends: int
    next_at: datetime | None
    is_acknowledged: bool


class Store:
    """The SQLite file, opened for as long as the process lives."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it."""
        self._connection = sqlite3.connect(path)
        path.chmod(0o600)
        self._connection.row_factory = sqlite3.Row
        # A killed process loses nothing this way; only a power cut could, and may.
        self._connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;")
        self._connection.executescript(_SCHEMA)

    def transaction(self) -> AbstractContextManager[object]:
        """Return a block whose writes all happen, or none."""
        return self._connection

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def keep_order(self, order: Order) -> None:
        """Write an order, over what was known of it."""
        self._connection.execute(
            "INSERT OR REPLACE INTO trade VALUES (:provider, :out_trade_no, :trade_no, :prepay_id,"
            " :request, :description, :attach, :payer, :total_fen, :notify_url, :state,"
            " :created_at, :expires_at, :pay_at, :paid_at)",
            _row(order),
        )

    def keep_refund(self, refund: Refund) -> None:
        """Write a refund, over what was known of it."""
        self._connection.execute(
            "INSERT OR REPLACE INTO refund VALUES (:provider, :out_trade_no, :out_refund_no,"
            " :refund_id, :request, :refund_fen, :notify_url, :state, :outcome, :created_at,"
            " :settles_at, :settled_at)",
            _row(refund),
        )

    def keep_notice(self, notice: Notice) -> None:
        """Write a notice, over what was known of it."""
        self._connection.execute(
            "INSERT OR REPLACE INTO notice VALUES (:id, :provider, :out_trade_no, :about, :url,"
            " :event, :content, :created_at, :sends, :next_at, :is_acknowledged)",
            _row(notice),
        )

    def order(self, provider: ProviderName, out_trade_no: str) -> Order | None:
        """Return the order of that number at one provider."""
        return self._one(
            Order,
            "SELECT * FROM trade WHERE provider = ? AND out_trade_no = ?",
            provider,
            out_trade_no,
        )

    def order_by_trade_no(self, provider: ProviderName, trade_no: str) -> Order | None:
        """Return the order by the provider's own number."""
        return self._one(
            Order, "SELECT * FROM trade WHERE provider = ? AND trade_no = ?", provider, trade_no
        )

    def order_anywhere(self, out_trade_no: str) -> Order | None:
        """Return the order of that number at whichever provider, the newest if at both."""
        return self._one(
            Order,
            "SELECT * FROM trade WHERE out_trade_no = ? ORDER BY created_at DESC",
            out_trade_no,
        )

    def refunds_of(self, order: Order) -> list[Refund]:
        """Return all refunds of an order, oldest first."""
        return self._all(
            Refund,
            "SELECT * FROM refund WHERE provider = ? AND out_trade_no = ? ORDER BY created_at",
            order.provider,
            order.out_trade_no,
        )

    def refund(self, provider: ProviderName, out_refund_no: str) -> Refund | None:
        """Return a refund by its number, which WeChat Pay keeps unique over all orders."""
        return self._one(
            Refund,
            "SELECT * FROM refund WHERE provider = ? AND out_refund_no = ?",
            provider,
            out_refund_no,
        )

    def notices_of(self, out_trade_no: str) -> list[Notice]:
        """Return all notices about an order, oldest first."""
        return self._all(
            Notice, "SELECT * FROM notice WHERE out_trade_no = ? ORDER BY created_at", out_trade_no
        )

    def notice(self, notice_id: str) -> Notice | None:
        """Return one notice."""
        return self._one(Notice, "SELECT * FROM notice WHERE id = ?", notice_id)

    def orders_to_pay(self, now: datetime) -> list[Order]:
        """Return the orders whose payer pays by now."""
        return self._all(
            Order, "SELECT * FROM trade WHERE pay_at <= ? AND state = 'open'", _text(now)
        )

    def orders_to_expire(self, now: datetime) -> list[Order]:
        """Return the orders that were not paid in time."""
        return self._all(
            Order, "SELECT * FROM trade WHERE expires_at <= ? AND state = 'open'", _text(now)
        )

    def refunds_to_settle(self, now: datetime) -> list[Refund]:
        """Return the refunds that are through by now."""
        return self._all(Refund, "SELECT * FROM refund WHERE settles_at <= ?", _text(now))

    def notices_to_send(self, now: datetime) -> list[Notice]:
        """Return the notices whose time has come."""
        return self._all(Notice, "SELECT * FROM notice WHERE next_at <= ?", _text(now))

    def fact(self, name: str, type_: type[T]) -> T | None:
        """Return a single remembered thing."""
        row = self._connection.execute("SELECT content FROM fact WHERE name = ?", (name,))
        found = row.fetchone()
        return None if found is None else msgspec.json.decode(found["content"], type=type_)

    def keep_fact(self, name: str, content: object) -> None:
        """Remember a single thing, over what was known."""
        self._connection.execute(
            "INSERT OR REPLACE INTO fact VALUES (?, ?)", (name, msgspec.json.encode(content))
        )

    def forget_fact(self, name: str) -> None:
        """Forget a single thing."""
        self._connection.execute("DELETE FROM fact WHERE name = ?", (name,))

    def _all(self, type_: type[T], query: str, *values: str) -> list[T]:
        rows = self._connection.execute(query, values).fetchall()
        return [msgspec.convert(dict(row), type_, strict=False) for row in rows]

    def _one(self, type_: type[T], query: str, *values: str) -> T | None:
        row = self._connection.execute(query, values).fetchone()
        return None if row is None else msgspec.convert(dict(row), type_, strict=False)


def _row(value: Struct) -> dict[str, Any]:
    fields = msgspec.structs.asdict(value)
    return {
        name: _text(field) if isinstance(field, datetime) else field
        for name, field in fields.items()
    }


def _text(at: datetime) -> str:
    # Always with microseconds: only then does the order of the texts equal the order in time.
    return at.isoformat(timespec="microseconds")
