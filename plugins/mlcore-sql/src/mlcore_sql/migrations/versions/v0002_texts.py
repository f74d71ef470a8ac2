"""Let the index of attributes tell what a value is as text, too, and the terms whether such a text was cut."""

from __future__ import annotations

from alembic import op

from mlcore_sql.migrations.steps import add_index, drop_index

__all__ = ["down_revision", "revision", "upgrade"]

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make an index in the place of the one that was there, and mark the terms."""
    add_index("attributes_values", "attributes", ["term", "value", "entity", "type", "text"])
    drop_index("attributes_value", "attributes")
    op.execute("UPDATE terms SET cut = 1 WHERE id IN (SELECT term FROM attributes WHERE length(text) >= 480)")
