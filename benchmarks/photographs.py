"""The photographs for recipes.py: classes of photos200, edited so that its CLIP has to adapt."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageOps


def make_photos(source: Path, data: Path) -> None:
    """Write the worlds of photographs below `data`, each with every fifth class of photos200.

    The edits were fixed before any method was run.
    """
    folders = sorted(path for path in source.iterdir() if path.is_dir())
    for name, (first, change) in PHOTOS.items():
        for folder in folders[first::5]:
            (data / name / folder.name).mkdir(parents=True, exist_ok=True)
            for file in sorted(folder.iterdir()):
                changed = change(Image.open(file).convert("RGB"))
                changed.save(data / name / folder.name / f"{file.stem}.png")


def square(image: Image.Image) -> Image.Image:
    """Return the image with its channels rotated (g, b, r)."""
    red, green, blue = image.split()
    return Image.merge("RGB", (green, blue, red))


def portrait(image: Image.Image) -> Image.Image:
    """Return `square` of the image, cut to 3:4 and posterised to three bits."""
    width, height = image.size
    left = width // 8
    return ImageOps.posterize(square(image).crop((left, 0, left + 3 * width // 4, height)), 3)


def landscape(image: Image.Image) -> Image.Image:
    """Return the image with its channels rotated (b, r, g), cut to 4:3."""
    width, height = image.size
    top = height // 8
    return square(square(image)).crop((0, top, width, top + 3 * height // 4))


def grey(image: Image.Image) -> Image.Image:
    """Return the image without its colours."""
    return ImageOps.grayscale(image).convert("RGB")


PHOTOS = {
    "photos_square": (0, square),
    "photos_portrait": (0, portrait),
    "photos_landscape": (2, landscape),
    "photos_grey": (3, grey),
}
"""Index of the first class and the edit of an image, for each world of photographs."""
