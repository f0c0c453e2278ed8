"""Dassl trainers; importing a module of this package registers the trainer it holds."""

from causalclip.dassl_compat import mend

mend(required=False)  # before any module of this package imports dassl
