"""Reading JSON that may be damaged, or made to do harm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class NotJSONError(ValueError):
    """A text that is no JSON; says why."""


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        NotJSONError: no UTF-8, no JSON, or nested so deeply that Python's reader gives up.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise NotJSONError("it is nested too deeply") from None
    except ValueError as error:  # of the encoding or of the JSON; both say where
        raise NotJSONError(str(error)) from error


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        NotJSONError: it is none.
        OSError: it cannot be read.
    """
    return parse_json(path.read_bytes())
