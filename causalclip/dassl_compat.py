"""Makes whichever Dassl is installed usable on current torch, without touching its files."""

from importlib.util import find_spec


def mend() -> None:
    """Check that a `dassl` is there; call before the first import of it."""
    if find_spec("dassl") is None:
        raise ImportError(
            "no module dassl: install the embedded toolkit (pip install ./minidassl) or Dassl"
        )
