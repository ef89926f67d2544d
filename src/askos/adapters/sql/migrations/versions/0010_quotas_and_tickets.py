"""capsules count in quotas; tickets of sessions"""

import msgspec
import sqlalchemy as sa
from alembic import op

from askos.model.capsules import CapsuleSpec
from askos.plan import resources

revision = "0010"
down_revision = "0009"

_COLUMNS = ("quota_containers", "quota_memory_mib", "quota_cpu_milli", "quota_disk_gib")


def upgrade() -> None:
    for name in _COLUMNS:
        default = "1" if name == "quota_containers" else "0"
        op.add_column("capsules", sa.Column(name, sa.BigInteger(), nullable=False, server_default=default))
    _count()
    op.drop_index("ix_capsules_quota", "capsules")
    op.create_index("ix_capsules_quota", "capsules", ["project_id", *_COLUMNS])
    op.create_table(
        "session_tickets",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("capsule_uuid", sa.String(length=36), nullable=False),
        sa.Column("argv", sa.Text(), nullable=True),
        sa.Column("exec_id", sa.String(length=64), nullable=True),
        sa.Column("credential", sa.LargeBinary(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["capsule_uuid"], ["capsules.uuid"], name=op.f("fk_session_tickets_capsule_uuid"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_session_tickets")),
        sa.UniqueConstraint("digest", name=op.f("uq_session_tickets_digest")),
    )
    op.create_index(op.f("ix_session_tickets_capsule_uuid"), "session_tickets", ["capsule_uuid"])
    op.create_index(op.f("ix_session_tickets_expires_us"), "session_tickets", ["expires_us"])


def _count() -> None:
    """What is there already counts as what is made from now on."""
    capsules = sa.table(
        "capsules", sa.column("uuid"), sa.column("kind"), sa.column("spec"), sa.column("cpu"),
        sa.column("memory_mib"), sa.column("disk_gib"), *(sa.column(name) for name in _COLUMNS),
    )  # fmt: skip
    connection = op.get_bind()
    claims = {"quota_memory_mib": capsules.c.memory_mib, "quota_cpu_milli": capsules.c.cpu}
    connection.execute(
        sa.update(capsules).where(capsules.c.kind == "container").values(**claims, quota_disk_gib=capsules.c.disk_gib)
    )
    # Page by page: a big cloud's pods are many megabytes.
    pods = sa.select(capsules.c.uuid, capsules.c.spec).where(capsules.c.kind == "capsule").order_by(capsules.c.uuid)
    last = ""
    while page := connection.execute(pods.where(capsules.c.uuid > last).limit(500)).all():
        for uuid, text in page:
            pod = msgspec.json.decode(text, type=CapsuleSpec).pod
            assert pod is not None
            use = resources.use(pod)
            values = {
                "quota_containers": use.containers,
                "quota_memory_mib": -(-use.memory_bytes >> 20),
                "quota_cpu_milli": use.cpu_milli,
                "quota_disk_gib": -(-use.storage_bytes >> 30),
            }
            connection.execute(sa.update(capsules).where(capsules.c.uuid == uuid).values(**values))
        last = page[-1][0]


def downgrade() -> None:
    op.drop_table("session_tickets")
    op.drop_index("ix_capsules_quota", "capsules")
    op.create_index("ix_capsules_quota", "capsules", ["project_id", "kind", "cpu", "memory_mib", "disk_gib"])
    for name in _COLUMNS:
        op.drop_column("capsules", name)
