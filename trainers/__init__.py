"""Dassl trainers, one method a file; `causalclip.plugin` registers them."""
