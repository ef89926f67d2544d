"""The tables. Beside each column stands who writes it; a column has one writer.

Times are microseconds since the epoch (`*_us`); JSON columns hold msgspec encodings of the structs in
`askos.model`. Derived columns repeat what `plan.zun_status` says, so that SQL can filter and sort by it; they are
written together with whatever they derive from.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
    true,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_BIG = BigInteger().with_variant(Integer, "sqlite")


def _of_capsule(*, nullable: bool = False) -> Column[str]:
    """The capsule that a row belongs to, and goes with."""
    capsule = ForeignKey("capsules.uuid", ondelete="CASCADE")
    return Column("capsule_uuid", String(36), capsule, nullable=nullable, index=True)


cloud = Table(
    "cloud",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)
"""Facts of the whole cloud: its instance id, the pool that project networks are cut from."""

hosts = Table(
    "hosts",
    metadata,
    Column("uuid", String(36), primary_key=True),
    Column("hostname", String(255), nullable=False, unique=True),
    Column("facts", Text, nullable=False),  # agent: model.hosts.HostFacts
    Column("availability_zone", String(255), nullable=False),  # operator
    Column("session", BigInteger, nullable=False),  # server: grows with each link
    Column("connected", Boolean, nullable=False),  # server that holds the link
    Column("last_seen_us", BigInteger, nullable=False),  # server that holds the link
    Column("number", Integer, nullable=False, server_default="0"),  # server: of its service in Zun's API
    Column("disabled", Boolean, nullable=False, server_default=false()),  # operator
    Column("disabled_reason", String(255), nullable=True),  # operator
    Column("forced_down", Boolean, nullable=False, server_default=false()),  # operator
    Column("report_count", BigInteger, nullable=False, server_default="0"),  # server that holds the link
    Column("created_us", BigInteger, nullable=False, server_default="0"),
    Column("updated_us", BigInteger, nullable=False, server_default="0"),
)


def _stamps() -> list[Column[int]]:
    """When a record of the network service was made and changed, and how often."""
    return [
        Column("created_us", BigInteger, nullable=False),
        Column("updated_us", BigInteger, nullable=False),
        Column("changed", BigInteger, nullable=False),
    ]


networks = Table(
    "networks",
    metadata,
    Column("uuid", String(36), primary_key=True),
    Column("project_id", String(64), nullable=False, index=True),
    Column("name", String(255), nullable=False),
    Column("description", Text, nullable=False, server_default=text("''")),
    Column("shared", Boolean, nullable=False, server_default=false()),
    Column("external", Boolean, nullable=False, server_default=false()),
    Column("created_us", BigInteger, nullable=False),
    Column("updated_us", BigInteger, nullable=False, server_default="0"),
    Column("changed", BigInteger, nullable=False, server_default="1"),
)

subnets = Table(
    "subnets",
    metadata,
    Column("uuid", String(36), primary_key=True),
    Column("network_uuid", String(36), ForeignKey("networks.uuid", ondelete="CASCADE"), nullable=False),
    Column("ip_version", Integer, nullable=False),
    Column("project_id", String(64), nullable=False),
    Column("name", String(255), nullable=False),
    Column("description", Text, nullable=False),
    Column("cidr", String(43), nullable=False),
    Column("gateway", String(39), nullable=False),  # the bridge's address, also without a gateway
    Column("gateway_disabled", Boolean, nullable=False),
    Column("dhcp", Boolean, nullable=False),
    Column("ranges", Text, nullable=False),  # "first-last ..."; empty: all addresses
    Column("pool_uuid", String(36), nullable=True, index=True),
    Column("address_mode", String(16), nullable=True),
    Column("ra_mode", String(16), nullable=True),
    *_stamps(),
    UniqueConstraint("network_uuid", "ip_version", name="uq_subnets_version"),
)
"""Ranges of networks, at most one of each IP version. Networks live apart, so that ranges may overlap."""

capsules = Table(
    "capsules",
    metadata,
    Column("id", _BIG, primary_key=True, autoincrement=True),
    Column("uuid", String(36), nullable=False, unique=True),
    Column("project_id", String(64), nullable=False),
    Column("user_id", String(64), nullable=False),
    Column("name", String(255), nullable=False),  # user
    Column("kind", String(16), nullable=False),
    Column("namespace", String(63), nullable=False, server_default=text("''")),  # user: of pods, else empty
    Column("token", String(255), nullable=True),  # user: the client's own id of the create
    Column("spec", Text, nullable=False),  # user: CapsuleSpec
    Column("wish", Text, nullable=False),  # user: Wish
    Column("content", LargeBinary, nullable=True),  # user: Content, sealed (sealing.py); NULL: empty
    Column("content_revision", BigInteger, nullable=False, server_default="0"),  # user: grows with the content
    Column("wish_state", String(16), nullable=False),  # user: Wish.state, to search by
    Column("host_uuid", String(36), ForeignKey("hosts.uuid"), nullable=True),  # placement
    Column("epoch", BigInteger, nullable=False),  # placement
    Column("placement_failure", Text, nullable=True),  # placement
    Column("cpu", _BIG, nullable=False),  # claim in thousandths of a CPU, from spec
    Column("memory_mib", _BIG, nullable=False),  # claim, from spec
    Column("disk_gib", BigInteger, nullable=False, server_default="0"),  # derived from spec
    # What it counts for in its project's quota, derived from spec: model.quotas.Usage.
    Column("quota_containers", BigInteger, nullable=False, server_default="1"),
    Column("quota_memory_mib", BigInteger, nullable=False, server_default="0"),
    Column("quota_cpu_milli", BigInteger, nullable=False, server_default="0"),
    Column("quota_disk_gib", BigInteger, nullable=False, server_default="0"),
    Column("registry_uuid", String(36), nullable=True),  # derived from spec
    Column("report", Text, nullable=False),  # agent: Report
    Column("status", String(20), nullable=False),  # derived
    Column("status_reason", Text, nullable=True),  # derived
    Column("task_state", String(32), nullable=True),  # derived
    Column("image", String(255), nullable=False),  # derived from spec
    Column("auto_remove", Boolean, nullable=False),  # derived from spec
    Column("revision", BigInteger, nullable=False),  # of the last change
    Column("created_us", BigInteger, nullable=False),
    Column("updated_us", BigInteger, nullable=True),
    # The first answers a page of a list, the one of hosts what is claimed, without a look at the long rows.
    Index("ix_capsules_project", "project_id", "kind", "id", "namespace", "revision", "uuid"),
    Index("ix_capsules_name", "project_id", "name"),
    Index("ix_capsules_token", "project_id", "token", unique=True),
    Index("ix_capsules_host", "host_uuid", "cpu", "memory_mib"),
    Index("ix_capsules_wish", "wish_state", "host_uuid"),
    # Answers what a project uses, alone.
    Index(
        "ix_capsules_quota",
        "project_id",
        "quota_containers",
        "quota_memory_mib",
        "quota_cpu_milli",
        "quota_disk_gib",
    ),
    Index("ix_capsules_registry", "registry_uuid"),
    # Never give an id a second time: paging by id relies on it.
    sqlite_autoincrement=True,
)

ports = Table(
    "ports",
    metadata,
    Column("uuid", String(36), primary_key=True),
    Column("network_uuid", String(36), ForeignKey("networks.uuid"), nullable=False),
    _of_capsule(nullable=True),  # NULL: no capsule has it
    Column("address", String(15), nullable=True),  # NULL: an IPv6 one alone
    Column("address_number", BigInteger, nullable=True),  # the address as an integer, to find a free one
    Column("address6", String(39), nullable=True),  # in its shortest form
    Column("mac", String(17), nullable=False),
    Column("project_id", String(64), nullable=False, server_default=text("''"), index=True),
    Column("name", String(255), nullable=False, server_default=text("''")),
    Column("description", Text, nullable=False, server_default=text("''")),
    Column("device_id", String(255), nullable=False, server_default=text("''"), index=True),  # while no capsule has it
    Column("device_owner", String(255), nullable=False, server_default=text("''")),
    Column("preserve", Boolean, nullable=False, server_default=false()),  # a user made it: it outlives capsules
    Column("secured", Boolean, nullable=False, server_default=true()),
    Column("position", Integer, nullable=False, server_default="0"),  # among the ports of its capsule
    Column("created_us", BigInteger, nullable=False),
    Column("updated_us", BigInteger, nullable=False, server_default="0"),
    Column("changed", BigInteger, nullable=False, server_default="1"),
    UniqueConstraint("network_uuid", "address_number", name="uq_ports_address"),
    UniqueConstraint("network_uuid", "address6", name="uq_ports_address6"),
)

security_groups = Table(
    "security_groups",
    metadata,
    Column("uuid", String(36), primary_key=True),
    Column("project_id", String(64), nullable=False, index=True),
    Column("default_of", String(64), nullable=True, unique=True),  # the project, of its default group
    Column("name", String(255), nullable=False),
    Column("description", Text, nullable=False),
    *_stamps(),
)

security_rules = Table(
    "security_rules",
    metadata,
    Column("uuid", String(36), primary_key=True),
    Column(
        "group_uuid", String(36), ForeignKey("security_groups.uuid", ondelete="CASCADE"), nullable=False, index=True
    ),
    Column("direction", String(8), nullable=False),
    Column("ethertype", String(4), nullable=False),
    Column("protocol", String(32), nullable=True),
    Column("port_min", Integer, nullable=True),
    Column("port_max", Integer, nullable=True),
    Column("remote_cidr", String(43), nullable=True),
    Column(
        "remote_group", String(36), ForeignKey("security_groups.uuid", ondelete="CASCADE"), nullable=True, index=True
    ),
    Column("description", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
)

port_groups = Table(
    "port_groups",
    metadata,
    Column("port_uuid", String(36), ForeignKey("ports.uuid", ondelete="CASCADE"), primary_key=True),
    Column("group_uuid", String(36), ForeignKey("security_groups.uuid"), primary_key=True, index=True),
)
"""The security groups of ports."""

routers = Table(
    "routers",
    metadata,
    Column("uuid", String(36), primary_key=True),
    Column("project_id", String(64), nullable=False),
    Column("name", String(255), nullable=False),
    Column("description", Text, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("network_uuid", String(36), ForeignKey("networks.uuid"), nullable=True),  # the external network
    Column("address", String(15), nullable=True),  # on it
    *_stamps(),
    UniqueConstraint("network_uuid", "address", name="uq_routers_address"),
)
"""Routers, as their users see them: packets find their way without. Their interfaces are ports."""

subnet_pools = Table(
    "subnet_pools",
    metadata,
    Column("uuid", String(36), primary_key=True),
    Column("project_id", String(64), nullable=False),
    Column("name", String(255), nullable=False),
    Column("description", Text, nullable=False),
    Column("prefixes", Text, nullable=False),  # CIDRs, with spaces between them
    Column("prefix_default", Integer, nullable=False),
    Column("prefix_min", Integer, nullable=False),
    Column("prefix_max", Integer, nullable=False),
    Column("shared", Boolean, nullable=False),
    Column("quota", BigInteger, nullable=True),
    *_stamps(),
)

floating_ips = Table(
    "floating_ips",
    metadata,
    Column("uuid", String(36), primary_key=True),
    Column("project_id", String(64), nullable=False),
    Column("description", Text, nullable=False),
    Column("network_uuid", String(36), ForeignKey("networks.uuid"), nullable=False),
    Column("address", String(15), nullable=False),
    Column("port_uuid", String(36), ForeignKey("ports.uuid", ondelete="SET NULL"), nullable=True, unique=True),
    *_stamps(),
    UniqueConstraint("network_uuid", "address", name="uq_floating_ips_address"),
)

capsule_labels = Table(
    "capsule_labels",
    metadata,
    Column("capsule_uuid", String(36), ForeignKey("capsules.uuid", ondelete="CASCADE"), primary_key=True),
    Column("key", String(317), primary_key=True),
    Column("value", String(63), nullable=False),
    Index("ix_capsule_labels_key", "key", "value"),
)
"""The labels of pods, repeated from their spec, to select by."""

capsule_events = Table(
    "capsule_events",
    metadata,
    Column("id", _BIG, primary_key=True, autoincrement=True),
    _of_capsule(),
    Column("type", String(16), nullable=False),
    Column("reason", String(255), nullable=False),
    Column("message", Text, nullable=False),
    Column("container", String(63), nullable=False),
    Column("times", BigInteger, nullable=False),
    Column("first_us", BigInteger, nullable=False),
    Column("last_us", BigInteger, nullable=False),
)
"""agent: what was told about a capsule, one row for equal ones."""

container_actions = Table(
    "container_actions",
    metadata,
    Column("id", _BIG, primary_key=True, autoincrement=True),
    _of_capsule(),
    Column("action", String(32), nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("user_id", String(64), nullable=False),
    Column("project_id", String(64), nullable=False),
    Column("generation", BigInteger, nullable=False),  # of the wish that it made
    Column("start_us", BigInteger, nullable=False),
    Column("finish_us", BigInteger, nullable=True),
    Column("failed", Boolean, nullable=False),
    Column("events", Text, nullable=False),  # list[model.actions.ActionEvent]
)
"""What was asked of containers. Written with the wish, finished by the report that settles it."""

session_tickets = Table(
    "session_tickets",
    metadata,
    Column("id", _BIG, primary_key=True, autoincrement=True),
    Column("digest", String(64), nullable=False, unique=True),  # SHA-256 of the ticket; the ticket itself is not kept
    Column(
        "capsule_uuid",
        String(36),
        ForeignKey("capsules.uuid", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("argv", Text, nullable=True),  # JSON list; NULL: the container's own process
    Column("exec_id", String(64), nullable=True),
    Column("credential", LargeBinary, nullable=False),  # a token, which only the ticket opens
    Column("expires_us", BigInteger, nullable=False, index=True),
)
"""Interactive sessions that were asked for and wait for somebody to connect."""

changes = Table(
    "changes",
    metadata,
    Column("revision", _BIG, primary_key=True, autoincrement=True),
    Column("kind", String(16), nullable=False),  # container, capsule, host
    Column("uuid", String(36), nullable=False),
    Column("project_id", String(64), nullable=True),
    Column("deleted", Boolean, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("created", Boolean, nullable=False, server_default=false()),
    Column("last", Text, nullable=True),  # of a deleted pod: Capsule, as it was in the end
    Column("labels_before", Text, nullable=True),  # of a pod whose labels were replaced
    sqlite_autoincrement=True,
)
"""The change log: one row per committed change. Watchers resume from a revision; old rows are pruned, up to the
revision in the fact "pruned_revision"."""

volumes = Table(
    "volumes",
    metadata,
    Column("uuid", String(36), primary_key=True),
    Column("project_id", String(64), nullable=False),
    Column("user_id", String(64), nullable=False),
    Column("name", String(255), nullable=False),  # user
    Column("live_name", String(255), nullable=True),  # the name, until the volume is to be deleted
    Column("size_gib", Integer, nullable=False),  # user
    Column("multiattach", Boolean, nullable=False),  # user
    Column("host_uuid", String(36), nullable=True),  # placement, once; hosts come and go, so no foreign key
    Column("deleted", Boolean, nullable=False),  # user: the wish
    Column("hidden", Boolean, nullable=False),  # server: its host does not answer, and nobody waits for it any more
    Column("failure", Text, nullable=True),  # agent: why it could not remove the file
    Column("created_us", BigInteger, nullable=False),
    UniqueConstraint("project_id", "live_name", name="uq_volumes_live_name"),
    Index("ix_volumes_deleted", "deleted", "host_uuid"),
)

volume_attachments = Table(
    "volume_attachments",
    metadata,
    Column("capsule_uuid", String(36), ForeignKey("capsules.uuid"), primary_key=True),
    Column("name", String(63), primary_key=True),  # of the pod's volume
    Column("volume_uuid", String(36), ForeignKey("volumes.uuid"), nullable=False, index=True),
    Column("read_only", Boolean, nullable=False),
    Column("auto_remove", Boolean, nullable=False),
    Column("created_us", BigInteger, nullable=False),
)
"""Written with a capsule's create, removed with its row. No cascade: who removes a capsule says what becomes of its
volumes."""

quotas = Table(
    "quotas",
    metadata,
    Column("project_id", String(255), primary_key=True),
    Column("resource", String(32), primary_key=True),
    Column("hard_limit", BigInteger, nullable=False),
)
"""operator: what a project may use. What is missing is said by the class "default", else by the settings."""

quota_classes = Table(
    "quota_classes",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("resource", String(32), primary_key=True),
    Column("hard_limit", BigInteger, nullable=False),
)

registries = Table(
    "registries",
    metadata,
    Column("id", _BIG, primary_key=True, autoincrement=True),
    Column("uuid", String(36), nullable=False, unique=True),
    Column("project_id", String(64), nullable=False, index=True),
    Column("user_id", String(64), nullable=False),
    Column("name", String(255), nullable=True),
    Column("domain", String(255), nullable=False),
    Column("username", String(255), nullable=True),
    Column("password", LargeBinary, nullable=True),  # sealed (sealing.py)
    Column("created_us", BigInteger, nullable=False),
)

host_images = Table(
    "host_images",
    metadata,
    Column("uuid", String(36), primary_key=True),  # of host and name
    Column("host_uuid", String(36), ForeignKey("hosts.uuid", ondelete="CASCADE"), nullable=False, index=True),
    Column("project_id", String(64), nullable=False),
    Column("ref", String(512), nullable=False),  # normalised
    Column("created_us", BigInteger, nullable=False),
)
"""Images that operators asked for. What is on a host is said by the host."""

engine_networks = Table(
    "engine_networks",
    metadata,
    Column("network_uuid", String(36), ForeignKey("networks.uuid", ondelete="CASCADE"), primary_key=True),
    Column("uuid", String(36), nullable=False),
    Column("project_id", String(64), nullable=False),
    Column("user_id", String(64), nullable=False),
    Column("created_us", BigInteger, nullable=False),
)
"""Networks that operators made known to the engine, as Zun's API shows them. Hosts make them when they need them."""

stored_images = Table(
    "stored_images",
    metadata,
    Column("uuid", String(36), primary_key=True),
    Column("project_id", String(64), nullable=False, index=True),
    Column("visibility", String(16), nullable=False, index=True),
    Column("name", String(255), nullable=True),
    Column("status", String(16), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("record", Text, nullable=False),  # model.stored_images.StoredImage, of which the others are derived
    Index("ix_stored_images_name", "name"),
)
"""Images of the image service; their files are beside the database."""

projects = Table(
    "projects",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("description", Text, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("created_us", BigInteger, nullable=False),
)

users = Table(
    "users",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(255), nullable=False, unique=True),
    Column("password_hash", Text, nullable=True),
    Column("enabled", Boolean, nullable=False),
    Column("description", Text, nullable=False),
    Column("default_project_id", String(64), nullable=True),
    Column("created_us", BigInteger, nullable=False),
)

roles = Table(
    "roles",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(255), nullable=False, unique=True),
)

role_assignments = Table(
    "role_assignments",
    metadata,
    Column("user_id", String(64), ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("project_id", String(64), ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),
    Column("role_id", String(64), ForeignKey("roles.id", ondelete="CASCADE"), primary_key=True),
)

application_credentials = Table(
    "application_credentials",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(255), nullable=False),
    Column("description", Text, nullable=False),
    Column("user_id", String(64), ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("project_id", String(64), ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("secret_hash", Text, nullable=False),
    Column("roles", Text, nullable=False),  # JSON list of role ids
    Column("unrestricted", Boolean, nullable=False),
    Column("expires_us", BigInteger, nullable=True),
    Column("created_us", BigInteger, nullable=False),
    UniqueConstraint("user_id", "name", name="uq_application_credentials_name"),
)

tokens = Table(
    "tokens",
    metadata,
    Column("hash", String(64), primary_key=True),  # SHA-256 of the token; the token itself is not kept
    Column("user_id", String(64), ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("project_id", String(64), ForeignKey("projects.id", ondelete="CASCADE"), nullable=True),
    Column("application_credential_id", String(64), nullable=True),
    Column("methods", Text, nullable=False),  # JSON list
    Column("audit_id", String(32), nullable=False),
    Column("issued_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger, nullable=False, index=True),
)
