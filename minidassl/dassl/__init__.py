"""An embedded implementation of the part of Dassl that prompt learning uses."""

from __future__ import annotations

__version__ = "0.6.3+mini"
