"""Where files are: local paths and the URLs that fsspec knows, found, opened, and written in one step."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

import fsspec
import pyarrow as pa

from inference.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

STANDARD = "-"  # standard input or output
ENDINGS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
FORMATS = ("csv", "tsv", "jsonl", "parquet")


@dataclass(frozen=True)
class Kind:
    """What bytes a file holds."""

    format: str  # one of FORMATS
    compression: str | None = None  # gzip or zstd
    folder: bool = False  # a folder of files of the format, rather than one file

    @classmethod
    def of(cls, name: str, given: str | None = None) -> Kind:
        """
        Tell the kind of a file by the ending of its name, or of its format by what the user says; `name/` is a folder.

        Raises:
            InputError: the ending is none of those that are known.
        """
        if name.endswith("/"):
            return cls(given or "parquet", folder=True)
        path = PurePosixPath(name)
        compression = COMPRESSIONS.get(path.suffix.lower())
        ending = (path.with_suffix("") if compression else path).suffix.lower()
        found = given or ENDINGS.get(ending)
        if found is None:
            known = ", ".join(ENDINGS)
            raise InputError(
                f"{name}: ending {ending!r} says no format; expected {known}, all but the last also with .gz or .zst"
            )
        if found == "parquet" and compression:
            raise InputError(f"{name}: Parquet is compressed inside; name it without {path.suffix}")
        return cls(found, compression)


@dataclass(frozen=True)
class Place:
    """A file or folder on one file system; `path` is as that file system writes it, local ones absolute."""

    fs: Any  # fsspec.AbstractFileSystem
    path: str

    @classmethod
    def of(cls, name: str) -> Place:
        """
        Find the file system of a local path or a URL such as s3://bucket/name.

        Raises:
            InputError: the protocol is unknown, or needs a package that is not installed.
        """
        try:
            fs, path = fsspec.core.url_to_fs(name)
        except (ImportError, ValueError) as error:
            raise InputError(f"{name}: {error}") from error
        return cls(fs, path)

    def resolved(self) -> Place:
        """Return the place with a local path that has no `..` and no links but for the last part of it."""
        if not self.is_local:
            return self
        parent, name = os.path.split(self.path)
        if name in (".", ".."):
            return Place(self.fs, os.path.realpath(self.path))
        return Place(self.fs, os.path.join(os.path.realpath(parent), name))  # noqa: PTH118

    @property
    def is_local(self) -> bool:
        """Whether the place is on a disk of this machine."""
        return isinstance(self.fs, fsspec.implementations.local.LocalFileSystem)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(self.path).name

    @property
    def url(self) -> str:
        """The path as a user writes it."""
        return self.path if self.is_local else str(self.fs.unstrip_protocol(self.path))

    def beside(self, name: str) -> Place:
        """Return the place of another name in the same folder."""
        parent = self.path.rstrip("/").rpartition("/")[0]
        return Place(self.fs, f"{parent}/{name}" if parent or self.is_local else name)

    def within(self, name: str) -> Place:
        """Return the place of a name in this folder."""
        return Place(self.fs, f"{self.path.rstrip('/')}/{name}")

    def exists(self) -> bool:
        """Whether there is something."""
        with explained(self.url):
            return bool(self.fs.exists(self.path))

    def read(self) -> bytes:
        """Return what the file holds."""
        with explained(self.url):
            return bytes(self.fs.cat_file(self.path))

    @contextmanager
    def opened(self, kind: Kind) -> Iterator[BinaryIO]:
        """Open the file to be read, decompressed."""
        with explained(self.url), self.fs.open(self.path, "rb") as raw:
            yield pa.CompressedInputStream(raw, kind.compression) if kind.compression else raw

    def put(self, content: bytes) -> None:
        """Write a file in one step: after a crash it is there as a whole, as it was before, or not at all."""
        with explained(self.url):
            if not self.is_local:
                self.fs.pipe_file(self.path, content)  # an object store shows an object when it is complete
                return
            staging = f"{self.path}.{os.getpid()}"
            try:
                with open(staging, "wb") as file:  # noqa: PTH123  the path is a string of fsspec's
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(staging, self.path)  # noqa: PTH105
            except BaseException:
                _forget(staging)
                raise

    def remove(self) -> None:
        """Remove the file or the folder with all that is in it, if it is there."""
        with explained(self.url):
            if self.fs.exists(self.path):
                self.fs.rm(self.path, recursive=True)


def find_inputs(name: str, given: str | None = None) -> list[tuple[Place, Kind]]:
    """
    Return the files that a path, a glob, a folder or a URL of one of these names, in alphabetical order.

    In a folder, names that begin with `.` or `_` are passed over, as Spark and Hive do.

    Raises:
        InputError: there is none, or one has an unknown ending.
    """
    place = Place.of(name)
    with explained(name):
        # A local name may hold the characters of a glob.
        if any(mark in place.path for mark in "*?[") and not (place.is_local and place.fs.exists(place.path)):
            found = [path for path in place.fs.glob(place.path) if not place.fs.isdir(path)]
        elif place.fs.isdir(place.path):
            found = [path for path in place.fs.find(place.path) if not _is_hidden(path, place.path)]
        else:
            found = [place.path] if place.fs.exists(place.path) else []
    if not found:
        raise InputError(f"{name}: there is no such file; expected a file, a folder with files, or a glob")
    return [(Place(place.fs, path), Kind.of(path, given)) for path in sorted(found)]


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn what file systems raise into one line that begins with the name of the file."""
    try:
        yield
    except InputError:
        raise
    except (OSError, pa.ArrowException, ImportError) as error:
        raise InputError(f"{name}: {reason(error)}") from error
    except Exception as error:
        # What an object store refuses is told in classes of its client.
        if type(error).__module__.partition(".")[0] in ("botocore", "aiobotocore", "gcsfs", "adlfs", "aiohttp"):
            raise InputError(f"{name}: {error}") from error
        raise


def reason(error: BaseException) -> str:
    """Return what an error says, in one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


@contextmanager
def spooled_input() -> Iterator[str]:
    """Keep standard input in a file for as long as the block lasts: a job reads its input twice."""
    with tempfile.NamedTemporaryFile(prefix="bertrand-score-") as file:
        with explained(f"standard input, kept in {tempfile.gettempdir()}"):
            shutil.copyfileobj(sys.stdin.buffer, file, 2**20)
            file.flush()
        yield file.name


def _is_hidden(path: str, folder: str) -> bool:
    below = path[len(folder) :].strip("/").split("/")
    return any(part.startswith((".", "_")) for part in below)


def _forget(path: str) -> None:
    try:
        os.unlink(path)  # noqa: PTH108
    except FileNotFoundError:
        return
