"""Dassl data sets; importing a module of this package registers the data sets it holds."""

from causalclip.dassl_compat import mend

mend(required=False)  # before any module of this package imports dassl
