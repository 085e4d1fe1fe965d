"""`yuanka serve`, `work`, `migrate`, `prove`: the processes and the proof."""

import argparse
import asyncio
import sys
from time import monotonic
from typing import TYPE_CHECKING

from api.settings import Settings, read_settings

if TYPE_CHECKING:
    from wallet.invariants import Proof


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands."""
    for name, run, says in (
        ("serve", run_serve, "run the API"),
        ("work", run_work, "run the job process"),
        ("migrate", run_migrate, "bring the issuer's schema up to date"),
        ("prove", run_prove, "recompute every invariant of the books"),
    ):
        parser = subparsers.add_parser(name, help=says, description=says)
        parser.set_defaults(run=run)


def run_serve(_: argparse.Namespace) -> int:
    """Serve until the process is told to stop; the workers share one port."""
    import uvicorn

    from identity.sealing import load_ring

    settings = read_settings()
    # Read here too: a bad ring is said in one line, and not once per worker in a traceback.
    load_ring(settings.key_ring_file, is_production=settings.environment == "production")
    uvicorn.run(
        "api.app:from_environment",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        loop="uvloop",
        http="httptools",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=10,
    )
    return 0


def run_work(_: argparse.Namespace) -> int:
    """Run jobs until the process is told to stop."""
    from api.logs import configure_logs
    from api.worker import work

    configure_logs()
    asyncio.run(work(read_settings()))
    return 0


def run_migrate(_: argparse.Namespace) -> int:
    """Migrate one issuer's schema."""
    from api import migrations

    settings = read_settings()
    migrations.upgrade(settings.database_url, settings.schema)
    print(f"schema {settings.schema} is up to date")
    return 0


def run_prove(_: argparse.Namespace) -> int:
    """Prove the books; exit 1 with the account and the difference where they do not hold."""
    return 0 if asyncio.run(prove(read_settings())) else 1


async def prove(settings: Settings) -> bool:
    """Print each invariant as it is proven; return whether all hold."""
    from identity.kernel import Database
    from wallet import invariants

    db = await Database.open(settings.database_url, schema=settings.schema, connections_max=1)
    began = monotonic()
    try:
        proofs = await invariants.prove(db, progress=_print)
    finally:
        await db.close()
    broken = [proof for proof in proofs if proof.faults]
    print(
        f"{len(proofs) - len(broken)} of {len(proofs)} invariants hold"
        f" ({monotonic() - began:.1f} s)"
    )
    return not broken


def _print(proof: "Proof") -> None:
    mark = "✗" if proof.faults else "✓"
    print(f"  {mark} {proof.invariant.name:<8} {proof.invariant.says}")
    for fault in proof.faults:
        print(f"      {fault.where}: off by {fault.difference}", file=sys.stderr)
