"""The planted worlds of benchmarks/ are importable, as when that folder's scripts run."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
