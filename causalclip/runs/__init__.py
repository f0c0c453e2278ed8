"""Runs: the command line of a single run, and the protocols of many runs."""
