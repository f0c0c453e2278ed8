"""CLIP-ICM's settings. [paper] and [code] mark what was published, the rest is ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from causalclip.icm.interventions import IMAGE_KINDS, ImageKind
from causalclip.icm.projection import Estimator, Keep

Against = Literal["image", "draws"]
Interventions = Literal["IMAGE", "TEXT", "BOTH", "CROSS", "FIGURE"]
TooLong = Literal["error", "cut"]
Select = Literal["lodo", "images", "fixed"]
SelectNew = Literal["same", "classes", "combined"]
Rule = Literal["best", "one_standard_error", "worst_case"]
SelectProbe = Literal["ridge", "logistic"]
Head = Literal["zeroshot", "linear_probe"]
Subspace = Literal["zeroshot", "linear_probe", "new_classes"]
ICM_HEADS: tuple[Head, ...] = get_args(Head)
MOST_CLASS_GROUPS = 5  # [ours]


@dataclass(frozen=True, kw_only=True)
class ICMConfig:
    """Which pairs the invariant subspace is estimated from, how it is chosen, how it classifies.

    Raises:
        ValueError: settings that exclude each other; quotes the fields in backticks.
    """

    interventions: Interventions = "IMAGE"
    """Pairs of images, texts, BOTH; of an image and a text; FIGURE: IMAGE and CROSS [code]."""
    text_weight: float = 0.5
    """Total weight of pairs with a text under BOTH and FIGURE."""
    probe_texts: bool = True
    """Count pairs with a text for the probe's subspace; False: image pairs alone, if any."""
    remove_gap: bool = False
    """Subtract the mean difference of images and texts from CROSS pairs."""
    captions: str = ""
    """JSON file of captions and rewrites; empty: a grid of classes and attributes."""
    captions_too_long: TooLong = "error"
    """Captions above the context length: an error, or cut them and print how many."""
    kinds: tuple[ImageKind, ...] = IMAGE_KINDS
    """Kinds of intervention on images [code]."""
    strength: float = 1.0
    """Factor on the default strengths of the interventions."""
    against: Against = "image"
    """Compare an intervention with the image, or with the image's other draws."""
    draws: int = 0
    """Interventions per image; 0: as many as give four pairs a dimension, at least one."""
    twins: bool = False
    """Use the data set's exact twins (CausalShapes) in place of interventions."""
    select: Select = "lodo"
    """Choose from the grid on left-out source domains or on left-out images, or take ESTIMATOR,
    LAM, EPS and DIM_INV as they are."""
    select_new: SelectNew = "same"
    """Subspace for classes outside the fit: the same, one chosen on held-out training classes, or
    the mean logits of plain features and both subspaces."""
    class_folds: int = 0
    """Groups of training classes that are held out in turn for SELECT_NEW; 0: at most five, of two
    classes or more."""
    estimator: Estimator = "generalized"
    """Estimator of the subspace; difference is the code's figure."""
    lam: float = 1.0
    """Strength lambda of difference."""
    eps: float = 0.3
    """Strength eps of generalized."""
    dim_inv: int = 0
    """Dimension k of the subspace."""
    grid_estimators: tuple[Estimator, ...] = ("difference", "generalized")
    """Estimators of the grid."""
    grid_lams: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0)
    """Values of lambda in the grid."""
    grid_eps: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    """Values of eps in the grid."""
    grid_dims: tuple[float, ...] = (0.125, 0.15625, 0.1875, 0.25, 0.375, 0.5, 0.75, 1.0)
    """Dimensions of the grid as shares of the feature width; 1 keeps the plain features."""
    # This and the next were chosen on held-out sources (docs/clip_icm_results.md).
    rule: Rule = "one_standard_error"
    """Take the widest cell within one standard error of the best, the best in the mean, or that
    with the best worst source."""
    select_margin: float = 1.0
    """Standard errors that the choice must gain over the plain features; 0: any gain."""
    select_images: int = 20
    """Images that each left-out source must have; below, the plain features stay; 0: any."""
    select_above_chance: float = 8.0
    """Points above chance that the plain features must reach on left-out sources, or they stay."""
    select_probe: SelectProbe = "ridge"
    """Classifier that scores the probe's grid; logistic is the probe itself, and slow."""
    bootstrap: int = 0
    """Resamples of the images for the angles' quantiles; 0: none."""
    keep: Keep = "invariant"
    """End of the spectrum that is kept; reference is the published code's."""
    normalize: bool = True
    """L2-normalise features before their moments are taken; the code does not."""
    orthonormal: bool = True
    """False: generalized eigenvectors are scaled by the interventions."""
    normalize_projected: bool = True
    """Cosine in the subspace [paper]; False: dot product [code]."""
    head: Head = "zeroshot"
    """Reading that the run is judged by."""
    probe: bool = True
    """Fit the linear probes."""
    c: float = 0.316
    """Inverse strength of the probe's L2 penalty [code]."""
    max_iter: int = 1000
    """Iterations of the probe's fit [code]."""

    def __post_init__(self) -> None:
        """Refuse settings that exclude each other."""
        kind = self.interventions
        if self.head == "linear_probe" and not self.probe:
            raise ValueError("`head` linear_probe needs `probe` True, got False")
        if self.class_folds == 1:
            raise ValueError("`class_folds` must be 0 or at least 2, got 1")
        if self.remove_gap and not self.crosses:
            raise ValueError(f"`remove_gap` needs `interventions` CROSS or FIGURE, got {kind}")
        if self.against == "draws" and (self.draws == 1 or self.twins):
            raise ValueError(
                "`against` draws needs `draws` 0 or above 1 and `twins` False, "
                f"got {self.draws}, {self.twins}"
            )
        if self.bootstrap and not self.image_pairs:
            pairs = "`interventions` IMAGE, BOTH or FIGURE"
            raise ValueError(f"`bootstrap` needs image pairs, {pairs}, got {kind}")

    @property
    def image_pairs(self) -> bool:
        """Whether there are pairs of two images."""
        return self.interventions in ("IMAGE", "BOTH", "FIGURE")

    @property
    def crosses(self) -> bool:
        """Whether there are pairs of an image and a text."""
        return self.interventions in ("CROSS", "FIGURE")

    @property
    def heads(self) -> tuple[Head, ...]:
        """The classifiers that get a subspace of their own."""
        return ICM_HEADS if self.probe else ICM_HEADS[:1]

    def n_class_groups(self, n_classes: int) -> int:
        """Return how many groups of training classes are held out in turn; 1: too few classes."""
        return self.class_folds or max(1, min(MOST_CLASS_GROUPS, n_classes // 2))

    def uses_texts(self, head: Subspace) -> bool:
        """Return whether pairs with a text count for a subspace."""
        return head != "linear_probe" or self.probe_texts or not self.image_pairs
