"""Plots of runs and studies, in one style."""
