"""volumes of the volume service"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "volumes",
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("live_name", sa.String(length=255), nullable=True),
        sa.Column("size_gib", sa.Integer(), nullable=False),
        sa.Column("multiattach", sa.Boolean(), nullable=False),
        sa.Column("host_uuid", sa.String(length=36), nullable=True),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.Column("hidden", sa.Boolean(), nullable=False),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("uuid", name=op.f("pk_volumes")),
        sa.UniqueConstraint("project_id", "live_name", name="uq_volumes_live_name"),
    )
    with op.batch_alter_table("volumes", schema=None) as batch_op:
        batch_op.create_index("ix_volumes_deleted", ["deleted", "host_uuid"], unique=False)

    op.create_table(
        "volume_attachments",
        sa.Column("capsule_uuid", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("volume_uuid", sa.String(length=36), nullable=False),
        sa.Column("read_only", sa.Boolean(), nullable=False),
        sa.Column("auto_remove", sa.Boolean(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["capsule_uuid"], ["capsules.uuid"], name=op.f("fk_volume_attachments_capsule_uuid")),
        sa.ForeignKeyConstraint(["volume_uuid"], ["volumes.uuid"], name=op.f("fk_volume_attachments_volume_uuid")),
        sa.PrimaryKeyConstraint("capsule_uuid", "name", name=op.f("pk_volume_attachments")),
    )
    with op.batch_alter_table("volume_attachments", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_volume_attachments_volume_uuid"), ["volume_uuid"], unique=False)


def downgrade() -> None:
    op.drop_table("volume_attachments")
    op.drop_table("volumes")
