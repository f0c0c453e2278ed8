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
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

import causalclip
from causalclip import Predictor
from causalclip.records.predictions import Predictions

DATA = os.environ.get("DATA", "data")
OUTPUT = Path(os.environ.get("OUTPUT", "output/example"))
BASE, NEW = ({"DATASET.SUBSAMPLE_CLASSES": half} for half in ("base", "new"))

# %% [markdown]
# ## Train
#
# The base classes are zero to four. `data` may as well be a folder of your own images; the log of
# each training is in its folder.

# %%
trained = {
    method: causalclip.train(
        method,
        data="handwritten_digits",
        backbone="tiny",
        shots=4,
        root=DATA,
        output=OUTPUT / method,
        settings=BASE,
    )
    for method in ("CoOp", "CDC")
}
trained["CDC"]

# %% [markdown]
# ## Compare
#
# The new classes are five to nine, which no prompt has seen: a run's folder takes other names.

# %%
names = ["five", "six", "seven", "eight", "nine"]
for method, predictor in trained.items():
    base = predictor.evaluate()
    other = Predictor.load(predictor.folder, classes=names)
    new = other.evaluate("handwritten_digits", root=DATA, settings=NEW)
    print(
        f"{method:5} accuracy on base classes {base['accuracy']:.1f}, on new ones "
        f"{new['accuracy']:.1f}; calibration error {base['ece']:.1f} and {new['ece']:.1f}"
    )

# %% [markdown]
# ## Predict
#
# Paths, PIL images, NumPy and torch arrays; `Predictor.load` reads a run's folder again.

# %%
predictor = trained["CDC"]
tested = Predictions.read(predictor.folder / "predictions.npz")
pictures = tested.arrays["path"][::60].tolist()
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
own = Predictor.load(predictor.folder, classes=["seven", "eight", "a face"])
(answer,) = own(np.asarray(Image.open(pictures[0])))
print(answer.top(3))

# %% [markdown]
# Above which uncertainty must it be silent for at most 5 % of its answers to be wrong? The
# validation split says so.

# %%
print(predictor.threshold(5))

# %% [markdown]
# ## Explain
#
# Orange patches speak for the class, purple ones against it; every template looks for itself.

# %%
predictor.explain(pictures[0]).save(OUTPUT / "explained.png")
Image.open(OUTPUT / "explained.png")

# %% [markdown]
# ## Plot
#
# The error among the most certain answers: a good uncertainty puts the mistakes to the right.

# %%
figure = Figure(figsize=(5, 3.2), layout="constrained")
axes = figure.subplots()
for method in trained:
    seen = Predictions.read(OUTPUT / method / "predictions.npz")
    wrong = seen.arrays["prediction"] != seen.arrays["label"]
    order = np.argsort(seen.uncertainty(), kind="stable")
    answered = np.arange(1, len(order) + 1)
    axes.plot(100 * answered / len(order), 100 * wrong[order].cumsum() / answered, label=method)
axes.set(xlabel="answered, the most certain first (%)", ylabel="wrong among them (%)")
axes.legend()
figure.savefig(OUTPUT / "risk_coverage.png", dpi=100)
Image.open(OUTPUT / "risk_coverage.png")
