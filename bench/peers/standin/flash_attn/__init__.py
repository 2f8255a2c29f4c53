"""A stand-in for flash-attn 2.7 on the kernels that Evenspan's executor calls (README.md)."""

from flash_attn.flash_attn_interface import flash_attn_func, flash_attn_varlen_func

__all__ = ["flash_attn_func", "flash_attn_varlen_func"]
__version__ = "2.7.4"
