"""Plots: one style, and a function for each figure of a run or a study."""
