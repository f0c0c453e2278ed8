"""What a run stands on: its random seeds, and the versions and devices of this machine."""

from __future__ import annotations

import os
import platform
import random

import numpy as np
import PIL
import torch


def set_random_seed(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices); 0 is a seed like any other."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)


def collect_env_info() -> str:
    """Return the versions and devices that results depend on, one per line."""
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    facts = {
        "Python": platform.python_version(),
        "OS": platform.platform(),
        "CPU": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "CUDA devices": ", ".join(devices) or "none",
        "PyTorch": torch.__version__,
        "CUDA of PyTorch": torch.version.cuda or "none",
        "NumPy": np.__version__,
        "Pillow": PIL.__version__,
    }
    return "\n".join(f"{name}: {fact}" for name, fact in facts.items())
