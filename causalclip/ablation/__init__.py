"""Ablations: tables and figures of a method whose parts are changed one at a time."""
