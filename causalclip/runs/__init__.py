"""Runs: the command line of one, the protocols of many."""
