"""Dassl data sets; `causalclip.plugin` registers those that a module lists in `DATASETS`."""
