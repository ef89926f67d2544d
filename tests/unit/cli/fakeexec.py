"""Exec sessions of the fake cloud: real processes behind WebSockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import signal
import struct

from aiohttp import WSMsgType


class Exec:
    """One process behind a WebSocket, with pipes or a pseudo-terminal."""

    def __init__(self, socket, query):
        self.socket, self.query, self.tty = socket, query, query.get("tty") == "1"

    async def run(self, argv, status):
        extra = dict(pair.split("=", 1) for pair in self.query.getall("env", []))
        options = {
            "env": {"PATH": os.environ["PATH"], **extra},
            "cwd": self.query.get("workdir"),
            "start_new_session": True,
        }
        if self.tty:
            self.master, slave = pty.openpty()
            if "width" in self.query:
                self._resize(int(self.query["width"]), int(self.query["height"]))
            # setsid gives the process the terminal as its own, so that Ctrl-C works in it.
            options["start_new_session"] = False
            process = await asyncio.create_subprocess_exec(
                "setsid", "-c", *argv, stdin=slave, stdout=slave, stderr=slave, **options
            )
            os.close(slave)
            outputs = [self._copy_terminal()]
        else:
            pipe = asyncio.subprocess.PIPE
            stdin = pipe if self.query.get("stdin") else asyncio.subprocess.DEVNULL
            process = await asyncio.create_subprocess_exec(*argv, stdin=stdin, stdout=pipe, stderr=pipe, **options)
            outputs = [self._copy(1, process.stdout), self._copy(2, process.stderr)]
        receiving = asyncio.create_task(self._receive(process))
        await asyncio.gather(*outputs)
        code = await process.wait()
        if code == 0:
            await status(self.socket, {"status": "Success"})
        else:
            causes = [{"reason": "ExitCode", "message": str(128 - code if code < 0 else code)}]
            await status(self.socket, {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes}})
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)
        if self.tty:
            os.close(self.master)

    def _resize(self, width, height):
        import fcntl
        import termios

        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    async def _copy(self, channel, stream):
        while data := await stream.read(65536):
            await self.socket.send_bytes(bytes([channel]) + data)

    async def _copy_terminal(self):
        while True:
            try:
                data = await asyncio.to_thread(os.read, self.master, 65536)
            except OSError:
                return
            if not data:
                return
            await self.socket.send_bytes(b"\1" + data)

    async def _receive(self, process):
        async for message in self.socket:
            if message.type is not WSMsgType.BINARY:
                continue
            channel, data = message.data[0], message.data[1:]
            if channel == 0 and self.tty:
                os.write(self.master, data)
            elif channel == 0:
                with contextlib.suppress(ConnectionError):
                    process.stdin.write(data)
                    await process.stdin.drain()
            elif channel == 4:
                size = json.loads(data)
                self._resize(size["Width"], size["Height"])
            elif channel == 255 and data == b"\0" and not self.tty:
                process.stdin.close()
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
