"""The texts that stand for a class where no method learns them: a template, or sentences of a file.

The file is a JSON object of lists of sentences by class name, the format of CuPL's public files
(Pratt et al., ICCV 2023): {"tench": ["A tench is a ...", ...], ...}.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor
from yacs.config import CfgNode

from causalclip.clip.interface import Tokenizer, backbone_of
from causalclip.clip.texts import ClassTokens, readable, template_tokens
from causalclip.clip.zeroshot import IMAGENET_TEMPLATES_SELECT, class_features, mean_text_features
from causalclip.data.catalogue import dataset_template, given_template
from causalclip.files.caches import NotJSONError, read_json

if TYPE_CHECKING:
    from causalclip.engine import CLIPTrainer


def handcrafted_features(
    trainer: CLIPTrainer, templates: Sequence[str], names: Sequence[str] | None = None
) -> Tensor:
    """Return frozen CLIP's unit features (K, E) of K class names, by default the trainer's.

    Means over the sentences of DATASET.DESCRIPTIONS, or over `templates` without such a file or
    where the method's own TEMPLATE is set.

    Raises:
        ValueError: as `load_descriptions`.
    """
    names = trainer.classnames if names is None else names
    if (sentences := descriptions_of(trainer, names)) is None:
        return class_features(trainer.clip, names, templates)
    return mean_text_features(trainer.clip, sentences)


def templated_texts(trainer: CLIPTrainer, names: Sequence[str]) -> ClassTokens:
    """Return K class names in the method's TEMPLATE, else the data set's prompt, as tokens (K, L).

    Raises:
        ValueError: a text that is too long.
    """
    template = trainer.settings.TEMPLATE or dataset_template(trainer.cfg)
    backbone = backbone_of(trainer.clip)
    length, tokenizer = backbone.context_length, backbone.tokenizer
    texts = template_tokens(names, template, context_length=length, tokenizer=tokenizer)
    return texts.to(trainer.device)


def descriptions_of(
    trainer: CLIPTrainer, names: Sequence[str] | None = None
) -> list[list[str]] | None:
    """Return the sentences of each class name, or None where the template counts.

    Raises:
        ValueError: as `load_descriptions`.
    """
    path = trainer.cfg.DATASET.get("DESCRIPTIONS", "")
    if not path or trainer.settings.get("TEMPLATE", ""):
        return None
    backbone = backbone_of(trainer.clip)
    names = trainer.classnames if names is None else names
    return load_descriptions(path, names, backbone.tokenizer, backbone.context_length)


def load_descriptions(
    path: str | Path, classnames: Sequence[str], tokenizer: Tokenizer, context_length: int
) -> list[list[str]]:
    """Read the sentences of each of K classes; names match without regard to case and `_`.

    The file may have further classes, as for one half of a data set.

    Raises:
        ValueError: no such JSON, a class without sentences, none of the classes at all, or a
            sentence longer than the context; names the class.
    """
    where = f"DATASET.DESCRIPTIONS {path}"
    try:
        content = read_json(Path(path))
    except (OSError, NotJSONError) as error:
        raise ValueError(f"{where} must be a UTF-8 JSON file: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{where} must hold an object of lists, got {type(content).__name__}")
    by_name: dict[str, list[str]] = {}
    for name, sentences in content.items():
        if _key(name) in by_name:
            raise ValueError(f"{where} must describe a class once, got {name!r} again")
        by_name[_key(name)] = sentences
    missing = [name for name in classnames if _key(name) not in by_name]
    if len(missing) == len(classnames):
        raise ValueError(
            f"{where} describes other classes ({_first(list(content))}) than those of this run "
            f"({_first(classnames)}): is it of another data set?"
        )
    if missing:
        raise ValueError(
            f"{where} must describe every class, got none of {len(missing)}: {_first(missing)}"
        )
    described = [by_name[_key(name)] for name in classnames]
    for name, sentences in zip(classnames, described, strict=True):
        _check_sentences(sentences, f"{where}, class {name!r}", tokenizer, context_length)
    return described


def published_templates(cfg: CfgNode) -> Sequence[str]:
    """Return the template of the data set; for ImageNet the seven that CLIP's authors chose."""
    if cfg.DATASET.NAME == "ImageNet" and not given_template(cfg):
        return IMAGENET_TEMPLATES_SELECT
    return [dataset_template(cfg)]


def _key(name: str) -> str:
    return readable(name).casefold()


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)


def _check_sentences(sentences: object, where: str, tokenizer: Tokenizer, length: int) -> None:
    if not isinstance(sentences, list) or not sentences:
        raise ValueError(f"{where}: must be a non-empty list of sentences, got {sentences!r:.80}")
    for text in sentences:
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{where}: a sentence must be a non-empty string, got {text!r:.80}")
        if (count := tokenizer.count(text)) > length:
            raise ValueError(
                f"{where}: a sentence may have {length} tokens, got {count}: {text!r:.80}"
            )
