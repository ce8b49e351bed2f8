"""Threads, device and precision of the arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from collabteam.errors import UserError
from collabteam.machine import processors
from collabteam.settings import TrainerConfig

_A_PROCESSOR = 16
"""Most threads a processor: settings of a larger machine work, a typing error does not."""


def set_threads(threads: int) -> int:
    """Set the number of CPU threads of torch, and of decoding.

    Args:
        threads: 1 or more; 0 means every core that this process may use.

    Returns:
        The number that was set.

    Raises:
        UserError: That many threads would only take memory.
    """
    mine = processors()
    if threads > _A_PROCESSOR * mine:
        raise UserError(
            f"trainer.threads={threads}: expected 0 to {_A_PROCESSOR * mine} for the {mine} "
            "processors that this process may use; 0 is one for each"
        )
    count = threads or mine
    torch.set_num_threads(count)
    return count


def cpu_threads() -> int:
    """Number of CPU threads, 1 or more, as set by :func:`set_threads`, else torch's default."""
    return torch.get_num_threads()


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread, so that sums have the same order on every machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware (emulation is slower than fp32)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


@dataclass(frozen=True)
class Device:
    """Where and in which arithmetic a network computes.

    Attributes:
        torch: The device.
        bf16: Whether matrix products run in bfloat16 (weights and sums stay fp32).
    """

    torch: torch.device
    bf16: bool

    @classmethod
    def of(cls, config: TrainerConfig) -> Device:
        """Resolve ``auto``.

        Raises:
            UserError: The machine lacks the accelerator.
        """
        wanted = config.accelerator
        kind = {"auto": "cuda" if torch.cuda.is_available() else "cpu", "gpu": "cuda"}.get(
            wanted, wanted
        )
        if kind not in ("cpu", "cuda") or (kind == "cuda" and not torch.cuda.is_available()):
            raise UserError(
                f"trainer.accelerator={wanted}: not on this machine; use auto, cpu or gpu"
            )
        device = torch.device(kind)
        automatic = config.precision == "auto" and has_bf16(device)
        return cls(device, config.precision == "bf16" or automatic)
