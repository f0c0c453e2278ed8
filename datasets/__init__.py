"""Dassl data sets; importing a module of this package registers the data sets it holds."""
