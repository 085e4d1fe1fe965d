"""`yuanka draft-migration`: a first draft of a migration, from what the models say now.

The draft is compared against a fresh database at the newest migration; whoever asked reads it,
says in its first line when it is deployed and what it locks, and takes out what they do not want.
"""

import argparse
import tempfile
from pathlib import Path


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    says = "draft a migration from the models"
    parser = subparsers.add_parser("draft-migration", help=says, description=says)
    parser.add_argument("name", help="what changes, as in holds_expire")
    parser.set_defaults(run=run_draft)


def run_draft(arguments: argparse.Namespace) -> int:
    """Write the draft into alembic/versions."""
    from alembic import command

    from api import migrations
    from api.embedded_postgres import EmbeddedPostgres

    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with EmbeddedPostgres(Path(folder) / "postgres") as server:
            config = migrations.config_of(server.dsn(), "draft")
            migrations.upgrade(server.dsn(), "draft")
            command.revision(config, message=arguments.name, autogenerate=True)
    return 0
