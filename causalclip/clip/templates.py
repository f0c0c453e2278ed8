"""Prompt templates as data: one per data set, and the ensembles of OpenAI's CLIP for ImageNet."""

from __future__ import annotations

DEFAULT = "a photo of a {}."

# The hand-crafted prompts of CoOp's appendix, by the name a data set is registered under. Names
# without a line of their own, the domain generalisation sets among them, take the default.
TEMPLATES: dict[str, str] = {
    "Caltech101": DEFAULT,
    "OxfordPets": "a photo of a {}, a type of pet.",
    "StanfordCars": DEFAULT,
    "OxfordFlowers": "a photo of a {}, a type of flower.",
    "Food101": "a photo of {}, a type of food.",
    "FGVCAircraft": "a photo of a {}, a type of aircraft.",
    "SUN397": DEFAULT,
    "DescribableTextures": "{} texture.",
    "EuroSAT": "a centered satellite photo of {}.",
    "UCF101": "a photo of a person doing {}.",
    "ImageNet": DEFAULT,
    "ImageNetV2": DEFAULT,
    "ImageNetSketch": DEFAULT,
    "ImageNetA": DEFAULT,
    "ImageNetR": DEFAULT,
    "PACS": DEFAULT,
    "VLCS": DEFAULT,
    "OfficeHome": DEFAULT,
    "OfficeHomeDG": DEFAULT,
    "TerraIncognita": DEFAULT,
    "DomainNet": DEFAULT,
    "miniDomainNet": DEFAULT,
    "DigitsDG": "a photo of the number {}.",
    "HandwrittenDigits": "a photo of the number {}.",
    "ColouredDigits": "a photo of the number {}.",
    "CausalShapes": DEFAULT,
}

# CLIP's notebook "Prompt engineering for ImageNet", in its order: the order of a sum of floats.
IMAGENET_TEMPLATES: tuple[str, ...] = (
    "a bad photo of a {}.", "a photo of many {}.", "a sculpture of a {}.",
    "a photo of the hard to see {}.", "a low resolution photo of the {}.",
    "a rendering of a {}.", "graffiti of a {}.", "a bad photo of the {}.",
    "a cropped photo of the {}.", "a tattoo of a {}.", "the embroidered {}.",
    "a photo of a hard to see {}.", "a bright photo of a {}.", "a photo of a clean {}.",
    "a photo of a dirty {}.", "a dark photo of the {}.", "a drawing of a {}.",
    "a photo of my {}.", "the plastic {}.", "a photo of the cool {}.",
    "a close-up photo of a {}.", "a black and white photo of the {}.",
    "a painting of the {}.", "a painting of a {}.", "a pixelated photo of the {}.",
    "a sculpture of the {}.", "a bright photo of the {}.", "a cropped photo of a {}.",
    "a plastic {}.", "a photo of the dirty {}.", "a jpeg corrupted photo of a {}.",
    "a blurry photo of the {}.", "a photo of the {}.", "a good photo of the {}.",
    "a rendering of the {}.", "a {} in a video game.", "a photo of one {}.",
    "a doodle of a {}.", "a close-up photo of the {}.", "a photo of a {}.",
    "the origami {}.", "the {} in a video game.", "a sketch of a {}.",
    "a doodle of the {}.", "a origami {}.", "a low resolution photo of a {}.",
    "the toy {}.", "a rendition of the {}.", "a photo of the clean {}.",
    "a photo of a large {}.", "a rendition of a {}.", "a photo of a nice {}.",
    "a photo of a weird {}.", "a blurry photo of a {}.", "a cartoon {}.", "art of a {}.",
    "a sketch of the {}.", "a embroidered {}.", "a pixelated photo of a {}.",
    "itap of the {}.", "a jpeg corrupted photo of the {}.", "a good photo of a {}.",
    "a plushie {}.", "a photo of the nice {}.", "a photo of the small {}.",
    "a photo of the weird {}.", "the cartoon {}.", "art of the {}.", "a drawing of the {}.",
    "a photo of the large {}.", "a black and white photo of a {}.", "the plushie {}.",
    "a dark photo of a {}.", "itap of a {}.", "graffiti of the {}.", "a toy {}.",
    "itap of my {}.", "a photo of a cool {}.", "a photo of a small {}.", "a tattoo of the {}.",
)  # fmt: skip

# The seven that CLIP's authors found by forward selection.
IMAGENET_TEMPLATES_SELECT: tuple[str, ...] = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)


def template_for(name: str) -> str:
    """Return the template of the data set registered as `name`, by default "a photo of a {}."."""
    return TEMPLATES.get(name, DEFAULT)


def spoken(name: str) -> str:
    """Return a class name, or words of a setting, as they stand in a text: `_` is a space."""
    return name.replace("_", " ")
