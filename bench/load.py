"""`make bench`: load charges and admissions over HTTP at a fixed rate, and say what they cost.

    python -m bench.load --rate 50 100 200 --seconds 10 --scenario both --workers 1 --cards 500

Starts everything itself: a database server, a real server process, cards with money. Prints figures
to read beside each other (ratios to pgbench, CPU per call), never a verdict. bench/README.md keeps
the last results, and says how to read them.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import asyncpg
import msgspec
import uvloop

from api.clock import utc_now
from api.commands.access import GateAccess, MerchantAccess
from api.commands.progress import Progress
from bench.city import (
    DATABASE,
    PGBENCH_DATABASE,
    Ground,
    make_phones,
    prepared_ground,
    running_server,
    seed,
)
from bench.meters import Meter, Reference, prepare_pgbench, run_pgbench
from bench.scenarios import Cards, Figures, Scenario, WrongAnswers, measure, run_phase, target_of
from bench.schedule import TooFewCards, plan_soon
from identity.kernel import Database
from wallet import invariants

CALLS_MAX = 100_000
USES_OF_A_CARD = 4
WARM_CARDS, WARM_RATE = 50, 25.0
"""Before the first figure: connections open, statements prepared. Each card is shown once, so that
a cold server which answers out of order still grants every request."""


class Wish(NamedTuple):
    """What is to be run."""

    scenarios: Sequence[Scenario]
    rates: Sequence[float]
    seconds: float
    workers: int
    cards: int

    def calls_at(self, rate: float) -> int:
        """Return how many requests that is."""
        return round(rate * self.seconds)

    def cards_at(self, rate: float) -> int:
        """Return how many cards take part: few enough that most calls are not a first sight."""
        return min(self.cards, -(-self.calls_at(rate) // USES_OF_A_CARD))


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run and its results."""

    command: str
    began_at: str
    load_before: float
    """Processes that wanted to run on this machine, mean of a minute, before anything began."""
    cores: int
    workers: int
    pgbench_tps: float
    pgbench_postgres_cpu_ms: float
    """Of the database server, per transaction of pgbench."""
    figures: list[Figures]


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.load", description="Load the API and say what a call costs."
    )
    add = parser.add_argument
    add("--rate", type=float, nargs="+", default=[100.0], help="requests per second, one or more")
    add("--seconds", type=float, default=10.0, help="of each scenario at each rate")
    add("--scenario", choices=[*Scenario, "both"], default="both")
    add("--workers", type=int, default=1, help="processes of the server")
    add("--cards", type=int, default=200, help="at most, for each scenario at each rate")
    add("--json", type=Path, metavar="FILE", help="write the results there too")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the load; exit 1 where an answer was wrong or the books do not hold."""
    given = list(sys.argv[1:] if argv is None else argv)
    parser = make_parser()
    arguments = parser.parse_args(given)
    if not all(1 <= rate * arguments.seconds <= CALLS_MAX for rate in arguments.rate):
        parser.error(f"rate × seconds must be from 1 to {CALLS_MAX}")
    if arguments.workers < 1 or arguments.cards < 1:
        parser.error("workers and cards must be at least 1")
    chosen = list(Scenario) if arguments.scenario == "both" else [Scenario(arguments.scenario)]
    try:
        wish = Wish(chosen, arguments.rate, arguments.seconds, arguments.workers, arguments.cards)
        run = take(wish, command=" ".join(["python -m bench.load", *given]))
    except TooFewCards as refused:
        print(f"bench: {refused}: give more --cards", file=sys.stderr)
        return 2
    except WrongAnswers as wrong:
        print(f"bench: wrong answers, no result: {wrong}", file=sys.stderr)
        return 1
    print(table_of(run))
    if arguments.json:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(run)) + b"\n")
    return 0


def take(wish: Wish, *, command: str) -> Run:
    """Start everything, run every scenario at every rate, and return what it cost.

    Raises:
        WrongAnswers: a request was not granted, or the books do not hold afterwards.
        TooFewCards: a card would have to show a code too far ahead.
    """
    began_at, load_before = utc_now(), os.getloadavg()[0]
    now_unix = began_at.timestamp()
    for rate in wish.rates:
        # Tried once before minutes are spent on what could not run.
        calls, cards = wish.calls_at(rate), wish.cards_at(rate)
        plan_soon(after_unix=now_unix, rate=rate, calls=calls, cards=cards, last_slots={})
    with prepared_ground(workers=wish.workers) as ground, running_server(ground) as api_pid:
        pgbench_dsn = ground.server.dsn(PGBENCH_DATABASE)
        with Progress("pgbench"):
            prepare_pgbench(pgbench_dsn)
            before = run_pgbench(pgbench_dsn, ground.postgres_pid)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            figures = runner.run(_measure_all(ground, api_pid, before, wish))
    return Run(
        command=command,
        began_at=began_at.isoformat(timespec="seconds"),
        load_before=load_before,
        cores=os.cpu_count() or 1,
        workers=wish.workers,
        pgbench_tps=before.tps,
        pgbench_postgres_cpu_ms=before.postgres_cpu_ms,
        figures=figures,
    )


async def _measure_all(
    ground: Ground, api_pid: int, reference: Reference, wish: Wish
) -> list[Figures]:
    settings = ground.settings
    city = await seed(settings)
    access: dict[Scenario, MerchantAccess | GateAccess] = {
        Scenario.CHARGE: city.merchants[0],
        Scenario.ADMISSION: city.gates[0],
    }
    connection = await asyncpg.connect(ground.server.dsn())
    meter = Meter(connection, DATABASE, api_pid=api_pid, postgres_pid=ground.postgres_pid)
    figures = []
    for scenario in wish.scenarios:
        target, has_pass = (
            target_of(settings, scenario, access[scenario]),
            scenario is Scenario.ADMISSION,
        )
        warm = await make_phones(settings, WARM_CARDS, has_pass=has_pass, title="making cards")
        await run_phase(target, Cards(warm), rate=WARM_RATE, calls=WARM_CARDS)
        for rate in wish.rates:
            cards = wish.cards_at(rate)
            title = f"making {cards} cards"
            phones = await make_phones(settings, cards, has_pass=has_pass, title=title)
            figures += await measure(
                target, Cards(phones), meter, reference, rate=rate, seconds=wish.seconds
            )
    await connection.close()
    await _prove(ground)
    return figures


async def _prove(ground: Ground) -> None:
    """Make sure that what was answered is what was booked.

    Raises:
        WrongAnswers: an invariant of the books does not hold.
    """
    db = await Database.open(
        ground.settings.database_url, schema=ground.settings.schema, connections_max=1
    )
    broken = [proof for proof in await invariants.prove(db) if proof.faults]
    await db.close()
    if broken:
        raise WrongAnswers(f"the books do not hold: {[proof.invariant.name for proof in broken]}")


_COLUMNS: tuple[tuple[str, Callable[[Figures], str]], ...] = (
    ("scenario", lambda one: f"{one.scenario}, {one.sight}"),
    ("calls", lambda one: f"{one.calls}"),
    ("offered/s", lambda one: f"{one.offered_per_second:g}"),
    ("achieved/s", lambda one: f"{one.achieved_per_second:.1f}"),
    ("÷ pgbench", lambda one: f"{one.pgbench_ratio:.3f}"),
    ("p50 ms", lambda one: f"{one.p50_ms:.1f}"),
    ("p99 ms", lambda one: f"{one.p99_ms:.1f}"),
    ("max ms", lambda one: f"{one.max_ms:.1f}"),
    ("API CPU ms", lambda one: f"{one.api_cpu_ms:.2f}"),
    ("PG CPU ms", lambda one: f"{one.postgres_cpu_ms:.2f}"),
    ("SQL", lambda one: f"{one.statements:.2f}"),
    ("WAL B", lambda one: f"{one.wal_bytes:.0f}"),
    ("slot", lambda one: f"{one.slot}"),
    ("lag p99 ms", lambda one: f"{one.generator_lag_p99_ms:.2f}"),
    ("gen CPU", lambda one: f"{one.generator_cpu_share:.2f}"),
    ("conns", lambda one: f"{one.connections}"),
)


def table_of(run: Run) -> str:
    """Return the results as a table, in Markdown; CPU, SQL and WAL are per call."""
    rows = [[show(one) for _, show in _COLUMNS] for one in run.figures]
    lines = [[name for name, _ in _COLUMNS], ["---" for _ in _COLUMNS], *rows]
    return "\n".join(
        [
            f"{run.command}",
            f"{run.began_at}, {run.cores} cores, load before {run.load_before:.1f}, "
            f"{run.workers} worker(s); pgbench {run.pgbench_tps:.0f} tps, "
            f"{run.pgbench_postgres_cpu_ms:.2f} ms of PG CPU per transaction",
            "",
            *(f"| {' | '.join(cells)} |" for cells in lines),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
