"""The plug-in takes two names and no more; each name is taken once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from causalclip import plugin

# isort: split
from dassl.engine import TRAINER_REGISTRY

NEWLY_REGISTERED = """
import json
from causalclip.dassl_compat import mend
mend()
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY
registries = TRAINER_REGISTRY, DATASET_REGISTRY
before = [set(registry.registered_names()) for registry in registries]
import causalclip.plugin
new = [set(r.registered_names()) - names for r, names in zip(registries, before)]
print(json.dumps([sorted(names) for names in new]))
"""


@pytest.fixture(scope="module")
def newly_registered() -> list[list[str]]:
    """Names of trainers and data sets that importing the plug-in adds, in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-c", NEWLY_REGISTERED]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_the_plugin_registers_cdc_and_clip_icm_alone(newly_registered):
    assert newly_registered == [["CDC", "CLIP_ICM"], []]


def test_registering_everything_twice_takes_no_name_twice():
    plugin.register_all()
    names = TRAINER_REGISTRY.registered_names()
    plugin.register_all()
    assert TRAINER_REGISTRY.registered_names() == names
    assert len(set(names)) == len(names)


def test_a_taken_name_is_refused():
    plugin.register_all()
    with pytest.raises(KeyError, match='"CoOp" was already registered'):

        @TRAINER_REGISTRY.register()
        class CoOp:
            pass


ROOT = Path(__file__).parents[1]
HEAVY = {"sklearn", "pandas", "torchmetrics", "scipy.stats", "matplotlib.pyplot"}


@pytest.mark.parametrize(
    "imports",
    [
        "import causalclip.metrics, causalclip.icm.probe",
        # Whatever Dassl itself imports, every trainer and data set of ours adds nothing heavy.
        "from causalclip.dassl_compat import mend; mend(); import dassl.engine;"
        "before = set(sys.modules); from causalclip.runs import train;"
        "train.plugin.register_all()",
    ],
)
def test_a_start_imports_nothing_heavy_that_it_may_not_need(imports):
    code = f"import sys; before = set(); {imports}; print(*set(sys.modules) - before)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert set(done.stdout.split()) & HEAVY == set()
