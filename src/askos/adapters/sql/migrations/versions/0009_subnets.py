"""subnets in a table of their own, one of IPv4 and one of IPv6 for a network; ports with IPv6 addresses; pools' quotas

The way back keeps everything of IPv4. What only this version knows is left behind: IPv6 subnets and addresses, ports
without an IPv4 address, quotas of pools, and pools of IPv6. Before, all networks shared one routing: while ranges of
networks overlap, there is no way back.
"""

from ipaddress import ip_network
from itertools import pairwise

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_UUID = sa.String(length=36)
_MOVED = (
    "cidr", "gateway", "subnet_uuid", "subnet_name", "subnet_description", "subnet_project_id", "subnet_pool_uuid",
    "gateway_disabled", "dhcp", "ranges", "subnet_created_us", "subnet_updated_us", "subnet_changed",
)  # fmt: skip


def upgrade() -> None:
    op.create_table(
        "subnets",
        sa.Column("uuid", _UUID, nullable=False),
        sa.Column("network_uuid", _UUID, nullable=False),
        sa.Column("ip_version", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("cidr", sa.String(length=43), nullable=False),
        sa.Column("gateway", sa.String(length=39), nullable=False),
        sa.Column("gateway_disabled", sa.Boolean(), nullable=False),
        sa.Column("dhcp", sa.Boolean(), nullable=False),
        sa.Column("ranges", sa.Text(), nullable=False),
        sa.Column("pool_uuid", _UUID, nullable=True),
        sa.Column("address_mode", sa.String(length=16), nullable=True),
        sa.Column("ra_mode", sa.String(length=16), nullable=True),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("updated_us", sa.BigInteger(), nullable=False),
        sa.Column("changed", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["network_uuid"], ["networks.uuid"], name=op.f("fk_subnets_network_uuid"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("uuid", name=op.f("pk_subnets")),
        sa.UniqueConstraint("network_uuid", "ip_version", name="uq_subnets_version"),
    )
    op.create_index(op.f("ix_subnets_pool_uuid"), "subnets", ["pool_uuid"])
    op.execute(
        "INSERT INTO subnets (uuid, network_uuid, ip_version, project_id, name, description, cidr, gateway, "
        "gateway_disabled, dhcp, ranges, pool_uuid, created_us, updated_us, changed) "
        "SELECT subnet_uuid, uuid, 4, coalesce(subnet_project_id, project_id), subnet_name, subnet_description, cidr, "
        "gateway, gateway_disabled, dhcp, ranges, subnet_pool_uuid, subnet_created_us, subnet_updated_us, "
        "subnet_changed FROM networks WHERE subnet_uuid IS NOT NULL"
    )
    with op.batch_alter_table("networks", schema=None) as batch:
        batch.drop_constraint(op.f("uq_networks_cidr"), type_="unique")
        batch.drop_constraint(op.f("uq_networks_subnet_uuid"), type_="unique")
        for column in _MOVED:
            batch.drop_column(column)
    with op.batch_alter_table("ports", schema=None) as batch:
        batch.alter_column("address", existing_type=sa.String(length=15), nullable=True)
        batch.alter_column("address_number", existing_type=sa.BigInteger(), nullable=True)
        batch.add_column(sa.Column("address6", sa.String(length=39), nullable=True))
        batch.create_unique_constraint("uq_ports_address6", ["network_uuid", "address6"])
    op.add_column("subnet_pools", sa.Column("quota", sa.BigInteger(), nullable=True))


def _check_apart() -> None:
    """RuntimeError when networks overlap: the version before would mix up their packets."""
    query = sa.text("SELECT network_uuid, cidr FROM subnets WHERE ip_version = 4")
    found = sorted((ip_network(row.cidr), row.network_uuid) for row in op.get_bind().execute(query))
    for (one, first), (other, second) in pairwise(found):
        if one.overlaps(other):
            raise RuntimeError(
                f"Cannot go back to schema 0008: the networks {first} ({one}) and {second} ({other}) overlap, which "
                "older versions do not know. Delete one of them first."
            )


def downgrade() -> None:
    _check_apart()
    op.execute("DELETE FROM subnet_pools WHERE prefixes LIKE '%:%'")
    op.drop_column("subnet_pools", "quota")
    op.execute(
        "UPDATE floating_ips SET port_uuid = NULL WHERE port_uuid IN (SELECT uuid FROM ports WHERE address IS NULL)"
    )
    op.execute("DELETE FROM port_groups WHERE port_uuid IN (SELECT uuid FROM ports WHERE address IS NULL)")
    op.execute("DELETE FROM ports WHERE address IS NULL")
    with op.batch_alter_table("ports", schema=None) as batch:
        batch.drop_constraint("uq_ports_address6", type_="unique")
        batch.drop_column("address6")
        batch.alter_column("address", existing_type=sa.String(length=15), nullable=False)
        batch.alter_column("address_number", existing_type=sa.BigInteger(), nullable=False)
    empty = sa.text("''")
    with op.batch_alter_table("networks", schema=None) as batch:
        batch.add_column(sa.Column("cidr", sa.String(length=18), nullable=True))
        batch.add_column(sa.Column("gateway", sa.String(length=15), nullable=True))
        batch.add_column(sa.Column("subnet_uuid", _UUID, nullable=True))
        batch.add_column(sa.Column("subnet_name", sa.String(length=255), nullable=False, server_default=empty))
        batch.add_column(sa.Column("subnet_description", sa.Text(), nullable=False, server_default=empty))
        batch.add_column(sa.Column("subnet_project_id", sa.String(length=64), nullable=True))
        batch.add_column(sa.Column("subnet_pool_uuid", _UUID, nullable=True))
        batch.add_column(sa.Column("gateway_disabled", sa.Boolean(), nullable=False, server_default=sa.false()))
        batch.add_column(sa.Column("dhcp", sa.Boolean(), nullable=False, server_default=sa.true()))
        batch.add_column(sa.Column("ranges", sa.Text(), nullable=False, server_default=empty))
        for stamp in ("subnet_created_us", "subnet_updated_us", "subnet_changed"):
            batch.add_column(sa.Column(stamp, sa.BigInteger(), nullable=False, server_default="0"))
        batch.create_unique_constraint(op.f("uq_networks_cidr"), ["cidr"])
        batch.create_unique_constraint(op.f("uq_networks_subnet_uuid"), ["subnet_uuid"])
    _give_back()
    op.drop_table("subnets")


def _give_back() -> None:
    connection = op.get_bind()
    for row in connection.execute(sa.text("SELECT * FROM subnets WHERE ip_version = 4")).mappings().all():
        connection.execute(
            sa.text(
                "UPDATE networks SET cidr = :cidr, gateway = :gateway, subnet_uuid = :uuid, subnet_name = :name, "
                "subnet_description = :description, subnet_project_id = :project_id, subnet_pool_uuid = :pool_uuid, "
                "gateway_disabled = :gateway_disabled, dhcp = :dhcp, ranges = :ranges, "
                "subnet_created_us = :created_us, subnet_updated_us = :updated_us, subnet_changed = :changed "
                "WHERE uuid = :network_uuid"
            ),
            dict(row),
        )
