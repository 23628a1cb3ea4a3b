"""Measure, on your own data, what the pretrained weights contribute: one study each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertrand.study import context, init, landscape, layers, mask

if TYPE_CHECKING:
    from types import ModuleType

COMMANDS: dict[str, ModuleType] = {
    "init": init,
    "layers": layers,
    "landscape": landscape,
    "context": context,
    "mask": mask,
}
