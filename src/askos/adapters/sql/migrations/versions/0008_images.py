"""images of the image service"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "stored_images",
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("visibility", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=True),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("record", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("uuid", name=op.f("pk_stored_images")),
    )
    op.create_index(op.f("ix_stored_images_project_id"), "stored_images", ["project_id"])
    op.create_index(op.f("ix_stored_images_visibility"), "stored_images", ["visibility"])
    op.create_index("ix_stored_images_name", "stored_images", ["name"])


def downgrade() -> None:
    op.drop_table("stored_images")
