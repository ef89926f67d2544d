"""An authenticated line to one cloud: tokens, versions and errors are dealt with here and nowhere else."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from typing import Any, Literal
from urllib.parse import quote, urlencode

from askos import __version__
from askos.client import keystone
from askos.client.connection import Cloud
from askos.client.credentials import API_VERSION
from askos.client.errors import ClientError, NoAnswerError, api_error
from askos.client.http import READ_TIMEOUT_S, Answer, Http, Stream
from askos.client.tokens import Login, TokenCache

Api = Literal["zun", "native", "network"]
Query = list[tuple[str, str]]


class Session:
    """Requests in the name of one user. Logs in when needed, and once more when a token is refused."""

    def __init__(self, cloud: Cloud, cache: TokenCache | None = None) -> None:
        self.cloud = cloud
        self.http = Http(cloud.cacert, verify=cloud.verify)
        self._cache = cache
        self._login: Login | None = None
        self._fresh = False
        self._lock = threading.Lock()

    def close(self) -> None:
        """Give up what is open; the token stays good."""
        self.http.close()

    def login(self) -> Login:
        """The present login; makes one if there is none."""
        with self._lock:
            if self._login is None and self._cache is not None:
                self._login = self._cache.get(self.cloud)
            if self._login is None:
                self._login = keystone.login(self.http, self.cloud)
                self._fresh = True
                if self._cache is not None:
                    self._cache.put(self.cloud, self._login)
            return self._login

    def renew(self, refused: Login) -> bool:
        """Drop a login that did not work. False when it was made just now, so that trying again is
        pointless."""
        with self._lock:
            if self._login is not None and self._login.token != refused.token:
                return True  # Another thread has already logged in anew.
            if self._fresh:
                return False
            self._login = None
            if self._cache is not None:
                self._cache.drop(self.cloud)
            return True

    def url(self, api: Api, path: str, query: Query | None = None) -> str:
        """The full URL of a path below `/v1`, `/askos/v1` or Neutron's `/v2.0`."""
        if api == "network":
            return self._network_root() + path + (f"?{urlencode(query)}" if query else "")
        root = self.login().endpoint.removesuffix("/v1")
        base = f"{root}/v1" if api == "zun" else f"{root}/askos/v1"
        return base + path + (f"?{urlencode(query)}" if query else "")

    def _network_root(self) -> str:
        login = self.login()
        if not login.network and self.renew(login):
            login = self.login()  # The one that was kept is older than the cloud's networks.
        if not login.network:
            raise ClientError(f"the catalog of {self.cloud.auth_url} has no service of type network")
        return login.network.removesuffix("/v2.0") + "/v2.0"

    def project(self) -> str:
        """The uuid of the project that the login is for."""
        login = self.login()
        if not login.project and self.renew(login):
            login = self.login()
        return login.project

    def headers(self, version: str = API_VERSION) -> dict[str, str]:
        """What every request carries; `version` is the microversion of Zun's API."""
        return {
            "X-Auth-Token": self.login().token,
            "OpenStack-API-Version": f"container {version}",
            "Accept": "application/json",
            "User-Agent": f"askos/{__version__}",
        }

    def request(
        self,
        method: str,
        path: str,
        *,
        api: Api = "zun",
        query: Query | None = None,
        body: Any = None,
        timeout_s: float = READ_TIMEOUT_S,
        version: str = API_VERSION,
    ) -> Answer:
        """One request; `body` is sent as JSON. ApiError for any answer that is not 2xx."""
        while True:
            login = self.login()
            headers, data = self.headers(version), None
            if body is not None:
                headers["Content-Type"] = "application/json"
                data = json.dumps(body).encode()
            try:
                answer = self.http.request(
                    method, self.url(api, path, query), headers=headers, body=data, timeout_s=timeout_s
                )
            except NoAnswerError as error:
                # A remembered endpoint may have moved; the catalog knows. A request that was sent is not
                # repeated.
                if "refused" in error.reason and self.renew(login):
                    continue
                raise
            if answer.status == 401 and self.renew(login):
                continue
            if answer.status >= 300:
                raise api_error(answer.status, answer.reason, answer.body)
            return answer

    def json(
        self,
        method: str,
        path: str,
        *,
        api: Api = "zun",
        query: Query | None = None,
        body: Any = None,
        timeout_s: float = READ_TIMEOUT_S,
    ) -> Any:
        """Like `request`, and the answer's JSON; None for an empty one."""
        answer = self.request(method, path, api=api, query=query, body=body, timeout_s=timeout_s)
        if not answer.body:
            return None
        try:
            return json.loads(answer.body)
        except ValueError:
            raise ClientError(
                f"cannot read the answer of {self.login().endpoint}: it is not JSON. Is it an Askos?"
            ) from None

    def stream(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: bytes | Iterable[bytes] | None = None,
        content: tuple[str, int | None] | None = None,
    ) -> Stream:
        """A native request whose answer is read as it comes. `content`: type and length (None: chunked) of
        the body; a body that is an iterable is sent once only, so call `login` and a cheap request before."""
        while True:
            login = self.login()
            headers = self.headers()
            if content is not None:
                headers["Content-Type"] = content[0]
                if content[1] is not None:
                    headers["Content-Length"] = str(content[1])
            stream = self.http.stream(
                method, self.url("native", path, query), headers=headers, body=body, timeout_s=None
            )
            if stream.status < 300:
                return stream
            with stream:
                problem = stream.read()
            repeatable = body is None or isinstance(body, bytes)
            if stream.status == 401 and repeatable and self.renew(login):
                continue
            raise api_error(stream.status, stream.reason, problem)


def part(text: str) -> str:
    """One segment of a path. ClientError when it is empty: what is asked for would be the list of all."""
    if not text:
        raise ClientError("a name is empty. Write the name or the id of what is meant")
    return quote(text, safe="")
