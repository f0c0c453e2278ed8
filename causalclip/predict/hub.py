"""Trained models in folders and on the Hugging Face Hub: safetensors, JSON and a model card."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import yaml

from causalclip.data.hub import HUB_NAME, import_hub, snapshot
from causalclip.engine.checkpoint_file import PRETRAINED_FILE, shown_backbone, write_pretrained
from causalclip.errors import UserError
from causalclip.files.atomic import replacing
from causalclip.predict.trained import read_result
from causalclip.records.results import RESULTS_FILE, Result

if TYPE_CHECKING:
    from causalclip.predict.predictor import Predictor

FILES = (RESULTS_FILE, PRETRAINED_FILE)
"""The only files that are downloaded."""
CARD_METRICS = ("accuracy", "ece", "nll", "brier")
MODEL_CARD = """---
{metadata}---

# {method} on {data}

A model of causalclip: {method} adapted the CLIP `{backbone}` to {count} classes, with {shots}
images a class of {data} (seed {seed}). The weights of the CLIP are not in it.

```python
from causalclip import Predictor

predictor = Predictor.from_pretrained("{name}"{argument})
predictor("picture.jpg")[0].classname
```

Classes: {classes}

| {split} | {figures} |
|---|{rule}|
| {images} images | {values} |

Command: `{command}`

Settings:

```yaml
{settings}```
"""


def save_pretrained(predictor: Predictor, folder: str | os.PathLike, name: str = "") -> None:
    """Write model.safetensors, results.json, run.json and a model card; see `Predictor`."""
    trainer, folder = predictor.trainer, Path(folder)
    if trainer.settings.get("PROJECTION"):
        raise ValueError(
            f"a model that reads {trainer.settings.PROJECTION} cannot be passed on alone"
        )
    directory = str(predictor.folder)
    checkpoints = {key: c for key, c, _ in trainer.checkpointer.checkpoints(directory, None)}
    folder.mkdir(parents=True, exist_ok=True)
    write_pretrained(folder / PRETRAINED_FILE, checkpoints)
    record = json.loads((predictor.folder / RESULTS_FILE).read_text(encoding="utf-8"))
    model = record["config"]["MODEL"]["BACKBONE"]
    record["backbone"] = model["NAME"] = shown_backbone(model["NAME"])
    record["config"]["DATASET"]["ROOT"] = record["config"]["OUTPUT_DIR"] = ""
    _write(folder / RESULTS_FILE, json.dumps(record, indent=1))
    is_file = Path(trainer.cfg.MODEL.BACKBONE.NAME).is_file()
    card = _card(read_result(folder), name or folder.name, needs_backbone=is_file)
    _write(folder / "README.md", card)


def _write(path: Path, text: str) -> None:
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def _card(result: Result, name: str, *, needs_backbone: bool) -> str:
    metadata = {
        "library_name": "causalclip",
        "pipeline_tag": "zero-shot-image-classification",
        "tags": ["clip", "prompt-learning", result.trainer],
    }
    node = {key: value for key, value in result.config["TRAINER"].items() if key != "NAME"}
    own = next((key for key in node if key == result.trainer.upper()), None)
    settings = {
        "OPTIM": result.config.get("OPTIM", {}),
        "TRAINER": {own: node[own]} if own else {},
    }
    figures = [key for key in CARD_METRICS if key in result.metrics]
    return MODEL_CARD.format(
        metadata=yaml.safe_dump(metadata),
        method=result.trainer,
        data=result.dataset,
        backbone=result.backbone,
        count=len(result.classnames),
        shots=result.shots if result.shots > 0 else "all",
        seed=result.seed,
        name=name,
        argument=f', backbone="{result.backbone}"' if needs_backbone else "",
        classes=", ".join(result.classnames),
        split=result.split,
        figures=" | ".join(figures),
        rule="---|" * (len(figures) - 1) + "---",
        images=result.evaluation.get("images", ""),
        values=" | ".join(f"{result.metrics[key]:.4g}" for key in figures),
        command=shlex.join(result.command),
        settings=yaml.safe_dump(settings),
    )


def push_to_hub(
    predictor: Predictor, name: str, *, private: bool | None = None, token: str | None = None
) -> str:
    """Upload what `save_pretrained` writes; return the address. See `Predictor.push_to_hub`."""
    api = import_hub().HfApi(token=token)
    with TemporaryDirectory() as folder:
        save_pretrained(predictor, folder, name)
        api.create_repo(name, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=name, folder_path=folder))


def local_folder(place: str | os.PathLike, revision: str | None = None) -> Path:
    """Return the path `place`; if it does not exist, the downloaded hub model `owner/name`.

    Raises:
        UserError: the hub has no such model of causalclip's, or cannot be reached.
    """
    name = str(place)
    if Path(place).exists() or not HUB_NAME.fullmatch(name):
        return Path(place)
    folder = snapshot(name, "model", revision, FILES)
    for file in FILES:
        if not (folder / file).is_file():
            raise UserError(f"{name} on the hub is no model of causalclip: no {file}")
    return folder
