"""Dassl trainers; importing a module of this package registers the trainer it holds."""
