"""What this machine computes fast."""

from typing import Literal

Dtype = Literal["auto", "bfloat16", "float16", "float32"]


def concrete_dtype(dtype: Dtype) -> str:
    """Return `dtype`, with ``auto`` decided: bfloat16 where the hardware multiplies it, else float32.

    A CPU without AVX512-BF16 or AMX emulates bfloat16; a matrix product is then about ten times slower than in float32.
    """
    if dtype != "auto":
        return dtype
    import torch

    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if fast else "float32"
