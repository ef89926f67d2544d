"""What the OpenAPI document says of routes beyond the table: what they are for, what is spoken over their streams, and
when they refuse."""

from __future__ import annotations

from typing import NamedTuple

from askos.api import podpatch
from askos.api.schemas import BOOLEAN, Schema


class Docs(NamedTuple):
    """About one route. The dicts are never changed."""

    text: str
    refusals: dict[int, str] = {}  # noqa: RUF012
    """Status to when it is answered, beside those that every route has."""
    also: dict[str, str] = {}  # noqa: RUF012
    """Media type to schema of a success, beside JSON."""
    takes: tuple[str, ...] = ("application/json",)
    """Media types of the body."""
    known: str | None = None
    """Schema of the 200 that a create answers when it was done before."""
    query: dict[str, Schema] = {}  # noqa: RUF012
    """Parameters that the handler checks itself, as Zun does."""


_NATIVE = "/askos/v1/capsules"
_ONE = f"{_NATIVE}/{{ident}}"
_ZUN = "/v1/capsules"
_VOLUMES = "/askos/v1/volumes"

_NOT_FOUND = "There is no such capsule in what the caller may see"
_SEVERAL = "Several capsules have this name: say which namespace, or use an id"
_INVALID = "Something is missing, wrong or unknown; all of it is named"
_SILENT = "The capsule's host does not answer now"
_CHANGING = "It was modified meanwhile (metadata.resourceVersion), is being deleted, or its host has no room"

_CHANNELS = (
    "The connection is a WebSocket with the sub-protocol v5.channel.k8s.io, v4.channel.k8s.io or "
    "v4.base64.channel.k8s.io; a client that offers none gets v4. The first byte of each binary message is its channel "
    "(in the base64 form each message is a text of the channel's digit and base64): "
)
_PROCESS = _CHANNELS + (
    "0 standard input, 1 standard output, 2 standard error, 3 how it ended, 4 terminal size, and in v5 255, whose "
    "second byte is a channel that the sender has ended (such as standard input). The server begins with an empty "
    'message. The client sends sizes as {"Width": columns, "Height": rows} (schema TerminalSize). When it is over, the '
    "server sends one Kubernetes Status on channel 3 (schema StreamStatus) and closes: Success, or Failure with the "
    'reason NonZeroExitCode and the exit code as the cause "ExitCode". Everything that can be refused is refused '
    "before the upgrade, as an ordinary answer."
)


def _flag(text: str) -> Schema:
    return {**BOOLEAN, "description": text, "default": False}


DOCS: dict[tuple[str, str], Docs] = {
    ("GET", _NATIVE): Docs(
        "Without `watch` a page of capsules, ordered by creation; `metadata.continue` is there when there are more, "
        "and `metadata.resourceVersion` is where a watch goes on without a gap. With `watch=true` the answer has no "
        "end: one JSON object a line (schema WatchEvent). ADDED, MODIFIED and DELETED carry the capsule (DELETED as it "
        "was in the end, also when it left the selector); its resourceVersion is where to resume after that line. "
        "BOOKMARK carries a resourceVersion alone. ERROR carries a Status and is the last line. A capsule that changed "
        "several times since the reader looked is told once, as it is now.",
        {410: "With watch: the changes after resourceVersion are forgotten. List anew, and go on from there"},
        {"application/x-ndjson": "WatchEvent"},
    ),
    ("POST", _NATIVE): Docs(
        "The body is a Kubernetes Pod, with its config maps and secrets beside the spec in `content`. Accepted is "
        "committed. A create with a metadata.uid that is known already makes nothing: it answers 200 with what it made "
        "the first time. Each field that is kept without effect is told in a Warning header; Location is the "
        "capsule's URL.",
        {
            400: _INVALID,
            409: "The name is taken, the uid was used for something else, a volume is in use, or the network is full",
            413: "The body or its content is too large",
        },
        known="Capsule",
    ),
    ("GET", _ONE): Docs("By id, or by name within a namespace.", {404: _NOT_FOUND, 409: _SEVERAL}),
    ("PUT", _ONE): Docs(
        "The whole pod anew; without `content` the present one stays. What cannot be changed is refused, all of it by "
        "name. With metadata.resourceVersion only that revision is changed.",
        {400: _INVALID, 404: _NOT_FOUND, 409: _CHANGING, 413: "The body or its content is too large"},
    ),
    ("PATCH", _ONE): Docs(
        "A strategic merge patch (lists of named things are merged by name), or with the content type "
        "application/merge-patch+json a plain merge. `content` is merged by name and key.",
        {400: _INVALID, 404: _NOT_FOUND, 409: _CHANGING, 413: "The body is too large", 415: "Not a merge patch"},
        takes=(podpatch.STRATEGIC, podpatch.PLAIN, "application/json"),
    ),
    ("DELETE", _ONE): Docs(
        "Answers with the capsule as it is being deleted; it is gone when its host has removed everything. A second "
        "DELETE can only shorten the grace.",
        {404: _NOT_FOUND, 409: _SEVERAL},
    ),
    ("PUT", f"{_ONE}/content"): Docs(
        "All config maps and secrets anew. Files in volumes follow; the environment does at a container's next start. "
        "Content is never shown again.",
        {400: _INVALID, 404: _NOT_FOUND, 409: _CHANGING, 413: "The content is larger than 1 MiB"},
    ),
    ("GET", f"{_ONE}/events"): Docs(
        "Oldest first, equal ones counted; at most 200 different ones are kept.", {404: _NOT_FOUND, 409: _SEVERAL}
    ),
    ("GET", f"{_NATIVE}/stats"): Docs(
        "Of all running capsules of the project, or of all projects. What lies on hosts that do not answer is left out."
    ),
    ("GET", f"{_ONE}/stats"): Docs("One item; no containers while none runs.", {404: _NOT_FOUND, 503: _SILENT}),
    ("GET", f"{_ONE}/exec"): Docs(
        f"Runs a command beside a container's own process. {_PROCESS}",
        {
            400: "No command, no channel, an unknown container, or no WebSocket in one of the protocols",
            404: _NOT_FOUND,
            409: "The container is not running",
            503: _SILENT,
        },
    ),
    ("GET", f"{_ONE}/attach"): Docs(
        f"Connects to a container's own process; its exit, when it ends meanwhile, is told on channel 3. {_PROCESS}",
        {
            400: "No channel, an unknown container, or no WebSocket in one of the protocols",
            404: _NOT_FOUND,
            409: "The container is not running, or has no such channel",
            503: _SILENT,
        },
    ),
    ("GET", f"{_ONE}/portforward"): Docs(
        "Connects to ports of the pod, one TCP connection for each port of the query, in its order. "
        + _CHANNELS
        + "for the i-th port (from 0) 2i carries data both ways and 2i + 1 what went wrong, as a text. The server's "
        "first message on each channel is the port's number, 2 bytes little-endian. In v5 a message on channel 255 "
        "ends one direction of the channel in its second byte.",
        {
            400: "No port, a wrong or one too many, or no WebSocket in one of the protocols",
            404: _NOT_FOUND,
            409: "The capsule is not running",
        },
    ),
    ("GET", f"{_ONE}/logs"): Docs(
        "The log of a container's present instance, or with `previous` of the one before, as plain text. With "
        "`streams=true` each piece stands behind its channel (1 byte: 1 standard output, 2 standard error) and its "
        "length (4 bytes, big-endian). A log that ends too early has a broken connection, not an end.",
        {
            400: "An unknown container, one that has not started yet, or no previous instance",
            404: _NOT_FOUND,
            503: _SILENT,
        },
        {"text/plain": "Text", "application/octet-stream": "Bytes"},
    ),
    ("GET", _VOLUMES): Docs("Of the project, or of all projects."),
    ("POST", _VOLUMES): Docs(
        "The volume gets its host with the first capsule that uses it.",
        {409: "The name is taken", 415: "Not JSON"},
    ),
    ("GET", f"{_VOLUMES}/{{ident}}"): Docs("By id, or by name within the project.", {404: "There is no such volume"}),
    ("DELETE", f"{_VOLUMES}/{{ident}}"): Docs(
        "It is gone when its host has removed it.",
        {404: "There is no such volume", 409: "It is in use"},
    ),
    ("GET", _ZUN): Docs(
        "Zun's form of the same capsules. Unknown parameters are ignored, as Zun does.",
        query={
            "all_projects": _flag("Those of all projects; only for administrators"),
            "limit": {
                "type": "string",
                "pattern": "^[0-9]+$",
                "description": "At most so many items, up to 1000",
                "default": "1000",
            },
            "marker": {"type": "string", "description": "The last uuid of the page before"},
            "sort_key": {
                "enum": [
                    "id", "uuid", "name", "project_id", "user_id", "image", "memory", "cpu", "status", "status_reason",
                    "task_state", "auto_remove", "host", "created_at", "updated_at",
                ],
                "description": "What to order by",
                "default": "id",
            },
            "sort_dir": {"enum": ["asc", "desc"], "description": "In which direction", "default": "asc"},
        },
    ),
    ("POST", _ZUN): Docs(
        "The template of a capsule, as an object or as a text of JSON or YAML. What has no effect is told in Warning "
        "headers.",
        {400: _INVALID, 409: "A volume is in use, or the network is full"},
    ),
    ("GET", f"{_ZUN}/{{ident}}"): Docs("By uuid or name.", {404: _NOT_FOUND, 409: "Several capsules have this name"}),
    ("DELETE", f"{_ZUN}/{{ident}}"): Docs(
        "In any status; it is gone when its host has removed everything.",
        {404: _NOT_FOUND, 409: "Several capsules have this name"},
        query={"all_projects": _flag("Needs the right to delete the capsules of others")},
    ),
}  # fmt: skip
