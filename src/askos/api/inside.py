"""Zun's actions that look into a container or run something there. They are calls to its host and change no wish."""

from __future__ import annotations

from datetime import UTC, datetime

from aiohttp import web

from askos.api import create, state
from askos.api.containers import Containers
from askos.api.core import Request, json_response, raw_json
from askos.api.errors import ApiError, invalid_query
from askos.api.policy import enforce_writer
from askos.api.schemas import boolean
from askos.api.sessions import Sessions
from askos.model.errors import ConflictError, RuntimeFailedError, UnavailableError

EXECUTE_TIMEOUT_S = 5.0
EXECUTE_OUTPUT_BYTES = 4 << 20
CALL_TIMEOUT_S = 15.0
LOG_BYTES = 64 << 20
LARGEST_SIDE = 10_000
"""Columns or rows of a terminal."""


class Inside:
    """The handlers."""

    def __init__(self, containers: Containers, sessions: Sessions) -> None:
        self._containers = containers
        self._sessions = sessions

    # -- reading -----------------------------------------------------------------------------------------------

    async def logs(self, request: Request) -> web.Response:
        """GET logs: one JSON string."""
        query = request.query
        arguments = {
            "stdout": boolean(query.get("stdout"), True),
            "stderr": boolean(query.get("stderr"), True),
            "timestamps": boolean(query.get("timestamps"), False),
            "tail": tail_lines(query.get("tail")),
            "since_us": since_us(query.get("since")),
        }
        if not arguments["stdout"] and not arguments["stderr"]:
            raise invalid_query("stderr", query["stderr"], "with stdout left out too there is nothing to read")
        if arguments["since_us"] == 0:
            raise invalid_query("since", query["since"], "it is no time; leave it out to read from the begin")
        capsule = await self._containers.find(request, "logs")
        state.check("logs", capsule)
        if capsule.placement.host_uuid is None:
            return json_response("")
        stream = await self._containers.open(capsule, "logs", arguments)
        kept = bytearray()
        try:
            async for frame in stream.frames():
                kept += frame.data
                if len(kept) > LOG_BYTES:
                    raise ApiError(
                        400,
                        "The log is larger than 64 MiB. Ask for a part of it with tail or since, or follow it with "
                        "`askos logs`.",
                        code="container.invalid",
                    )
        finally:
            await stream.close()
        return json_response(kept.decode(errors="replace"))

    async def top(self, request: Request) -> web.Response:
        """GET top: what runs inside, as ps shows it."""
        arguments = request.query.get("ps_args")
        capsule = await self._containers.find(request, "top")
        state.check("top", capsule)
        given = None if arguments in (None, "", "None") else str(arguments)
        found = await self._containers.call(capsule, "top", {"ps_args": given}, CALL_TIMEOUT_S)
        return json_response({"Titles": found["titles"], "Processes": found["processes"]})

    async def stats(self, request: Request) -> web.Response:
        """GET stats: what it uses now."""
        capsule = await self._containers.find(request, "stats")
        state.check("stats", capsule)
        used = await self._containers.call(capsule, "container_stats", {}, CALL_TIMEOUT_S)
        usage, limit = used["memory_bytes"] / 2**20, used["memory_limit_bytes"] / 2**20
        return json_response(
            {
                "CONTAINER": capsule.name,
                "CPU %": float(used["cpu_percent"]),
                "MEM USAGE(MiB)": usage,
                "MEM LIMIT(MiB)": limit,
                "MEM %": usage / limit * 100 if limit else 0.0,
                "BLOCK I/O(B)": f"{used['read_bytes']}/{used['write_bytes']}",
                "NET I/O(B)": f"{used['rx_bytes']}/{used['tx_bytes']}",
            }
        )

    # -- running -----------------------------------------------------------------------------------------------

    async def execute(self, request: Request) -> web.Response:
        """POST execute. With run=true it waits for the command and answers its output; else it makes a session, and
        the command starts when somebody connects to that."""
        query = request.query
        command = query.get("command")
        if not command:
            raise invalid_query("command", "" if command is None else command, "a command is required")
        # A list comes in a body alone, and is words already.
        argv = [str(word) for word in command] if isinstance(command, list) else create.split("command", command)
        if not argv or not argv[0]:
            raise invalid_query("command", command, "a command is required")
        capsule = await self._containers.find(request, "execute")
        state.check("execute", capsule)
        tty = boolean(query.get("interactive"), False)
        if not boolean(query.get("run"), True):
            exec_id, url = await self._sessions.for_exec(request, capsule, argv)
            return json_response({"output": None, "exit_code": None, "exec_id": exec_id, "proxy_url": url})
        arguments = {"argv": argv, "tty": tty, "limit_bytes": EXECUTE_OUTPUT_BYTES}
        try:
            done = await self._containers.call(capsule, "run", arguments, EXECUTE_TIMEOUT_S)
        except RuntimeFailedError as error:
            # The program could not be started; Zun says so with the engine's message and 126.
            done = {"output": error.message, "exit_code": 126}
        except UnavailableError as error:
            if "did not answer within" not in error.message:
                raise
            raise ConflictError(f"Timeout on executing command: {command}") from error
        return json_response(
            {"output": done["output"], "exit_code": done["exit_code"], "exec_id": None, "proxy_url": None}
        )

    async def execute_resize(self, request: Request) -> web.Response:
        """POST execute_resize: the terminal of a session that somebody is connected to."""
        exec_id = request.query.get("exec_id")
        if not exec_id:
            raise invalid_query("exec_id", "", "it is required: what execute with run=false has answered")
        width, height = _size(request)
        capsule = await self._containers.find(request, "execute_resize")
        state.check("execute_resize", capsule)
        await self._sessions.resize(capsule.uuid, exec_id, width, height)
        return raw_json(b"null")

    async def attach(self, request: Request) -> web.Response:
        """GET attach: the URL of a session with the container's own process."""
        enforce_writer(request.caller)
        capsule = await self._containers.find(request, "attach")
        state.check("attach", capsule)
        if not capsule.spec.containers[0].interactive:
            title = "Container doesn't support to be attached, please check the interactive set properly"
            raise ApiError(400, title, code="container.no-interactive-flag")
        return json_response(await self._sessions.for_attach(request, capsule))

    async def resize(self, request: Request) -> web.Response:
        """POST resize: the container's own terminal."""
        width, height = _size(request)
        capsule = await self._containers.find(request, "resize")
        state.check("resize", capsule)
        await self._containers.call(capsule, "resize", {"width": width, "height": height}, CALL_TIMEOUT_S)
        return raw_json(b"null")


def _size(request: Request) -> tuple[int, int]:
    found: list[int] = []
    for name in ("w", "h"):
        value = request.query.get(name)
        if value is None or value == "":
            raise invalid_query(name, "", "both h and w are required")
        if not 1 <= int(value) <= LARGEST_SIDE:
            raise invalid_query(name, value, f"{value} is not between 1 and {LARGEST_SIDE}")
        found.append(int(value))
    return found[0], found[1]


def tail_lines(value: object) -> int | None:
    """Zun's tail: a number of lines; "all", negative or garbage means everything."""
    text = str(value) if value is not None else "all"
    return int(text[:9]) if text.isascii() and text.isdigit() else None


def since_us(value: object) -> int | None:
    """Zun's since: seconds since the epoch, or "YYYY-MM-DD HH:MM:SS,mmm" in UTC. Microseconds."""
    if value is None or value == "":
        return None
    text = str(value)
    if text.isascii() and text.isdigit():
        return int(text) * 1_000_000
    try:
        found = datetime.strptime(text, "%Y-%m-%d %H:%M:%S,%f").replace(tzinfo=UTC)
    except ValueError as error:
        raise invalid_query("since", value, "it is not a time") from error
    return int(found.timestamp() * 1_000_000)
