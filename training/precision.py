"""In what numbers matrices are multiplied."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

if TYPE_CHECKING:
    from collections.abc import Iterator


def has_bfloat16() -> bool:
    """Say whether this CPU multiplies bfloat16 matrices in hardware; emulated, they are slower than float32."""
    capabilities = torch.backends.cpu.get_cpu_capability() if hasattr(torch.backends, "cpu") else ""
    return "AVX512" in capabilities and bool(
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )


@contextmanager
def mixed_precision() -> Iterator[None]:
    """
    Multiply matrices in bfloat16 where this CPU does so in hardware.

    Attention is then of plain products: the way back through torch's fused kernel takes ten times as long in bfloat16.
    """
    if not has_bfloat16():
        yield
        return
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        yield
