"""An embedded implementation of the Dassl surface used by prompt learning."""

__version__ = "0.6.3+mini"
