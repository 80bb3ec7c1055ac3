"""Where a model may run, how much room there is, and what a machine can do at most."""

from __future__ import annotations

import time

import psutil
import torch
import torch.nn.functional as F

# Rows, outputs and inputs of the product that a machine's peak is measured by, how often at the
# most, and seconds after which once more is too often: some processors have 16 bits in name only.
PEAK_SHAPE, TURNS, ENOUGH = (256, 1024, 1024), 5, 0.3


def pick_device(device: str) -> torch.device:
    """The device of that name; for `"auto"` a GPU where there is one.

    Raises:
        ValueError: No such device here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        where = torch.device(device)
    except RuntimeError:
        raise ValueError(
            f"device {device!r} is not one that PyTorch has; give cpu, cuda, cuda:N or auto"
        ) from None
    try:
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device {device!r} cannot be used here: {str(error).splitlines()[0]}; "
            "give cpu, cuda, cuda:N or auto"
        ) from None
    return where


def free_bytes(device: torch.device) -> int:
    """Bytes of memory that are free on the device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Billions of operations a second of one matrix product, the best of a few; half a second.

    >>> matmul_peak(torch.device("cpu"), torch.float32) > 0
    True
    """
    n_rows, n_out, n_in = PEAK_SHAPE
    rows = torch.ones((n_rows, n_in), device=device, dtype=dtype)
    weight = torch.ones((n_out, n_in), device=device, dtype=dtype)
    times: list[float] = []
    while len(times) < TURNS and sum(times) < ENOUGH:
        start = time.perf_counter()
        F.linear(rows, weight)[0, 0].item()  # waits for a GPU
        times.append(time.perf_counter() - start)
    return 2e-9 * n_rows * n_out * n_in / min(times)
