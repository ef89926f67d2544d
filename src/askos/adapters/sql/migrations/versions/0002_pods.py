"""pods: content, client tokens, namespaces, labels, events, and what watchers need of the change log"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # Columns are added in place: copying a table would lose its AUTOINCREMENT, and ids would be given twice.
    op.add_column(
        "capsules", sa.Column("namespace", sa.String(length=63), nullable=False, server_default=sa.text("''"))
    )
    op.add_column("capsules", sa.Column("token", sa.String(length=255), nullable=True))
    op.add_column("capsules", sa.Column("content", sa.LargeBinary(), nullable=True))
    op.add_column("capsules", sa.Column("content_revision", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_index("ix_capsules_token", "capsules", ["project_id", "token"], unique=True)

    op.add_column("changes", sa.Column("created", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("changes", sa.Column("last", sa.Text(), nullable=True))
    op.add_column("changes", sa.Column("labels_before", sa.Text(), nullable=True))

    op.create_table(
        "capsule_labels",
        sa.Column("capsule_uuid", sa.String(length=36), nullable=False),
        sa.Column("key", sa.String(length=317), nullable=False),
        sa.Column("value", sa.String(length=63), nullable=False),
        sa.ForeignKeyConstraint(
            ["capsule_uuid"], ["capsules.uuid"], name=op.f("fk_capsule_labels_capsule_uuid"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("capsule_uuid", "key", name=op.f("pk_capsule_labels")),
    )
    op.create_index("ix_capsule_labels_key", "capsule_labels", ["key", "value"], unique=False)

    op.create_table(
        "capsule_events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("capsule_uuid", sa.String(length=36), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=255), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("container", sa.String(length=63), nullable=False),
        sa.Column("times", sa.BigInteger(), nullable=False),
        sa.Column("first_us", sa.BigInteger(), nullable=False),
        sa.Column("last_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["capsule_uuid"], ["capsules.uuid"], name=op.f("fk_capsule_events_capsule_uuid"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_capsule_events")),
    )
    op.create_index(op.f("ix_capsule_events_capsule_uuid"), "capsule_events", ["capsule_uuid"], unique=False)


def downgrade() -> None:
    op.drop_table("capsule_events")
    op.drop_table("capsule_labels")
    for column in ("labels_before", "last", "created"):
        op.drop_column("changes", column)
    op.drop_index("ix_capsules_token", "capsules")
    for column in ("content_revision", "content", "token", "namespace"):
        op.drop_column("capsules", column)
