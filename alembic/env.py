"""Runs migrations inside one issuer's schema; nothing but the search path names it."""

from alembic import context
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

# Every file with a table is imported here, so that models and migrations can be compared; a test
# holds this list against the files that subclass Base.
from identity import audit, machine_keys, request_numbers, tokens  # noqa: F401
from identity.devices import devices  # noqa: F401
from identity.kernel import Base
from identity.merchants import merchants  # noqa: F401
from identity.people import citizens, real_names, sign_ins, step_ups  # noqa: F401
from identity.staff import operators  # noqa: F401
from wallet.admission import admissions, parks  # noqa: F401
from wallet.cards import cards, media  # noqa: F401
from wallet.channels import attempts, notices  # noqa: F401
from wallet.codes import credentials, uses  # noqa: F401
from wallet.ledger import accounts, transfers  # noqa: F401
from wallet.passes import pass_types, passes  # noqa: F401
from wallet.payments import charges, refunds  # noqa: F401
from wallet.recharge import recharges  # noqa: F401
from wallet.recharge import refunds as recharge_refunds  # noqa: F401

JOB_QUEUE_PREFIX = "procrastinate_"
"""Tables of the job queue are the library's own; its migrations bring them."""


def is_ours(name: str | None, kind: str, _: object) -> bool:
    """Say whether a table is compared with the models."""
    return not (kind == "table" and name and name.startswith(JOB_QUEUE_PREFIX))


attributes = context.config.attributes
dsn, schema = attributes["dsn"], attributes["schema"]
engine = create_engine(dsn.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=NullPool)
with engine.connect() as connection:
    quoted = engine.dialect.identifier_preparer.quote(schema)
    connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {quoted}"))
    connection.execute(text(f"SET search_path TO {quoted}"))
    connection.commit()
    # The dialect learned its default schema when it connected; it is this one from here on.
    connection.dialect.default_schema_name = schema
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        include_name=is_ours,
        compare_server_default=True,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()
