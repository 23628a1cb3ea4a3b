"""Who may ask: API keys, and pages of other origins."""

from __future__ import annotations

import hashlib
import hmac
import logging
from typing import TYPE_CHECKING

from inference.errors import InputError
from service.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.settings import Settings

log = logging.getLogger("bertrand.service")

EXPOSED = "x-request-id, server-timing, retry-after, inference-header-content-length"
ALLOWED = "authorization, content-type, x-request-id, inference-header-content-length"


class Keys:
    """
    The keys that open the service. No keys at all: it is open.

    Keys are kept and compared as hashes, all of them each time, so that neither memory nor timing tells how much of
    a guess was right.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._hashes = _hashes(settings.keys())

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """
        Raise ApiError unless the request carries a key, as `Authorization: Bearer KEY`.

        Args:
            headers: Names in lower case.
        """
        if not self._hashes:
            return
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        given = hashlib.sha256(key.strip()).digest()
        known = 0
        for expected in self._hashes:
            known |= hmac.compare_digest(given, expected)
        if not known or scheme.lower() != b"bearer":
            found = "an unknown key" if scheme else "no key"
            raise ApiError(
                401,
                "key_invalid",
                f"the request has {found}; send a header `Authorization: Bearer KEY`",
                "authorization",
                headers=(("www-authenticate", "Bearer"),),
            )

    def read_again(self) -> None:
        """Take up a changed file of keys; one that cannot be used is refused, and the old keys stay."""
        try:
            hashes = _hashes(self._settings.keys())
        except InputError as error:
            if self._usable:
                log.error("the old keys stay: %s", error)
            self._usable = False
            return
        self._usable = True
        if hashes != self._hashes:
            self._hashes = hashes
            log.info("%d keys open the service now", len(hashes))

    _usable = True  # what the file held when it was last read: a fault is logged once


class Cors:
    """Which other origins' pages may read answers, errors included (Fetch standard, CORS protocol)."""

    def __init__(self, origins: frozenset[str]) -> None:
        self._origins = origins

    def headers(self, headers: Mapping[bytes, bytes]) -> tuple[tuple[str, str], ...]:
        """Return what the answer to this request must carry for the page to read it."""
        if not self._origins:
            return ()
        vary = ("vary", "origin")
        origin = headers.get(b"origin", b"").decode("latin-1")
        if "*" in self._origins:
            return (("access-control-allow-origin", "*"), ("access-control-expose-headers", EXPOSED))
        if origin in self._origins:
            return (("access-control-allow-origin", origin), ("access-control-expose-headers", EXPOSED), vary)
        return (vary,)

    def preflight(self, headers: Mapping[bytes, bytes], methods: str) -> tuple[tuple[str, str], ...] | None:
        """Return what answers a browser that asks before it sends; None where this request does not ask that."""
        if not self._origins or b"access-control-request-method" not in headers:
            return None
        return (
            ("access-control-allow-methods", methods),
            ("access-control-allow-headers", ALLOWED),
            ("access-control-max-age", "600"),
        )


def _hashes(keys: frozenset[str]) -> frozenset[bytes]:
    return frozenset(hashlib.sha256(key.encode()).digest() for key in keys)
