"""What an operator may set, read from the environment once and validated."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from inference.artifact import Artifact
from inference.errors import InputError
from inference.machine import cpu_count

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "BERTRAND_"
PRECISIONS = ("auto", "fp32", "int8")


@dataclass(frozen=True)
class Settings:
    """The settings of one server; docs/serving.md has the same list as a table."""

    model: str = "models/current"  # model folder, or a link to one; see `_default_model`
    precision: str = "auto"  # auto | fp32 | int8
    workers: int = 1  # processes, each with its own copy of the model
    threads: int = 1  # forward passes at a time in each worker; by default the cgroup's CPUs / workers
    max_batch_tokens: int = 4096  # padded tokens of one forward pass: bounds memory, never changes an answer
    max_inputs: int = 1000  # texts of one request
    max_body_bytes: int = 8_000_000  # of one request, after which it is refused unread

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """
        Read every BERTRAND_* variable.

        Raises:
            InputError: a value is not what the setting takes; it names the variable.
        """
        environment = os.environ if environment is None else environment
        workers = _count(environment, "WORKERS", cls.workers)
        precision = environment.get(PREFIX + "PRECISION", cls.precision)
        if precision not in PRECISIONS:
            raise InputError(f"{PREFIX}PRECISION is {precision!r}; expected one of {', '.join(PRECISIONS)}")
        return cls(
            # Absolute, since BentoML changes the directory after this is read; not resolved, so that a link stays one.
            model=str(Path(environment.get(PREFIX + "MODEL") or _default_model(cls.model)).absolute()),
            precision=precision,
            workers=workers,
            threads=_count(environment, "THREADS", max(1, cpu_count() // workers)),
            max_batch_tokens=_count(environment, "MAX_BATCH_TOKENS", cls.max_batch_tokens),
            max_inputs=_count(environment, "MAX_INPUTS", cls.max_inputs),
            max_body_bytes=_count(environment, "MAX_BODY_BYTES", cls.max_body_bytes),
        )


def _default_model(current: str) -> str:
    """Return models/current or, where there is no such link (a bento holds none), the newest model in models/."""
    if Path(current).exists():
        return current
    models = [path.parent for path in Path(current).parent.glob("*/model.json")]
    newest = max(models, key=lambda folder: Artifact.open(folder).manifest.created, default=Path(current))
    return str(newest)


def _count(environment: Mapping[str, str], name: str, default: int) -> int:
    value = environment.get(PREFIX + name, "").strip()
    if not value:
        return default
    if not value.isascii() or not value.isdigit() or int(value) < 1:
        raise InputError(f"{PREFIX}{name} is {value!r}; expected a whole number of at least 1")
    return int(value)
