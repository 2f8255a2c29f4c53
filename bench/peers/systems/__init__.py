"""Every system that is compared: one small class for each mode."""

from __future__ import annotations

import importlib

from systems.protocol import Attention, System

_MODULES = ("evenspan_modes", "ring_flash_attn_modes", "yunchang_modes", "deepspeed_modes", "torch_modes")

__all__ = ["Attention", "System", "all_systems"]


def all_systems() -> tuple[dict[str, System], dict[str, str]]:
    """Return the systems by name, and by module of this folder why its systems are missing."""
    found: dict[str, System] = {}
    missing: dict[str, str] = {}
    for module in _MODULES:
        try:
            made = importlib.import_module(f"systems.{module}").systems()
        except ImportError as error:
            missing[module.removesuffix("_modes")] = f"{type(error).__name__}: {error}"
            continue
        found.update({system.name: system for system in made})
    return found, missing
