"""A load generator in a process of its own: `python -m bench.load PORT PATH CONNECTIONS SECONDS`, token on stdin.

Plain asyncio streams with keep-alive: cheap enough that the server is what is measured. Prints JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time


async def _one(port: int, request: bytes, until: float, latencies: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    while time.perf_counter() < until:
        begun = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head[:100]
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        await reader.readexactly(length)
        latencies.append(time.perf_counter() - begun)
    writer.close()


async def _main() -> None:
    port, path, connections, seconds = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    token = sys.stdin.readline().strip()
    request = (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Auth-Token: {token}\r\n"
        "OpenStack-API-Version: container 1.40\r\nAccept: application/json\r\n\r\n"
    ).encode()
    await asyncio.gather(*(_one(port, request, time.perf_counter() + 0.5, []) for _ in range(connections)))
    latencies: list[float] = []
    begun = time.perf_counter()
    await asyncio.gather(*(_one(port, request, begun + seconds, latencies) for _ in range(connections)))
    took = time.perf_counter() - begun
    latencies.sort()
    print(
        json.dumps(
            {
                "requests_per_s": round(len(latencies) / took),
                "p50_ms": round(latencies[len(latencies) // 2] * 1000, 2),
                "p99_ms": round(latencies[int(len(latencies) * 0.99)] * 1000, 2),
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(_main())
