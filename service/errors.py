"""The one shape of every error answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ApiError(Exception):
    """A request that gets no result; `code` is for programs, `message` for people."""

    status: int
    code: str
    message: str
    param: str | None = None  # the field of the request at fault
    headers: tuple[tuple[str, str], ...] = ()

    def body(self, request_id: str) -> dict[str, object]:
        """Return the JSON body of the answer."""
        return {
            "error": {"code": self.code, "message": self.message, "param": self.param},
            "request_id": request_id,
        }
