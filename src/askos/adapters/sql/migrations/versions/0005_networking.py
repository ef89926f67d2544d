"""networks, ports, security groups, floating addresses, routers and subnet pools of the network service"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_UUID = sa.String(length=36)
_PROJECT = sa.String(length=64)
_NAME = sa.String(length=255)


def upgrade() -> None:
    op.create_table(
        "subnet_pools",
        sa.Column("uuid", _UUID, nullable=False),
        sa.Column("project_id", _PROJECT, nullable=False),
        sa.Column("name", _NAME, nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("prefixes", sa.Text(), nullable=False),
        sa.Column("prefix_default", sa.Integer(), nullable=False),
        sa.Column("prefix_min", sa.Integer(), nullable=False),
        sa.Column("prefix_max", sa.Integer(), nullable=False),
        sa.Column("shared", sa.Boolean(), nullable=False),
        *_stamps(),
        sa.PrimaryKeyConstraint("uuid", name=op.f("pk_subnet_pools")),
    )
    with op.batch_alter_table("networks", schema=None) as batch:
        batch.alter_column("cidr", existing_type=sa.String(length=18), nullable=True)
        batch.alter_column("gateway", existing_type=sa.String(length=15), nullable=True)
        batch.alter_column("subnet_uuid", existing_type=_UUID, nullable=True)
        batch.add_column(sa.Column("description", sa.Text(), nullable=False, server_default=sa.text("''")))
        batch.add_column(sa.Column("shared", sa.Boolean(), nullable=False, server_default=sa.false()))
        batch.add_column(sa.Column("external", sa.Boolean(), nullable=False, server_default=sa.false()))
        batch.add_column(sa.Column("updated_us", sa.BigInteger(), nullable=False, server_default="0"))
        batch.add_column(sa.Column("changed", sa.BigInteger(), nullable=False, server_default="1"))
        batch.add_column(sa.Column("subnet_name", _NAME, nullable=False, server_default=sa.text("''")))
        batch.add_column(sa.Column("subnet_description", sa.Text(), nullable=False, server_default=sa.text("''")))
        batch.add_column(sa.Column("subnet_project_id", _PROJECT, nullable=True))
        batch.add_column(sa.Column("subnet_pool_uuid", _UUID, nullable=True))
        batch.add_column(sa.Column("gateway_disabled", sa.Boolean(), nullable=False, server_default=sa.false()))
        batch.add_column(sa.Column("dhcp", sa.Boolean(), nullable=False, server_default=sa.true()))
        batch.add_column(sa.Column("ranges", sa.Text(), nullable=False, server_default=sa.text("''")))
        batch.add_column(sa.Column("subnet_created_us", sa.BigInteger(), nullable=False, server_default="0"))
        batch.add_column(sa.Column("subnet_updated_us", sa.BigInteger(), nullable=False, server_default="0"))
        batch.add_column(sa.Column("subnet_changed", sa.BigInteger(), nullable=False, server_default="0"))
        batch.create_unique_constraint(op.f("uq_networks_subnet_uuid"), ["subnet_uuid"])
    op.execute(
        "UPDATE networks SET updated_us = created_us, subnet_created_us = created_us, subnet_updated_us = created_us, "
        "subnet_project_id = project_id, subnet_name = name"
    )
    op.create_table(
        "security_groups",
        sa.Column("uuid", _UUID, nullable=False),
        sa.Column("project_id", _PROJECT, nullable=False),
        sa.Column("default_of", _PROJECT, nullable=True),
        sa.Column("name", _NAME, nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        *_stamps(),
        sa.PrimaryKeyConstraint("uuid", name=op.f("pk_security_groups")),
        sa.UniqueConstraint("default_of", name=op.f("uq_security_groups_default_of")),
    )
    op.create_index(op.f("ix_security_groups_project_id"), "security_groups", ["project_id"])
    op.create_table(
        "security_rules",
        sa.Column("uuid", _UUID, nullable=False),
        sa.Column("group_uuid", _UUID, nullable=False),
        sa.Column("direction", sa.String(length=8), nullable=False),
        sa.Column("ethertype", sa.String(length=4), nullable=False),
        sa.Column("protocol", sa.String(length=32), nullable=True),
        sa.Column("port_min", sa.Integer(), nullable=True),
        sa.Column("port_max", sa.Integer(), nullable=True),
        sa.Column("remote_cidr", sa.String(length=43), nullable=True),
        sa.Column("remote_group", _UUID, nullable=True),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["group_uuid"], ["security_groups.uuid"], name=op.f("fk_security_rules_group_uuid"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["remote_group"], ["security_groups.uuid"], name=op.f("fk_security_rules_remote_group"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("uuid", name=op.f("pk_security_rules")),
    )
    op.create_index(op.f("ix_security_rules_group_uuid"), "security_rules", ["group_uuid"])
    op.create_index(op.f("ix_security_rules_remote_group"), "security_rules", ["remote_group"])
    with op.batch_alter_table("ports", schema=None) as batch:
        batch.alter_column("capsule_uuid", existing_type=_UUID, nullable=True)
        batch.add_column(sa.Column("project_id", _PROJECT, nullable=False, server_default=sa.text("''")))
        batch.add_column(sa.Column("name", _NAME, nullable=False, server_default=sa.text("''")))
        batch.add_column(sa.Column("description", sa.Text(), nullable=False, server_default=sa.text("''")))
        batch.add_column(sa.Column("device_id", _NAME, nullable=False, server_default=sa.text("''")))
        batch.add_column(sa.Column("device_owner", _NAME, nullable=False, server_default=sa.text("''")))
        batch.add_column(sa.Column("preserve", sa.Boolean(), nullable=False, server_default=sa.false()))
        batch.add_column(sa.Column("secured", sa.Boolean(), nullable=False, server_default=sa.true()))
        batch.add_column(sa.Column("position", sa.Integer(), nullable=False, server_default="0"))
        batch.add_column(sa.Column("updated_us", sa.BigInteger(), nullable=False, server_default="0"))
        batch.add_column(sa.Column("changed", sa.BigInteger(), nullable=False, server_default="1"))
        batch.create_index(op.f("ix_ports_project_id"), ["project_id"])
        batch.create_index(op.f("ix_ports_device_id"), ["device_id"])
    op.execute(
        "UPDATE ports SET updated_us = created_us, "
        "project_id = (SELECT networks.project_id FROM networks WHERE networks.uuid = ports.network_uuid)"
    )
    op.create_table(
        "port_groups",
        sa.Column("port_uuid", _UUID, nullable=False),
        sa.Column("group_uuid", _UUID, nullable=False),
        sa.ForeignKeyConstraint(
            ["port_uuid"], ["ports.uuid"], name=op.f("fk_port_groups_port_uuid"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["group_uuid"], ["security_groups.uuid"], name=op.f("fk_port_groups_group_uuid")),
        sa.PrimaryKeyConstraint("port_uuid", "group_uuid", name=op.f("pk_port_groups")),
    )
    op.create_index(op.f("ix_port_groups_group_uuid"), "port_groups", ["group_uuid"])
    op.create_table(
        "routers",
        sa.Column("uuid", _UUID, nullable=False),
        sa.Column("project_id", _PROJECT, nullable=False),
        sa.Column("name", _NAME, nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("network_uuid", _UUID, nullable=True),
        sa.Column("address", sa.String(length=15), nullable=True),
        *_stamps(),
        sa.ForeignKeyConstraint(["network_uuid"], ["networks.uuid"], name=op.f("fk_routers_network_uuid")),
        sa.PrimaryKeyConstraint("uuid", name=op.f("pk_routers")),
        sa.UniqueConstraint("network_uuid", "address", name="uq_routers_address"),
    )
    op.create_table(
        "floating_ips",
        sa.Column("uuid", _UUID, nullable=False),
        sa.Column("project_id", _PROJECT, nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("network_uuid", _UUID, nullable=False),
        sa.Column("address", sa.String(length=15), nullable=False),
        sa.Column("port_uuid", _UUID, nullable=True),
        *_stamps(),
        sa.ForeignKeyConstraint(["network_uuid"], ["networks.uuid"], name=op.f("fk_floating_ips_network_uuid")),
        sa.ForeignKeyConstraint(
            ["port_uuid"], ["ports.uuid"], name=op.f("fk_floating_ips_port_uuid"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("uuid", name=op.f("pk_floating_ips")),
        sa.UniqueConstraint("network_uuid", "address", name="uq_floating_ips_address"),
        sa.UniqueConstraint("port_uuid", name=op.f("uq_floating_ips_port_uuid")),
    )
    _secure_old_ports()


def _stamps() -> list[sa.Column]:  # type: ignore[type-arg]
    return [
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("updated_us", sa.BigInteger(), nullable=False),
        sa.Column("changed", sa.BigInteger(), nullable=False),
    ]


def _secure_old_ports() -> None:
    """Each project that has ports gets its default group, with all of its ports in it: capsules that run must stay
    within reach of each other, and out of reach of others."""
    import uuid

    connection = op.get_bind()
    projects = connection.execute(sa.text("SELECT project_id, min(created_us) FROM ports GROUP BY project_id")).all()
    for project_id, created_us in projects:
        group = str(uuid.uuid4())
        connection.execute(
            sa.text(
                "INSERT INTO security_groups (uuid, project_id, default_of, name, description, created_us, updated_us, "
                "changed) VALUES (:uuid, :project, :project, 'default', 'Default security group', :at, :at, 1)"
            ),
            {"uuid": group, "project": project_id, "at": created_us},
        )
        for ethertype in ("IPv4", "IPv6"):
            for direction, remote in (("egress", None), ("ingress", group)):
                connection.execute(
                    sa.text(
                        "INSERT INTO security_rules (uuid, group_uuid, direction, ethertype, remote_group, "
                        "description, created_us) VALUES (:uuid, :group, :direction, :ethertype, :remote, '', :at)"
                    ),
                    {
                        "uuid": str(uuid.uuid4()),
                        "group": group,
                        "direction": direction,
                        "ethertype": ethertype,
                        "remote": remote,
                        "at": created_us,
                    },
                )
        connection.execute(
            sa.text(
                "INSERT INTO port_groups (port_uuid, group_uuid) SELECT uuid, :group FROM ports "
                "WHERE project_id = :project"
            ),
            {"group": group, "project": project_id},
        )


def downgrade() -> None:
    for table in ("floating_ips", "routers", "port_groups", "security_rules", "security_groups", "subnet_pools"):
        op.drop_table(table)
    op.execute("DELETE FROM ports WHERE capsule_uuid IS NULL")
    with op.batch_alter_table("ports", schema=None) as batch:
        batch.drop_index(op.f("ix_ports_project_id"))
        batch.drop_index(op.f("ix_ports_device_id"))
        for column in (
            "project_id", "name", "description", "device_id", "device_owner", "preserve", "secured", "position",
            "updated_us", "changed",
        ):  # fmt: skip
            batch.drop_column(column)
        batch.alter_column("capsule_uuid", existing_type=_UUID, nullable=False)
    op.execute("DELETE FROM networks WHERE cidr IS NULL OR external")
    with op.batch_alter_table("networks", schema=None) as batch:
        batch.drop_constraint(op.f("uq_networks_subnet_uuid"), type_="unique")
        for column in (
            "description", "shared", "external", "updated_us", "changed", "subnet_name", "subnet_description",
            "subnet_project_id", "subnet_pool_uuid", "gateway_disabled", "dhcp", "ranges", "subnet_created_us",
            "subnet_updated_us", "subnet_changed",
        ):  # fmt: skip
            batch.drop_column(column)
        batch.alter_column("cidr", existing_type=sa.String(length=18), nullable=False)
        batch.alter_column("gateway", existing_type=sa.String(length=15), nullable=False)
        batch.alter_column("subnet_uuid", existing_type=_UUID, nullable=False)
