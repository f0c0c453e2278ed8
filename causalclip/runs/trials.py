"""Trials of a search for settings: their trainings, their scores, and the study of all trials."""

from __future__ import annotations

import gc
import itertools
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causalclip.errors import UserError, sentence
from causalclip.settings.search import Choice, LogUniform, Shares

if TYPE_CHECKING:
    import optuna
    from yacs.config import CfgNode

    from causalclip.runs.backbones import Start
    from causalclip.runs.data_source import DataSource

LEAST_VALIDATION = 10
"""Fewest validation images: with fewer, one image changes the accuracy by over 10 %."""


@dataclass(frozen=True)
class Search:
    """A search for settings; processes that perform its trials receive it."""

    method: str
    start: Start
    protocol: str
    """fewshot, or base2new: half of the base classes are then used as new classes."""
    sources: tuple[DataSource, ...]
    seeds: tuple[int, ...]
    pairs: Mapping[str, Any]
    """Settings of every trial by key: the shots, and the settings of the command line."""
    folder: Path
    space: Mapping[str, LogUniform | Choice]
    imports: tuple[str, ...] = ()
    """Modules of --import."""

    def cfg(
        self,
        source: DataSource,
        seed: int = 0,
        folder: Path = Path(),
        part: str = "all",
        chosen: Mapping[str, Any] | None = None,
    ) -> CfgNode:
        """Return the frozen configuration of one training of a trial."""
        from causalclip.runs.configuration import cfg_from, check_names

        pairs = {
            "TRAINER.NAME": self.method,
            **source.settings,
            **self.start.fitting,
            **(chosen or {}),
            **self.pairs,
            "DATASET.SUBSAMPLE_CLASSES": part,
            "OUTPUT_DIR": str(folder),
            "SEED": seed,
            "TEST.SPLIT": "val",
            "TRAIN.LOGGERS": [],
        }
        cfg = cfg_from(self.start.files, pairs)
        cfg.freeze()
        check_names(cfg)
        return cfg

    def study(self, number: int = 0) -> optuna.Study:
        """Return the study in the folder; `number` seeds its sampler."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        epochs = self.cfg(self.sources[0]).OPTIM.MAX_EPOCH
        return optuna.create_study(
            storage=f"sqlite:///{self.folder / 'study.sqlite'}",
            study_name=self.method,
            load_if_exists=True,
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=number),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=epochs // 4),
        )


def space_of(kind: Any, cfg: CfgNode, fixed: Mapping[str, Any]) -> dict[str, LogUniform | Choice]:
    """Return a method's search space with complete keys, without the settings that are fixed.

    Raises:
        UserError: no setting is left to choose.
    """
    space: dict[str, LogUniform | Choice] = {}
    for words, values in kind.search_space.items():
        keys = [key if "." in key else f"TRAINER.{kind.config_node}.{key}" for key in words.split()]
        if isinstance(values, Shares):
            recipe = cfg.TRAINER[kind.config_node][words.split()[0]]
            values = values.of(recipe) if recipe > 0 else Choice((recipe,))
        is_fixed = set(keys) & set(fixed) or (isinstance(values, Choice) and len(values.values) < 2)
        if not is_fixed:
            space[" ".join(keys)] = values
    if not space:
        raise UserError(f"{cfg.TRAINER.NAME} has no settings to choose, other than those it fits")
    return space


def choosing_images(search: Search) -> dict[str, dict[str, str]]:
    """Return the digests of the training and validation images to search on, by data set.

    Raises:
        UserError: fewer than `LEAST_VALIDATION` validation images.
    """
    from causalclip.data.split_set import without_test_images
    from causalclip.engine.data import build_seeded_dataset, data_digests

    part, digests = "all" if search.protocol == "fewshot" else "base", {}
    for source in search.sources:
        cfg = search.cfg(source, search.seeds[0], part=part)
        with without_test_images(cfg.DATASET.NAME):
            dataset = build_seeded_dataset(cfg)
        number = len(dataset.val or ())
        if number < LEAST_VALIDATION:
            raise UserError(
                f"tuning needs {LEAST_VALIDATION} validation images or more, {source.name} has "
                f"{number} with NUM_SHOTS {cfg.DATASET.NUM_SHOTS}: add images, or take "
                "more classes or --shots all"
            )
        found = data_digests(dataset, cfg.DATASET.ROOT)
        digests[source.name] = {part: found[part] for part in ("train", "val")}
    return digests


# Trials


def perform_trial(search: Search, number: int) -> None:
    """Perform the next trial of a study and record its score."""
    import optuna

    from causalclip.plugin import register_imports
    from causalclip.runs.worker import as_alone, streams

    register_imports(search.imports)
    study = search.study(number)
    trial = study.ask()
    chosen = {} if trial.user_attrs.get("recipe") else suggested(trial, search.space)
    trial.set_user_attr("settings", chosen)
    steps = itertools.count()

    def report(value: float) -> None:
        trial.report(value, next(steps))
        if trial.should_prune():
            raise optuna.TrialPruned

    folder = search.folder / "trials" / str(trial.number)
    folder.mkdir(parents=True)
    try:
        with as_alone(["tune", search.method]), streams("runs"):
            study.tell(trial, score(search, chosen, folder, report))
    except optuna.TrialPruned:
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    except FloatingPointError as error:
        trial.set_user_attr("error", sentence(error))
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    shutil.rmtree(folder)  # else tables would show its validation results as test results
    gc.collect()


def suggested(
    trial: optuna.Trial, space: Mapping[str, LogUniform | Choice]
) -> dict[str, float | int | str]:
    """Return the settings that a trial tries, by key; drawn numbers are rounded to three digits."""
    chosen = {}
    for words, values in space.items():
        if isinstance(values, LogUniform):
            value = float(f"{trial.suggest_float(words, values.low, values.high, log=True):.3g}")
        else:
            value = trial.suggest_categorical(words, values.values)
        chosen |= dict.fromkeys(words.split(), value)
    return chosen


def score(
    search: Search, chosen: Mapping[str, Any], folder: Path, report: Callable[[float], None]
) -> float:
    """Return the mean score of a trial's settings over data sets and seeds, in per cent.

    Call `report` with the validation accuracy of each epoch and the mean after each training; under
    base2new with the mean only, as the accuracy on trained classes says little about new classes.
    """
    from scipy.stats import hmean

    from causalclip.data.split_set import without_test_images
    from causalclip.runs.train import train

    scores: list[float] = []
    for source, seed in itertools.product(search.sources, search.seeds):
        place = folder / f"{source.name}_{seed}"
        with without_test_images(source.settings["DATASET.NAME"]):
            if search.protocol == "fewshot":
                cfg = search.cfg(source, seed, place, chosen=chosen)
                train(cfg, on_epoch=lambda trainer: report(trainer.test("val")))
                scores.append(_accuracy(place))
            else:
                base, new = place / "base", place / "new"
                train(search.cfg(source, seed, base, "base", chosen))
                cfg = search.cfg(source, seed, new, "new", chosen)
                train(cfg, eval_only=True, model_dir=str(base))
                scores.append(float(hmean([_accuracy(base), _accuracy(new)])))
        report(sum(scores) / len(scores))
    return sum(scores) / len(scores)


def _accuracy(folder: Path) -> float:
    from causalclip.records.results import RESULTS_FILE, Result

    return Result.read(folder / RESULTS_FILE).metrics["accuracy"]


# The search


def begin(search: Search) -> optuna.Study:
    """Return the study with its first trials queued; trials that were stopped are queued again.

    Raises:
        UserError: the folder contains another search, or there are too few validation images.
    """
    import optuna

    from causalclip.records.identity import describe, run_settings, setting_differences

    settings = run_settings(search.cfg(search.sources[0]), "")
    request = {
        **{key: value for key, value in settings.items() if not key.startswith("DATASET.")},
        "seeds": list(search.seeds),
        "data": choosing_images(search),
        "space": {key: repr(values) for key, values in search.space.items()},
    }
    study = search.study()
    before = study.user_attrs.get("request", request)
    if different := setting_differences(before, request, {}):
        said = f"{search.folder} holds another search: {describe(different)}"
        raise UserError(f"{said}. Choose another --output, or delete it")
    if not study.trials:
        study.set_user_attr("request", request)
        study.enqueue_trial({}, user_attrs={"recipe": True})
        for point in points(search.space):
            study.enqueue_trial(point)
    for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(trial.params, user_attrs=trial.user_attrs)
    shutil.rmtree(search.folder / "trials", ignore_errors=True)
    return study


def points(space: Mapping[str, LogUniform | Choice]) -> list[dict[str, Any]]:
    """Return all points of a space; [] if it has a `LogUniform`, whose values are drawn."""
    axes = [
        [(key, value) for value in values.values] if isinstance(values, Choice) else []
        for key, values in space.items()
    ]
    return [dict(point) for point in itertools.product(*axes)]


def ended(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return the trials that have a score, were pruned, or ended in a NaN, in order."""
    states = ("COMPLETE", "PRUNED")
    return [t for t in study.trials if t.state.name in states or "error" in t.user_attrs]
