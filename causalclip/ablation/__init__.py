"""Ablations: a method with its parts changed one at a time, as tables and figures."""
