"""A model folder that a server takes models from: loaded, and looked at again."""

from __future__ import annotations

import logging
from pathlib import Path

from inference.artifact import MANIFEST
from inference.classifier import Classifier
from inference.errors import ArtifactError, BertrandError

WARM_UP_TEXTS = ("ok", "A sentence of some length, as people write them when something does not work. " * 4)

log = logging.getLogger("bertrand.service")

Mark = tuple[int, int, int]  # device, inode and modification time of a manifest: another one is another model


class Folder:
    """A model folder, or a link to one, in which another model may stand at any time."""

    def __init__(self, path: str, *, precision: str, role: str) -> None:
        """
        Name the folder; nothing is read yet.

        Args:
            path: A model folder, or a link to one.
            precision: As in `Classifier.load`.
            role: What its model is for the server, for the log.
        """
        self._path = path
        self._precision = precision
        self._role = role
        self._seen: Mark | None = None

    def load(self) -> Classifier:
        """
        Load what is there and warm it up.

        Raises:
            ArtifactError: the folder cannot be loaded, or its model cannot compute.
        """
        self._seen = self._mark()
        classifier = Classifier.load(self._path, precision=self._precision)
        try:
            classifier.analyze(WARM_UP_TEXTS)
        except Exception as error:
            raise ArtifactError(f"{self._path}: the model cannot compute a text ({error}); export it again") from error
        return classifier

    def changed(self) -> bool:
        """Whether another model is there than the one that was loaded, or refused, last."""
        mark = self._mark()
        return mark is not None and mark != self._seen

    def successor(self, current: Classifier) -> Classifier | None:
        """Load what is there in place of a model; None where it is refused, which the log tells."""
        serving = current.manifest
        try:
            return self.load()
        except (BertrandError, OSError) as error:
            log.error("the new %s is refused, %s %s stays: %s", self._role, serving.name, serving.version, error)
        except Exception:
            log.exception("the new %s is refused, %s %s stays", self._role, serving.name, serving.version)
        return None

    def _mark(self) -> Mark | None:
        """Return what the folder holds now; None while there is nothing to read."""
        try:
            stat = (Path(self._path) / MANIFEST).stat()
        except OSError:
            return None
        return stat.st_dev, stat.st_ino, stat.st_mtime_ns
