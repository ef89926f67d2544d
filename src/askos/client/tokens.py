"""Tokens kept between commands, so that a command costs one request and not two.

One file for each (auth URL, user, project) in `$XDG_CACHE_HOME/askos` or `~/.cache/askos`, mode 0600 in a
folder of mode 0700. A cache that cannot be read or written is no error: the next command logs in again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from askos.client.connection import Cloud
from askos.client.credentials import write_private

MARGIN_S = 60
"""A token that ends within this time is not used any more."""


class Login(NamedTuple):
    """What a login gave: the token, where the container API is, and when the token ends (seconds, UTC); where the
    network API is ("" without one), and the uuid of the project."""

    token: str
    endpoint: str
    expires_s: float
    network: str = ""
    project: str = ""

    def __repr__(self) -> str:
        return f"Login(endpoint={self.endpoint!r})"


class TokenCache:
    """The tokens of one user of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of_user(cls, environ: Mapping[str, str] = os.environ) -> TokenCache:
        """The cache in the user's cache folder."""
        home = Path(environ.get("HOME") or Path.home())
        return cls(Path(environ.get("XDG_CACHE_HOME") or home / ".cache") / "askos")

    def get(self, cloud: Cloud) -> Login | None:
        """A login that is still good for `MARGIN_S`, or None."""
        path = self._path(cloud)
        try:
            if path.stat().st_uid != os.geteuid():
                return None
            document = json.loads(path.read_text("utf-8"))
            login = Login(
                str(document["token"]),
                str(document["endpoint"]),
                float(document["expires_s"]),
                str(document.get("network") or ""),
                str(document.get("project") or ""),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return login if login.expires_s > time.time() + MARGIN_S else None

    def put(self, cloud: Cloud, login: Login) -> None:
        """Keep a login for the next command."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.folder.stat().st_mode & 0o077:
                self.folder.chmod(0o700)
            write_private(self._path(cloud), json.dumps(login._asdict()))
        except OSError:
            return

    def drop(self, cloud: Cloud) -> None:
        """Forget a login that the server refused."""
        try:
            self._path(cloud).unlink()
        except OSError:
            return

    def _path(self, cloud: Cloud) -> Path:
        identity = (
            cloud.auth_url,
            cloud.username or cloud.user_id,
            cloud.user_domain,
            cloud.project,
            cloud.project_domain,
            cloud.credential_id or cloud.credential_name,
            cloud.token,
            cloud.endpoint,
            cloud.region,
            cloud.interface,
        )
        return self.folder / hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:40]
