"""Encryption at rest of what capsules bring along: config maps and secrets.

AES-256-GCM with a fresh nonce for each writing. The capsule's uuid is bound to the text, so that a row's content cannot
be moved to another capsule by somebody who can write the database but has no key.
"""

from __future__ import annotations

import hashlib
import hmac
import os

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from askos.model.errors import SetupError
from askos.model.pods import Content

KEY_BYTES = 32
_NONCE_BYTES = 12
_FORMAT = b"\x01"
"""The first byte of what is sealed: tells a later format apart."""

_content_of = msgspec.json.Decoder(Content).decode


class Sealer:
    """Seals and opens with one key of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise SetupError(f"The content key has {len(key)} bytes; it must have {KEY_BYTES}.")
        self._cipher = AESGCM(key)
        self.fingerprint = hmac.new(key, b"askos content key", hashlib.sha256).hexdigest()[:32]
        """Tells keys apart without telling anything of them."""

    def seal(self, capsule_uuid: str, content: Content) -> bytes | None:
        """Encrypted content; None for an empty one."""
        if content == Content():
            return None
        nonce = os.urandom(_NONCE_BYTES)
        text = msgspec.json.encode(content)
        return _FORMAT + nonce + self._cipher.encrypt(nonce, text, _FORMAT + capsule_uuid.encode())

    def open(self, capsule_uuid: str, sealed: bytes | None) -> Content:
        """What was sealed for this capsule. SetupError when it was not, or with another key."""
        if sealed is None:
            return Content()
        nonce, text = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            if sealed[:1] != _FORMAT:
                raise InvalidTag
            return _content_of(self._cipher.decrypt(nonce, text, _FORMAT + capsule_uuid.encode()))
        except (InvalidTag, ValueError):  # a nonce that was cut off is a ValueError
            raise SetupError(
                f"Cannot decrypt the content of capsule {capsule_uuid}: it was encrypted with another content key, or "
                "it was changed. Start the server with the key that it had."
            ) from None
