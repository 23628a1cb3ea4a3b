"""The one shape of every error answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.wire import Reply, to_json

if TYPE_CHECKING:
    from inference.errors import TextError


@dataclass
class ApiError(Exception):
    """A request that gets no result; `code` is for programs, `message` for people."""

    status: int
    code: str
    message: str
    param: str | None = None  # the field of the request at fault
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of_text(cls, error: TextError, param: str = "inputs") -> ApiError:
        """Return the error of a request that fails with one of its texts."""
        return cls(500 if error.code == INFERENCE_FAILED else 422, error.code, error.message, param)

    def reply(self, request_id: str) -> Reply:
        """Return the answer that says so."""
        error = {"code": self.code, "message": self.message, "param": self.param}
        return Reply(to_json({"error": error, "request_id": request_id}), status=self.status, headers=self.headers)


INFERENCE_FAILED = "inference_failed"  # the only flaw of a text that is the server's own
