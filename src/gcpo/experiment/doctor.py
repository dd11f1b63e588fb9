"""``gcpo doctor``: versions, devices, what is installed, and whether the hosts' hooks are intact, in a screen."""

import importlib
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from gcpo import __version__
from gcpo.policies import PACKAGED, POLICIES
from gcpo.policies.packaged import cache

_PACKAGES = {
    "trl": 'pip install "gcpo[train]"',
    "transformers": 'pip install "gcpo[train]"',
    "datasets": 'pip install "gcpo[train]"',
    "accelerate": 'pip install "gcpo[train]"',
    "math-verify": 'pip install "gcpo[train]"',
    "plotly": 'pip install "gcpo[train]"',
    "sentence-transformers": 'pip install "gcpo[embed]"',
    "peft": 'pip install "gcpo[lora]"',
    "reasoning-gym": 'pip install "gcpo[gym]"',
    "vllm": "pip install vllm, for use_vllm and backend=vllm",
}


def examine() -> dict[str, Any]:
    """What a bug report needs to know of this machine, by name."""
    findings: dict[str, Any] = {
        "gcpo": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "devices": ", ".join(_devices()),
        "bf16": _bf16(),
        **{name: _installed(name, remedy) for name, remedy in _PACKAGES.items()},
        "trl release": _release(),
        "trl hooks": _hooks(),
        "models": ", ".join([*POLICIES, *(f"{m.name} ({_packaged(m.package)})" for m in PACKAGED.values())]),
        "cache": _room(cache()),
    }
    if find_spec("verl"):  # TRL and verl share no environment, so a missing one is no finding
        findings["verl hooks"] = _verl_hooks()
    return findings


def _devices() -> list[str]:
    cuda = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    shown = [f"{device.name} ({device.total_memory >> 20} MiB)" for device in cuda]
    return [f"cpu ({torch.get_num_threads()} threads)", *shown]


def _bf16() -> str:
    if not torch.cuda.is_available():
        return "on the CPU only: gcpo trains in float32 here"
    return "yes" if torch.cuda.is_bf16_supported() else "not on this GPU: gcpo trains in float32"


def _installed(name: str, remedy: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return f"missing: {remedy}"


def _packaged(package: str) -> str:
    return "installed" if find_spec(package) else "not installed"


def _room(directory: Path) -> str:
    """Whether something can be kept in a directory, which need not exist yet."""
    there = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return f"{directory} cannot be written: set GCPO_CACHE to a directory that can"
    return f"{directory} ({shutil.disk_usage(there).free >> 20} MiB free)"


def _release() -> str:
    """Whether TRL's release is one of those that were tested."""
    if find_spec("trl") is None:
        return "no trl"
    from packaging.specifiers import SpecifierSet  # which trl brings

    from gcpo.integrations.releases import TESTED

    tested = SpecifierSet(TESTED).contains(version("trl"))
    return f"tested (trl{TESTED})" if tested else f'not tested: pip install "trl{TESTED}" for one that is'


def _verl_hooks() -> str:
    from gcpo.integrations import verl  # importing it is what wraps, and checks

    try:
        for name in verl.WRAPPED:
            importlib.import_module(name)
    except ImportError as error:
        return str(error)
    return f"intact: {', '.join(path for paths in verl.WRAPPED.values() for path in paths)}"


def _hooks() -> str:
    try:
        from gcpo.integrations import trl
    except (ImportError, RuntimeError) as error:  # the second is TRL's own, where it cannot be imported
        return " ".join(str(error).split())
    return f"intact: {', '.join(trl.WRAPPED)}"
