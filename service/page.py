"""The explorer page: the files of `service/web`, which hold nothing secret and ask no other server for anything."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from service.errors import ApiError
from service.wire import Reply

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = Path(__file__).parent / "web"
INDEX = "index.html"
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# What people type is shown on the page, and the key they enter is held by it: no script but ours runs there, nothing is
# sent anywhere but here, and no other page can put it into a frame.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    ("cache-control", "no-cache"),  # kept, but asked for again: a page of one version never meets scripts of another
    ("content-security-policy", POLICY),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
)


class Page:
    """The files of the page by name. They are read once: a name that is none of them is no path to anything."""

    def __init__(self, folder: Path = FOLDER) -> None:
        files = [path for path in sorted(folder.iterdir()) if path.suffix in MEDIA_TYPES]
        self._files = {path.name: _reply(path) for path in files}

    def file(self, name: str, headers: Mapping[bytes, bytes]) -> Reply:
        """
        Return a file, or 304 where the caller has it already.

        Args:
            name: As it stands in the path.
            headers: Of the request, names in lower case.

        Raises:
            ApiError: the page has no such file.
        """
        if name not in self._files:
            raise ApiError(404, "route_unknown", "the page has no such file; / is the page itself")
        reply = self._files[name]
        tags = headers.get(b"if-none-match", b"").decode("latin-1").split(",")
        known = {tag.strip().removeprefix("W/") for tag in tags}  # weak comparison: RFC 9110, section 13.1.2
        if known & {"*", dict(reply.headers)["etag"]}:
            return Reply(b"", reply.media_type, 304, reply.headers)
        return reply


def _reply(path: Path) -> Reply:
    body = path.read_bytes()
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    return Reply(body, MEDIA_TYPES[path.suffix], headers=(("etag", tag), *HEADERS))
