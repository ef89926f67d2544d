"""quotas, registries, services, images that were asked for, engine networks"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_HOSTS = ("number", "disabled", "disabled_reason", "forced_down", "report_count", "created_us", "updated_us")


def upgrade() -> None:
    # Columns are added in place: copying a table would lose its AUTOINCREMENT, and ids would be given twice.
    op.add_column("capsules", sa.Column("disk_gib", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("capsules", sa.Column("registry_uuid", sa.String(length=36), nullable=True))
    op.create_index("ix_capsules_quota", "capsules", ["project_id", "kind", "cpu", "memory_mib", "disk_gib"])
    op.create_index("ix_capsules_registry", "capsules", ["registry_uuid"])

    op.add_column("hosts", sa.Column("number", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("hosts", sa.Column("disabled", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("hosts", sa.Column("disabled_reason", sa.String(length=255), nullable=True))
    op.add_column("hosts", sa.Column("forced_down", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("hosts", sa.Column("report_count", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("hosts", sa.Column("created_us", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("hosts", sa.Column("updated_us", sa.BigInteger(), nullable=False, server_default="0"))
    _number_hosts()

    for table, owner in (("quotas", "project_id"), ("quota_classes", "name")):
        op.create_table(
            table,
            sa.Column(owner, sa.String(length=255), nullable=False),
            sa.Column("resource", sa.String(length=32), nullable=False),
            sa.Column("hard_limit", sa.BigInteger(), nullable=False),
            sa.PrimaryKeyConstraint(owner, "resource", name=op.f(f"pk_{table}")),
        )
    op.create_table(
        "registries",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=True),
        sa.Column("domain", sa.String(length=255), nullable=False),
        sa.Column("username", sa.String(length=255), nullable=True),
        sa.Column("password", sa.LargeBinary(), nullable=True),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_registries")),
        sa.UniqueConstraint("uuid", name=op.f("uq_registries_uuid")),
    )
    op.create_index(op.f("ix_registries_project_id"), "registries", ["project_id"])
    op.create_table(
        "host_images",
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("host_uuid", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("ref", sa.String(length=512), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["host_uuid"], ["hosts.uuid"], name=op.f("fk_host_images_host_uuid"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("uuid", name=op.f("pk_host_images")),
    )
    op.create_index(op.f("ix_host_images_host_uuid"), "host_images", ["host_uuid"])
    op.create_table(
        "engine_networks",
        sa.Column("network_uuid", sa.String(length=36), nullable=False),
        sa.Column("uuid", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=64), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["network_uuid"], ["networks.uuid"], name=op.f("fk_engine_networks_network_uuid"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("network_uuid", name=op.f("pk_engine_networks")),
    )


def _number_hosts() -> None:
    """Hosts that are there already get numbers, and count as made when they were last seen."""
    hosts = sa.table(
        "hosts", sa.column("uuid"), sa.column("hostname"), sa.column("number"), sa.column("created_us"),
        sa.column("updated_us"), sa.column("last_seen_us"),
    )  # fmt: skip
    connection = op.get_bind()
    found = connection.execute(sa.select(hosts.c.uuid).order_by(hosts.c.hostname)).scalars().all()
    for number, uuid in enumerate(found, 1):
        values = {"number": number, "created_us": hosts.c.last_seen_us, "updated_us": hosts.c.last_seen_us}
        connection.execute(sa.update(hosts).where(hosts.c.uuid == uuid).values(**values))


def downgrade() -> None:
    for table in ("engine_networks", "host_images", "registries", "quota_classes", "quotas"):
        op.drop_table(table)
    for column in _HOSTS:
        op.drop_column("hosts", column)
    op.drop_index("ix_capsules_registry", "capsules")
    op.drop_index("ix_capsules_quota", "capsules")
    op.drop_column("capsules", "registry_uuid")
    op.drop_column("capsules", "disk_gib")
