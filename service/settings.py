"""What an operator may set, read from the environment once and validated."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from inference.artifact import Artifact
from inference.errors import ArtifactError, InputError
from inference.machine import cpu_count, memory_limit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PREFIX = "BERTRAND_"
PRECISIONS = ("auto", "fp32", "int8")
LOG_FORMATS = ("text", "json")
KEYLESS = ("health", "metrics", "docs")  # groups of routes that may be open although there are keys
MOST_QUEUE_TOKENS = 65_536
MOST_VECTORS = 32_768  # 50 MB at 384 numbers each, and thrice that as JSON
LEAST_TOKENS = 2048
WORKER_BYTES = 400_000_000  # of one worker with an int8 MiniLM under load, while it takes up another model
TOKEN_BYTES = 16_000  # of a token whose embedding is asked for: 384 numbers, and the same as JSON while it is sent
SHORTEST_KEY = 16  # characters; a shorter one can be guessed
COMMENT = re.compile(r"(^|\s)#.*")  # of a line in a file of keys


@dataclass(frozen=True)
class Settings:
    """The settings of one server; docs/serving.md has the same list as a table."""

    model: str = "models/current"  # model folder, or a link to one; see `_default_model`
    precision: str = "auto"  # auto | fp32 | int8
    workers: int = 1  # processes, each with its own copy of the model
    threads: int = 1  # forward passes at a time in each worker; by default the cgroup's CPUs / workers
    max_batch_tokens: int = 256  # padded tokens of one forward pass: with more, its arrays outgrow a core's cache
    max_queue_tokens: int = MOST_QUEUE_TOKENS  # waiting for a pass in one worker; what comes beyond is refused with 429
    max_vectors: int = MOST_VECTORS  # token embeddings of one request
    max_inputs: int = 1000  # texts of one request
    max_text_characters: int = 200_000  # of one text, after which it is an item error whatever `truncate` says
    max_body_bytes: int = 8_000_000  # of one request, after which it is refused unread
    request_timeout: float = 30.0  # seconds from the request's headers to its answer, after which it is a 504
    drain_seconds: float = 2.0  # after SIGTERM: go on answering, not ready, so that a balancer can turn away
    api_keys: frozenset[str] = field(default=frozenset(), repr=False)  # none: every route is open
    api_keys_file: str | None = None  # one key a line, read again when it changes
    keyless: frozenset[str] = frozenset(KEYLESS)  # groups of routes that need no key
    cors_origins: frozenset[str] = frozenset()  # origins whose pages may read answers; "*" for all
    shadow_model: str | None = None  # model folder, or a link to one, of a candidate to compare with
    shadow_ratio: float = 0.1  # share of the labelled texts that the candidate labels too
    log_format: str = "text"  # text | json
    access_log: bool = False  # a line for every request, not only for failures

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """
        Read every BERTRAND_* variable.

        Raises:
            InputError: a value is not what the setting takes; it names the variable.
        """
        environment = os.environ if environment is None else environment
        read = _Reader(environment)
        workers = read.count("WORKERS", cls.workers)
        fitting = tokens_in(memory_limit(), workers)
        settings = cls(
            # Absolute, since BentoML changes the directory after this is read; not resolved, so that a link stays one.
            model=str(Path(read.text("MODEL") or _default_model(cls.model)).absolute()),
            precision=read.choice("PRECISION", PRECISIONS),
            workers=workers,
            threads=read.count("THREADS", max(1, cpu_count() // workers)),
            max_batch_tokens=read.count("MAX_BATCH_TOKENS", cls.max_batch_tokens),
            max_queue_tokens=read.count("MAX_QUEUE_TOKENS", min(cls.max_queue_tokens, fitting)),
            max_vectors=read.count("MAX_VECTORS", min(cls.max_vectors, fitting)),
            max_inputs=read.count("MAX_INPUTS", cls.max_inputs),
            max_text_characters=read.count("MAX_TEXT_CHARACTERS", cls.max_text_characters),
            max_body_bytes=read.count("MAX_BODY_BYTES", cls.max_body_bytes),
            request_timeout=read.seconds("REQUEST_TIMEOUT", cls.request_timeout, least=0.01),
            drain_seconds=read.seconds("DRAIN_SECONDS", cls.drain_seconds, least=0),
            api_keys=frozenset(read.names("API_KEYS")),
            api_keys_file=str(Path(file).absolute()) if (file := read.text("API_KEYS_FILE")) else None,
            keyless=frozenset(read.names("KEYLESS", KEYLESS, among=KEYLESS)),
            cors_origins=frozenset(read.names("CORS_ORIGINS")),
            shadow_model=str(Path(folder).absolute()) if (folder := read.text("SHADOW_MODEL")) else None,
            shadow_ratio=read.share("SHADOW_RATIO", cls.shadow_ratio),
            log_format=read.choice("LOG_FORMAT", LOG_FORMATS),
            access_log=read.choice("ACCESS_LOG", ("false", "true")) == "true",
        )
        check_keys(settings.api_keys, f"{PREFIX}API_KEYS")
        settings.keys()
        for origin in settings.cors_origins - {"*"}:
            if not origin.startswith(("http://", "https://")) or origin.count("/") != 2:
                raise InputError(
                    f"{PREFIX}CORS_ORIGINS has {origin!r}; expected origins such as https://app.example.org, or *"
                )
        return settings

    def keys(self) -> frozenset[str]:
        """
        Return every key that opens the service now: those of the environment and those in the file.

        Raises:
            InputError: the file cannot be read, holds no key, or one that is too short.
        """
        if self.api_keys_file is None:
            return self.api_keys
        name = f"{PREFIX}API_KEYS_FILE {self.api_keys_file}"
        try:
            lines = Path(self.api_keys_file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{name}: cannot be read ({error})") from error
        keys = frozenset(filter(None, (COMMENT.sub("", line).strip() for line in lines)))
        if not keys:
            raise InputError(f"{name}: holds no key, which would open the service to everybody; write one a line")
        check_keys(keys, name)
        return self.api_keys | keys


def tokens_in(memory: int | None, workers: int) -> int:
    """
    Return of how many tokens a worker can hold the embeddings beside its model.

    Args:
        memory: Bytes that all workers may take; None where nothing limits them.
        workers: How many share them.
    """
    if memory is None:
        return MOST_QUEUE_TOKENS
    return max(LEAST_TOKENS, (memory // workers - WORKER_BYTES) // TOKEN_BYTES)


def check_keys(keys: frozenset[str], where: str) -> None:
    """Raise InputError unless every key can be sent in a header and is too long to be guessed; never names one."""
    for key in keys:
        if len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
            raise InputError(
                f"{where}: a key of {len(key)} characters is too short or has other than printable ASCII ones; "
                f"expected at least {SHORTEST_KEY}, such as `openssl rand -hex 24` prints"
            )


@contextmanager
def named(setting: str) -> Iterator[None]:
    """
    Name a setting in what is wrong with the model folder that it names.

    Raises:
        InputError: the folder cannot be used.
    """
    try:
        yield
    except ArtifactError as error:
        raise InputError(f"{PREFIX}{setting}: {error}") from error


def _default_model(current: str) -> str:
    """Return models/current or, where there is no such link (a bento holds none), the newest model in models/."""
    if Path(current).exists():
        return current
    models = [path.parent for path in Path(current).parent.glob("[!.]*/model.json")]  # a dot: unfinished, or removed
    newest = max(models, key=lambda folder: Artifact.open(folder).manifest.created, default=Path(current))
    return str(newest)


@dataclass(frozen=True)
class _Reader:
    """The variables, each read as what it should be or refused by name; an empty one counts as not set."""

    environment: Mapping[str, str]

    def text(self, name: str) -> str:
        return self.environment.get(PREFIX + name, "").strip()

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """The first choice is the default."""
        value = self.text(name) or choices[0]
        if value not in choices:
            raise InputError(f"{PREFIX}{name} is {value!r}; expected one of {', '.join(choices)}")
        return value

    def count(self, name: str, default: int) -> int:
        value = self.text(name)
        if not value:
            return default
        if not value.isascii() or not value.isdigit() or int(value) < 1:
            raise InputError(f"{PREFIX}{name} is {value!r}; expected a whole number of at least 1")
        return int(value)

    def seconds(self, name: str, default: float, *, least: float) -> float:
        value = self.text(name)
        try:
            seconds = float(value or default)
        except ValueError:
            seconds = -1
        if not least <= seconds < float("inf"):
            raise InputError(f"{PREFIX}{name} is {value!r}; expected seconds, at least {least:g}")
        return seconds

    def share(self, name: str, default: float) -> float:
        value = self.text(name)
        try:
            share = float(value or default)
        except ValueError:
            share = 0
        if not 0 < share <= 1:
            raise InputError(f"{PREFIX}{name} is {value!r}; expected a share above 0, at most 1")
        return share

    def names(self, name: str, default: tuple[str, ...] = (), among: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Separated by commas; `none` for an empty list where there is a default."""
        value = self.text(name)
        if not value:
            return default
        found = () if among and value == "none" else tuple(part.strip() for part in value.split(",") if part.strip())
        if among and (unknown := sorted(set(found) - set(among))):
            raise InputError(f"{PREFIX}{name} has {', '.join(unknown)}; expected none, or some of {', '.join(among)}")
        return found
