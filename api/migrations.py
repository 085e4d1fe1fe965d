"""Migrations (迁移), run per issuer's schema: `yuanka migrate`, the demo and the tests."""

from pathlib import Path

from alembic import command
from alembic.config import Config

ROOT = Path(__file__).parent.parent


def config_of(dsn: str, schema: str) -> Config:
    """Return Alembic's configuration for one issuer's schema in one database."""
    config = Config(toml_file=str(ROOT / "pyproject.toml"))
    config.attributes.update(dsn=dsn, schema=schema)
    return config


def upgrade(dsn: str, schema: str, revision: str = "head") -> None:
    """Bring a schema up to a revision, from empty or from any earlier one."""
    command.upgrade(config_of(dsn, schema), revision)


def downgrade(dsn: str, schema: str, revision: str) -> None:
    """Take a schema back to an earlier revision."""
    command.downgrade(config_of(dsn, schema), revision)


def check(dsn: str, schema: str) -> None:
    """Compare models and migrated schema.

    Raises:
        alembic.util.CommandError: they differ.
    """
    command.check(config_of(dsn, schema))
