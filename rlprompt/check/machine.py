"""What this machine has, and what is known to go wrong with such a one; no model is needed.

Nothing is asked of a network, and what is told has no names of users, hosts or folders but those
below the home folder that are needed (`Diagnosis`).
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import torch

import rlprompt
from rlprompt._utils.assets import DEFAULT_MODEL, cache_folder, is_cached
from rlprompt._utils.text import counted
from rlprompt.check.diagnosis import Diagnosis, Facts, warned
from rlprompt.check.report import Finding
from rlprompt.models.devices import free_bytes, matmul_peak, pick_device

# What others ask for first when something is slow or breaks.
PACKAGES = (
    *("torch", "transformers", "tokenizers", "accelerate", "safetensors", "gguf", "numpy"),
    *("scipy", "gymnasium", "stable-baselines3", "cma", "pydantic", "huggingface-hub"),
)
OPTIONAL = (
    *("datasets", "pyarrow", "peft", "bitsandbytes", "torchao", "sb3-contrib", "scikit-learn"),
    *("sacrebleu", "rouge-score", "jsonschema", "ray", "tensorboard", "wandb", "sentencepiece"),
)
# Settings of the environment that change what is computed, where, or how fast.
VARIABLES = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "TOKENIZERS_PARALLELISM"),
    *("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "RLPROMPT_CACHE", "HF_HOME"),
)
# Bytes below which the default model (0.4 GiB in float32, beside its packed weights and texts) is
# short of memory, or its files of room on the disk.
LITTLE_MEMORY, LITTLE_DISK = 2 << 30, 1 << 30
# Load a core from which timings say more of others' work than of ours.
BUSY = 1.25


def examine_machine() -> Diagnosis:
    """Look at this machine, in a second or two.

    >>> sorted(examine_machine().facts)
    ['environment', 'machine', 'packages']
    """
    facts = {"machine": _machine(), "packages": _packages(), "environment": _environment()}
    return Diagnosis(facts, tuple(_troubles()))


def _machine() -> Facts:
    memory, device = psutil.virtual_memory(), pick_device("auto")
    dtypes = (torch.float32, torch.bfloat16)
    peaks = {_name(one): float(f"{matmul_peak(device, one):.2g}") for one in dtypes}
    return {
        "system": platform.platform(terse=True),
        "processor": f"{_processor()}, {torch.backends.cpu.get_cpu_capability()}",
        "cores": {"physical": psutil.cpu_count(logical=False), "logical": psutil.cpu_count()},
        "threads of torch": torch.get_num_threads(),
        "load": None if (load := _load()) is None else round(load, 1),
        "memory": {"GiB": _gib(memory.total), "free": _gib(memory.available)},
        "GPUs": [_gpu(i) for i in range(torch.cuda.device_count())],
        "device auto": f"{device.type}: {_why_device(device)}",
        "GFLOP/s": peaks,
    }


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _gib(n_bytes: float) -> float:
    return round(n_bytes / 2**30, 1)


def _processor() -> str:
    """The processor's name, which Python knows on few systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def _load() -> float | None:
    """Processes that wanted to run in the last minute; None where a system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def busy() -> str:
    """What to say of timings where others want to run as well; "" where they do not."""
    load, n_cores = _load() or 0.0, psutil.cpu_count() or 1
    if load <= BUSY * n_cores:
        return ""
    return (
        f"{load:.0f} processes want to run on {counted(n_cores, 'core')}: seconds measured now say "
        "more of them than of the model, and ratios can be trusted"
    )


def _gpu(number: int) -> str:
    found = torch.cuda.get_device_properties(number)
    free = free_bytes(torch.device("cuda", number))
    return f"{found.name}, {_gib(found.total_memory)} GiB, {_gib(free)} free"


def _why_device(device: torch.device) -> str:
    if device.type == "cuda":
        return "PyTorch finds a GPU that it can use"
    if torch.backends.mps.is_available():
        return "PyTorch finds no CUDA; Apple's GPU is used where `--device mps` asks for it"
    build = torch.version.cuda
    return f"PyTorch is {f'built for CUDA {build}' if build else 'a CPU build'} and finds no GPU"


def _packages() -> Facts:
    found = {"python": platform.python_version(), "rlprompt": rlprompt.__version__}
    found |= {name: _version(name) or "missing" for name in PACKAGES}
    return {**found, "optional": {name: one for name in OPTIONAL if (one := _version(name))}}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _environment() -> Facts:
    free = shutil.disk_usage(_there(cache_folder())).free
    given: dict[str, Any] = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    return {
        "cache": {"folder": str(cache_folder()), "GiB free": _gib(free)},
        DEFAULT_MODEL: "in the cache" if is_cached(DEFAULT_MODEL) else "not fetched yet",
        "encoding": sys.stdout.encoding,
        "variables": given,
    }


def _there(folder: Path) -> Path:
    """The folder, or the first above it that exists."""
    return next(one for one in (folder, *folder.parents) if one.exists())


def _troubles() -> Iterator[Finding]:
    """What is known to go wrong, each with its cure."""
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    threads = torch.get_num_threads()
    free = psutil.virtual_memory().available
    missing = [name for name in _required() if not _version(name)]
    if missing:
        text = f"{', '.join(missing)} cannot be found: `pip install {' '.join(missing)}`"
        yield Finding("packages", "fail", text)
    if _version("rl-prompt"):
        text = "the package rl-prompt is installed, which takes the import name rlprompt as well: "
        yield Finding("name", "fail", text + "use an environment for each, or uninstall it")
    yield from warned(
        ("gpu", _unused_gpu()),
        (
            "memory",
            f"{_gib(free)} GiB of memory are free, and the default model wants 2: end other "
            "programs, or say `dtype: bfloat16`"
            if free < LITTLE_MEMORY
            else "",
        ),
        (
            "threads",
            f"PyTorch uses {threads} threads on {cores} cores, which wait for each other: set "
            f"OMP_NUM_THREADS={cores}"
            if threads > max(cores, psutil.cpu_count() or 1)
            else "",
        ),
        ("busy", busy()),
        ("cache", _cache_trouble()),
        (
            "pip",
            f"{sys.version_info.major}.{sys.version_info.minor}'s pip is missing, which fetches "
            "the default model and data: `python -m ensurepip`"
            if find_spec("pip") is None and not is_cached(DEFAULT_MODEL)
            else "",
        ),
        (
            "encoding",
            f"the terminal writes {sys.stdout.encoding}, in which most scripts of a vocabulary "
            "come out as escapes: set PYTHONUTF8=1, or LC_ALL to a UTF-8 locale"
            if (sys.stdout.encoding or "").lower().replace("-", "") not in ("utf8", "utf8sig")
            else "",
        ),
    )


def _required() -> Iterator[str]:
    """Names of the packages that rlprompt cannot do without; none where it is not installed."""
    listed = requires("rlprompt") if _version("rlprompt") else None
    for line in listed or ():
        name = re.match(r"[\w.-]+", line)
        if name and "extra ==" not in line:
            yield name[0]


def _unused_gpu() -> str:
    """Why an NVIDIA GPU that is there is not used, or ""."""
    there = shutil.which("nvidia-smi") or Path("/proc/driver/nvidia/version").exists()
    if not there or torch.cuda.is_available():
        return ""
    if torch.version.cuda is None:
        return (
            "there is an NVIDIA driver, and PyTorch is a CPU build: install the one for CUDA, as "
            "https://pytorch.org/get-started says"
        )
    return (
        f"there is an NVIDIA driver, and PyTorch, built for CUDA {torch.version.cuda}, finds no "
        "GPU: the driver may be too old for it (`nvidia-smi` says which CUDA it takes), or "
        "CUDA_VISIBLE_DEVICES may hide them"
    )


def _cache_trouble() -> str:
    """What keeps the default model and data from being fetched, or ""."""
    there = _there(cache_folder())
    if is_cached(DEFAULT_MODEL):
        return ""
    if not os.access(there, os.W_OK):
        return (
            f"nothing can be written to the cache folder {cache_folder()}: set RLPROMPT_CACHE to a "
            "folder of yours"
        )
    if shutil.disk_usage(there).free < LITTLE_DISK:
        return (
            f"less than 1 GiB is free where the cache folder is ({cache_folder()}): make room, or "
            "set RLPROMPT_CACHE to another disk"
        )
    return ""
