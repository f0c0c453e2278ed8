"""One table of settings: default, allowed values, whether a setting changes a result, help."""
