"""What the service writes to its log: never a text, never a key."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

import orjson

FIELDS = ("request_id", "milliseconds")  # what our own records may carry beside their message


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        entry |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(entry).decode()


class TextFormatter(logging.Formatter):
    """Time, level and message; then the request's id and duration where there are some."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line, and the traceback of an error below it."""
        fields = " ".join(f"{name}={getattr(record, name)}" for name in FIELDS if hasattr(record, name))
        return f"{super().format(record)}{' ' if fields else ''}{fields}"


def configure(log_format: str) -> None:
    """
    Write every record of this process to stderr, ours and those of the libraries alike.

    Args:
        log_format: `text` or `json`.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter() if log_format == "json" else TextFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in logging.root.manager.loggerDict:
        logger = logging.getLogger(name)
        if logger.handlers:  # BentoML has set up its own; one way out is enough
            logger.handlers.clear()
            logger.propagate = True
    for name in ("bertrand", "bentoml"):
        logging.getLogger(name).setLevel(logging.INFO)
    # Of uvicorn and the process manager only what went wrong: a line for every request would cost more than it tells.
    for name in ("uvicorn", "circus"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("uvicorn.access").disabled = True
