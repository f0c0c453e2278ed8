"""The texts of classes: learned words before the class names, or hand-crafted texts.

Hand-crafted texts are a template, or sentences of a file: a JSON object of lists by class name, the
format of CuPL (Pratt et al., ICCV 2023): {"tench": ["A tench is a ...", ...], ...}.
This module also builds the prompts that several trainers share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor
from yacs.config import CfgNode

from causalclip.clip.interface import Tokenizer, backbone_of
from causalclip.clip.openai_clip import CLIPModel
from causalclip.clip.prompts import CoupledPrompts, IndependentPrompts, embed_words
from causalclip.clip.texts import ClassTokens, Position, class_tokens, readable, template_tokens
from causalclip.clip.zeroshot import IMAGENET_TEMPLATES_SELECT, class_features, mean_text_features
from causalclip.data.catalogue import dataset_template, given_template
from causalclip.files.caches import NotJSONError, read_json
from causalclip.settings.constraints import integer

if TYPE_CHECKING:
    from causalclip.engine import CLIPTrainer

# Far above published values (VPT learns up to 200 tokens): a typing error is reported before it
# fills the memory. The loaded backbone sets the exact bounds.
TOKENS = integer(1, 1000)
DEPTH = integer(1, 100)
MAYBE_TOKENS = integer(0, 1000)  # for a tower that may have no prompts
MAYBE_DEPTH = integer(0, 100)


@dataclass(frozen=True)
class Context:
    """The words before the class names, at the start of training."""

    n_ctx: int
    """Number of learned tokens, which replace the first tokens of the words."""
    words: str = ""
    """Words that the tokens are initialized from; empty: random initialization."""
    position: Position = "end"
    template: str = "{}."
    """Text after the words: the class name, perhaps with more words around it."""

    @classmethod
    def of_words(cls, settings: CfgNode, *, position: Position = "end") -> Context:
        """Return CoOp's context: one token per word of CTX_INIT, or N_CTX tokens without words."""
        words = readable(settings.CTX_INIT)
        return cls(len(words.split()) or settings.N_CTX, words, position)

    def start(self, clip: CLIPModel) -> Tensor | None:
        """Return the embeddings (n_ctx, D) of the words; None for random initialization.

        Raises:
            ValueError: words that have fewer tokens than `n_ctx`.
        """
        return embed_words(clip, self.words, self.n_ctx) if self.words and self.n_ctx else None

    def tokens(self, names: Sequence[str], clip: CLIPModel) -> ClassTokens:
        """Return the tokens (K, L) of K class names after these words.

        Raises:
            ValueError: fewer words than `n_ctx`, or a class name that is too long.
        """
        backbone = backbone_of(clip)
        return class_tokens(
            names,
            n_ctx=self.n_ctx,
            prefix=self.words,
            position=self.position,
            template=self.template,
            context_length=backbone.context_length,
            tokenizer=backbone.tokenizer,
        )


def coupled_prompts(clip: CLIPModel, context: Context, *, depth: int) -> CoupledPrompts:
    """Return MaPLe's prompts for a CLIP.

    Raises:
        ValueError: prompts deeper than a tower, no ViT, or fewer words than the context has.
    """
    text, vision = tower_widths(clip, text=depth, vision=depth)
    return CoupledPrompts(context.n_ctx, depth, text, vision, init=context.start(clip))


def independent_prompts(
    clip: CLIPModel, context: Context, *, text_depth: int, n_vision: int, vision_depth: int
) -> IndependentPrompts:
    """Return IVLP's prompts for a CLIP; a tower of 0 tokens and depth 0 has none.

    Raises:
        ValueError: prompts deeper than a tower or on one that takes none, tokens without depth or
            depth without tokens, or fewer words than the context has.
    """
    widths = tower_widths(clip, text=text_depth, vision=vision_depth)
    sizes = (context.n_ctx, n_vision, text_depth, vision_depth)
    return IndependentPrompts(*sizes, *widths, init=context.start(clip))


def tower_widths(clip: CLIPModel, *, text: int, vision: int) -> tuple[int, int]:
    """Return the widths of the text and the image tower, for prompts of these depths.

    Depth 0 is a tower without prompts, whose width is given as 0.

    Raises:
        ValueError: names the tower, its depth and what came.
    """
    backbone = backbone_of(clip)
    asked = (("text", text, backbone.text_tower), ("image", vision, backbone.image_tower))
    towers = [(name, depth, tower() if depth else None) for name, depth, tower in asked]
    for name, depth, tower in towers:
        if tower and depth > len(tower.blocks):
            raise ValueError(
                f"prompt depth must be at most {len(tower.blocks)}, the depth of the {name} tower, "
                f"got {depth}"
            )
    text_width, image_width = (tower.width if tower else 0 for _, _, tower in towers)
    return text_width, image_width


# Hand-crafted texts


def handcrafted_features(
    trainer: CLIPTrainer, templates: Sequence[str], names: Sequence[str] | None = None
) -> Tensor:
    """Return frozen CLIP's unit features (K, E) of K class names, by default the trainer's.

    They are means over the sentences of DATASET.DESCRIPTIONS; without such a file, or if the
    method's own TEMPLATE is set, over `templates`.

    Raises:
        ValueError: as `load_descriptions`.
    """
    names = trainer.classnames if names is None else names
    if (sentences := descriptions_of(trainer, names)) is None:
        return class_features(trainer.clip, names, templates)
    return mean_text_features(trainer.clip, sentences)


def tokens_of(trainer: CLIPTrainer, names: Sequence[str], template: str) -> ClassTokens:
    """Return K class names in a template as tokens (K, L) of the trainer's CLIP, on the CPU.

    Raises:
        ValueError: a text that is too long.
    """
    backbone = backbone_of(trainer.clip)
    length, tokenizer = backbone.context_length, backbone.tokenizer
    return template_tokens(names, template, context_length=length, tokenizer=tokenizer)


def descriptions_of(
    trainer: CLIPTrainer, names: Sequence[str] | None = None
) -> list[list[str]] | None:
    """Return the sentences of each class name; None if a template is used instead.

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

    The file may describe more classes, for example if the run uses half of a data set.

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
