"""${message}; pre- or post-deploy, which locks it takes and for how long.

Revision: ${up_revision}, after ${down_revision | comma,n}.

Safe on a large table: add a nullable column; backfill in a job; add constraints NOT VALID, then
VALIDATE them; create indexes CONCURRENTLY; remove a column one release after the last reader.
"""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
