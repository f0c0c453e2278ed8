"""The rooms that hold mathematics are used without Dassl, configurations and CLIP's loader."""

from __future__ import annotations

import subprocess
import sys


def test_every_module_is_imported_without_dassl_and_settings():
    code = (
        "import importlib, pkgutil, sys, causalclip.cdc, causalclip.icm\n"
        "for room in (causalclip.cdc, causalclip.icm):\n"
        "    for info in pkgutil.iter_modules(room.__path__):\n"
        "        importlib.import_module(f'{room.__name__}.{info.name}')\n"
        "print(*sorted({'dassl', 'yacs', 'clip', 'causalclip.engine'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
