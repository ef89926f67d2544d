"""indexes that answer lists and placement alone"""

from alembic import op

revision = "0004"
down_revision = "0003"

_OLD = {"ix_capsules_project": ["project_id", "kind", "id"], "ix_capsules_host": ["host_uuid"]}
_NEW = {
    "ix_capsules_project": ["project_id", "kind", "id", "namespace", "revision", "uuid"],
    "ix_capsules_host": ["host_uuid", "cpu", "memory_mib"],
}


def upgrade() -> None:
    _replace(_NEW)


def downgrade() -> None:
    _replace(_OLD)


def _replace(indexes: dict[str, list[str]]) -> None:
    for name, columns in indexes.items():
        # Made before the old one goes: a foreign key of MariaDB is never without an index.
        op.create_index(f"{name}_new", "capsules", columns, unique=False)
        op.drop_index(name, "capsules")
        op.create_index(name, "capsules", columns, unique=False)
        op.drop_index(f"{name}_new", "capsules")
