"""The processes that share a run, as torchrun and accelerate start them."""

from __future__ import annotations

import os

import torch


def process_count() -> int:
    """Return how many processes share the run, as torchrun and accelerate tell them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_left_alone() -> bool:
    """Say whether accelerate was asked for several processes and has started one, as it does on CPUs by itself."""
    return {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR"} <= os.environ.keys() and "WORLD_SIZE" not in os.environ


def is_first_process() -> bool:
    """Say whether this is the only process of the run, or the one among several that writes and speaks."""
    return os.environ.get("RANK", "0") == "0"


def part() -> None:
    """Leave the other processes of a run: what follows, one does alone."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
