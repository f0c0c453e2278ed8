"""The cells of digits.ipynb, which scripts/example_notebook.py makes of this file."""

# %% [markdown]
# # Train, predict, explain and compare on handwritten digits
#
# Two methods learn to tell the digits zero to four from four images a class, on the small CLIP of
# this repository; no GPU and no download. `examples/digits.py` and `examples/digits.ipynb` have the
# same cells. Environment variables `DATA` and `OUTPUT` say where data and runs go.

# %%
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from causalclip import Predictor
from causalclip.predict.drawing import save
from causalclip.predict.explain import explain
from causalclip.report.predictions import Predictions
from causalclip.report.results import Result

DATA = Path(os.environ.get("DATA", "data"))
OUTPUT = Path(os.environ.get("OUTPUT", "output/example"))
METHODS = {"CoOp": "tiny", "CDC": "tiny_m4"}  # and their configurations
DATA.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Train
#
# The base-to-novel protocol: learn zero to four, then test on five to nine, which no prompt has
# seen.

# %%
command = "run base2new --datasets handwritten_digits --seeds 1 --shots 4 --no-table --methods"
folders = ["--data", str(DATA), "--output", str(OUTPUT)]
subprocess.run(
    [sys.executable, "-m", "causalclip", *command.split(), *METHODS, *folders],
    check=True,
    capture_output=True,
)


def folder(method: str, part: str = "train_base") -> Path:
    """The output folder of a run."""
    place = OUTPUT / "base2new" / part / "handwritten_digits" / "shots_4"
    return place / method / METHODS[method] / "seed1"


# %% [markdown]
# ## Compare

# %%
for method in METHODS:
    base = Result.read(folder(method) / "results.json").metrics
    new = Result.read(folder(method, "test_new") / "results.json").metrics
    print(
        f"{method:5} accuracy on base classes {base['accuracy']:.1f}, on new ones "
        f"{new['accuracy']:.1f}; calibration error {base['ece']:.1f} and {new['ece']:.1f}"
    )

# %% [markdown]
# ## Predict
#
# A run's folder is all that is needed: class names, transform and checkpoint come from it.

# %%
tested = Predictions.read(folder("CDC") / "predictions.npz")
pictures = tested.arrays["path"][::60].tolist()
predictor = Predictor.load(folder("CDC"))
for answer in predictor(pictures):
    votes = " ".join(vote.classname for vote in answer.members["template"])
    print(
        f"{Path(answer.image).parent.name:5} is called {answer.classname:5} "
        f"p {answer.probability:.2f} uncertainty {answer.uncertainty:.2f} "
        f"conflict {answer.extras['conflict']:.2f} | {votes}"
    )

# %% [markdown]
# The same prompts with class names of your own:

# %%
(answer,) = Predictor.load(folder("CDC"), classes=["seven", "eight", "a face"])(pictures[0])
print(answer.top(3))

# %% [markdown]
# Above which uncertainty must it be silent for at most 5 % of its answers to be wrong? The
# validation split says so; for this the data set must be there.

# %%
print(Predictor.load(folder("CDC"), data=str(DATA)).threshold(5))

# %% [markdown]
# ## Explain
#
# Orange patches speak for the class, purple ones against it; every template looks for itself.

# %%
save(explain(predictor, pictures[0]), OUTPUT / "explained.png")
Image.open(OUTPUT / "explained.png")

# %% [markdown]
# ## Plot
#
# The error among the most certain answers: a good uncertainty puts the mistakes to the right.

# %%
figure = Figure(figsize=(5, 3.2), layout="constrained")
axes = figure.subplots()
for method in METHODS:
    seen = Predictions.read(folder(method) / "predictions.npz")
    wrong = seen.arrays["prediction"] != seen.arrays["label"]
    order = np.argsort(seen.uncertainty(), kind="stable")
    answered = np.arange(1, len(order) + 1)
    axes.plot(100 * answered / len(order), 100 * wrong[order].cumsum() / answered, label=method)
axes.set(xlabel="answered, the most certain first (%)", ylabel="wrong among them (%)")
axes.legend()
figure.savefig(OUTPUT / "risk_coverage.png", dpi=100)
Image.open(OUTPUT / "risk_coverage.png")
