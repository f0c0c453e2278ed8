"""An embedded implementation of the Dassl surface used by prompt learning."""

from __future__ import annotations

__version__ = "0.6.3+mini"
