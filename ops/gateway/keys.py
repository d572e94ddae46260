"""Who may ask the gateway for what: bearer keys with scopes, and the dashboard's cookie that stands for one.

A key is a line ``NAME SCOPE[,SCOPE] SECRET``. Of a secret only its SHA-256 is kept, and every comparison takes as long as every other.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from config.settings import Settings
from rules.errors import CannotStart

SCOPES = ("dial", "report", "operate")
SECRET_MIN_CHARS = 20
#: How long the dashboard stays signed in.
SESSION_S = 12 * 3600
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAKE_ONE = "python3 -c 'import secrets; print(secrets.token_urlsafe(32))' makes a secret"
_SHAPE = "want NAME SCOPE[,SCOPE] SECRET"


@dataclass(frozen=True)
class Key:
    """Somebody who may ask; ``digest`` is the SHA-256 of the secret."""

    name: str
    scopes: frozenset[str]
    digest: bytes = field(repr=False)


class KeyRing:
    """The keys that a gateway knows."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys = {key.name: key for key in keys}

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The keys of ``RINGFENCE_API_KEYS`` (separated by ``;`` or lines) and of the file ``RINGFENCE_API_KEYS_FILE``.

        Raises:
            CannotStart: the file cannot be read, a key is not well formed, or there is none. Messages never quote a secret.
        """
        lines = []
        if settings.api_keys is not None:
            lines += [("RINGFENCE_API_KEYS", line) for line in re.split(r"[;\n]", settings.api_keys.get_secret_value())]
        if settings.api_keys_file is not None:
            try:
                text = settings.api_keys_file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
                raise CannotStart(f"RINGFENCE_API_KEYS_FILE: {settings.api_keys_file}: {reason}") from None
            lines += [(str(settings.api_keys_file), line) for line in text.splitlines()]
        keys = [_read(where, line) for where, line in lines if line.strip() and not line.lstrip().startswith("#")]
        if not keys:
            raise CannotStart(f"the gateway answers nobody without a key: set RINGFENCE_API_KEYS='me dial,operate SECRET'; {_MAKE_ONE}")
        names = [key.name for key in keys]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise CannotStart(f"two API keys have the name {twice[0]!r}")
        return cls(keys)

    def of_secret(self, secret: str) -> Key | None:
        """The key with a secret, None if there is none. All of them are compared, whichever it is."""
        digest = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
        found = None
        for key in self._keys.values():
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found

    def cookie(self, key: Key, now: float | None = None) -> str:
        """What stands for a key until its session ends. Any gateway with the same keys knows it; with the key it becomes worthless."""
        expires = int((time.time() if now is None else now) + SESSION_S)
        return f"{key.name}.{expires}.{_seal(key, expires)}"

    def of_cookie(self, cookie: str, now: float | None = None) -> Key | None:
        """The key that a cookie stands for; None if it is none of ours, or no longer."""
        name, _, rest = cookie.partition(".")
        expires, _, seal = rest.partition(".")
        key = self._keys.get(name)
        if key is None or not (expires.isascii() and expires.isdigit() and len(expires) <= 12):  # noqa: PLR2004  # seconds since 1970
            return None
        sealed = hmac.compare_digest(_seal(key, int(expires)).encode(), seal.encode("utf-8", "surrogateescape"))
        return key if sealed and int(expires) > (time.time() if now is None else now) else None


def _seal(key: Key, expires: int) -> str:
    return hmac.new(key.digest, f"{key.name}.{expires}".encode(), hashlib.sha256).hexdigest()


def _read(where: str, line: str) -> Key:
    parts = line.split()
    if len(parts) != 3:  # noqa: PLR2004  # as _SHAPE says
        raise CannotStart(f"{where}: {_SHAPE}, got {len(parts)} words")
    name, scopes, secret = parts
    if _NAME.fullmatch(name) is None:
        raise CannotStart(f"{where}: the name of a key has 1 to 64 letters, digits, - and _")
    if unknown := sorted(set(scopes.split(",")) - set(SCOPES)):
        raise CannotStart(f"{where}: key {name!r}: there is no scope {unknown[0]!r}, only {', '.join(SCOPES)}")
    if len(secret) < SECRET_MIN_CHARS:
        raise CannotStart(
            f"{where}: key {name!r}: its secret has {len(secret)} characters, want {SECRET_MIN_CHARS} or more; {_MAKE_ONE}"
        )
    return Key(name, frozenset(scopes.split(",")), hashlib.sha256(secret.encode()).digest())
