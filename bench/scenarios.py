"""One scenario (场景): a charge or an admission, at one rate, first sight and seen before.

The first code of a card costs the server a signature and a hash for every slot since the window
began; the next one costs neither. So the cards are all shown once, and then again in turn, and the
two are counted apart. Every request carries a code of its own and must be granted; a run with any
other answer is no result but an error.
"""

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from time import monotonic
from typing import Any, NamedTuple

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.clock import utc_now
from api.commands.access import GateAccess, MerchantAccess
from api.commands.phones import Phone
from api.commands.progress import Progress
from api.settings import Settings
from bench.meters import Meter, Reference
from bench.open_loop import Shooting, Shot, percentile, shoot
from bench.schedule import Use, plan_soon, slot_at
from identity import signatures
from wallet.codes.credentials import window_start

AMOUNT_FEN = 100
PREPARE_SECONDS_PER_CALL = 0.001
SPARE_SECONDS = 1.0


class Scenario(StrEnum):
    """What is asked of the API."""

    CHARGE = "charge"
    ADMISSION = "admission"


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one phase."""

    scenario: Scenario
    sight: str
    """`first` of every card, or `next`: seen before by this process."""
    calls: int
    offered_per_second: float
    achieved_per_second: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    api_cpu_ms: float
    """Per call, of the server's processes."""
    postgres_cpu_ms: float
    """Per call, of all processes of the database server."""
    statements: float
    """Per call, without BEGIN and COMMIT."""
    wal_bytes: float
    """Per call."""
    slot: int
    """Of the window, at the start: how many hashes a first sight costs, about."""
    generator_lag_p99_ms: float
    """How late the generator itself sent; it belongs to the latencies."""
    generator_cpu_share: float
    """Of one core; near 1 it measures itself."""
    connections: int
    pgbench_ratio: float
    """Achieved rate ÷ pgbench's transactions per second in the same run."""


class WrongAnswers(Exception):
    """A request was not granted."""


class Target(NamedTuple):
    """Who asks, where, and how an answer is read."""

    settings: Settings
    scenario: Scenario
    keyid: str
    private_key: Ed25519PrivateKey

    @property
    def path(self) -> str:
        """Return where it is asked."""
        is_charge = self.scenario is Scenario.CHARGE
        return "/v1/merchant/charges" if is_charge else "/v1/gate/admissions"

    @property
    def granted(self) -> "Outcome":
        """Return the only answer that counts."""
        is_charge = self.scenario is Scenario.CHARGE
        return Outcome(201, "succeeded", 0) if is_charge else Outcome(200, "allow", 0)

    def request(self, code: str, at: datetime) -> bytes:
        """Return one HTTP/1.1 request, signed as of the instant at which it is due."""
        asked: dict[str, Any]
        if self.scenario is Scenario.CHARGE:
            asked = {"order_no": secrets.token_hex(12), "code": code, "amount_fen": AMOUNT_FEN}
        else:
            asked = {
                "scan_id": secrets.token_hex(12),
                "direction": "in",
                "credential": {"kind": "code", "value": code},
                "scanned_at": at,
            }
        body = msgspec.json.encode(asked)
        authority = self.settings.signed_authority
        headers = {
            "Host": authority,
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **signatures.sign(
                self.private_key,
                keyid=self.keyid,
                method="POST",
                authority=authority,
                path=self.path,
                query="",
                body=body,
                now=at,
            ),
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST {self.path} HTTP/1.1\r\n{lines}\r\n".encode() + body


class Outcome(NamedTuple):
    """What is counted of an answer."""

    status: int
    said: str
    reason: int | None


class _Answer(msgspec.Struct):
    """The members of any answer that say what was decided."""

    state: str = ""
    decision: str = ""
    code: str = ""
    reason: int | None = None


_read_answer = msgspec.json.Decoder(_Answer).decode


def read(status: int, body: bytes) -> Outcome:
    """Return what an answer decided."""
    try:
        answer = _read_answer(body)
    except msgspec.DecodeError:
        return Outcome(status, "unreadable", None)
    return Outcome(status, answer.decision or answer.state or answer.code, answer.reason)


def target_of(
    settings: Settings, scenario: Scenario, access: MerchantAccess | GateAccess
) -> Target:
    """Return the merchant or gate that asks."""
    key = signatures.load_private_key(access.private_key_pem.encode())
    return Target(settings, scenario, access.keyid, key)


class Cards:
    """Cards in turn, and what each showed last."""

    def __init__(self, phones: Sequence[Phone]) -> None:
        self._phones = phones
        self._last_slots: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._phones)

    def prepare(self, target: Target, *, rate: float, calls: int) -> tuple[datetime, list[Shot]]:
        """Return when a phase starts, and its requests, made and signed ahead.

        Raises:
            TooFewCards: the cards cannot show as many codes in that time.
        """
        ahead = timedelta(seconds=SPARE_SECONDS + calls * PREPARE_SECONDS_PER_CALL)
        start_unix, uses = plan_soon(
            after_unix=(utc_now() + ahead).timestamp(),
            rate=rate,
            calls=calls,
            cards=len(self._phones),
            last_slots=self._last_slots,
        )
        start = datetime.fromtimestamp(start_unix, UTC)
        shots = [self._shot(target, use, start) for use in uses]
        self._last_slots |= {use.card: use.slot for use in uses}
        return start, shots

    def _shot(self, target: Target, use: Use, start: datetime) -> Shot:
        ahead = use.slot - slot_at(start.timestamp())
        code = self._phones[use.card].code_at(start, slots_ahead=ahead)
        at = start + timedelta(seconds=use.due_seconds)
        return Shot(target.request(code, at), use.due_seconds)


async def run_phase(target: Target, cards: Cards, *, rate: float, calls: int) -> Shooting:
    """Send that many requests at a rate.

    Raises:
        WrongAnswers: one of them was not granted.
        TooFewCards: the cards cannot show as many codes.
    """
    with Progress(f"{target.scenario} at {rate:g}/s, {calls} calls"):
        start, shots = cards.prepare(target, rate=rate, calls=calls)
        settings = target.settings
        begin = monotonic() + (start - utc_now()).total_seconds()
        shooting = await shoot(settings.host, settings.port, shots, read, start=begin)
    if shooting.answers != {target.granted: calls}:
        raise WrongAnswers(f"{target.scenario}: {dict(shooting.answers)}")
    return shooting


async def measure(
    target: Target,
    cards: Cards,
    meter: Meter,
    reference: Reference,
    *,
    rate: float,
    seconds: float,
) -> list[Figures]:
    """Run a scenario: every card once, then again in turn until the time is over.

    Raises:
        WrongAnswers: a request was not granted.
        TooFewCards: the cards cannot show as many codes.
    """
    total = round(rate * seconds)
    first = min(total, len(cards))
    figures = []
    for sight, calls in (("first", first), ("next", total - first)):
        if not calls:
            continue
        slot = slot_at(utc_now().timestamp()) - slot_at(window_start(utc_now()).timestamp())
        before = await meter.read()
        shooting = await run_phase(target, cards, rate=rate, calls=calls)
        cost = (await meter.read()).since(before)
        achieved = calls / max(shooting.took_seconds, calls / rate)
        figures.append(
            Figures(
                scenario=target.scenario,
                sight=sight,
                calls=calls,
                offered_per_second=rate,
                achieved_per_second=achieved,
                p50_ms=percentile(shooting.latencies_seconds, 0.50) * 1_000,
                p99_ms=percentile(shooting.latencies_seconds, 0.99) * 1_000,
                max_ms=shooting.latencies_seconds[-1] * 1_000,
                api_cpu_ms=cost.api_cpu_seconds * 1_000 / calls,
                postgres_cpu_ms=cost.postgres_cpu_seconds * 1_000 / calls,
                statements=cost.statements / calls,
                wal_bytes=cost.wal_bytes / calls,
                slot=slot,
                generator_lag_p99_ms=percentile(shooting.lags_seconds, 0.99) * 1_000,
                generator_cpu_share=shooting.cpu_seconds / shooting.took_seconds,
                connections=shooting.connections,
                pgbench_ratio=achieved / reference.tps,
            )
        )
    return figures
