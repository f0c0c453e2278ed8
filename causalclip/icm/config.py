"""CLIP-ICM's settings. [paper] and [code] mark published choices; all other choices are ours."""

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
    """Settings of the pairs, of the choice of the invariant subspace, and of its classifiers.

    Raises:
        ValueError: settings that exclude each other; quotes the fields in backticks.
    """

    interventions: Interventions = "IMAGE"
    """Pairs to use. IMAGE: two images; TEXT: two texts; BOTH of these; CROSS: an image and a text;
    FIGURE: IMAGE and CROSS [code]."""
    text_weight: float = 0.5
    """Share of the total weight that pairs with a text get, under BOTH and FIGURE."""
    probe_texts: bool = True
    """Use pairs with a text for the probe's subspace too; False: image pairs only, if any."""
    remove_gap: bool = False
    """Subtract the mean difference of images and texts from CROSS pairs."""
    captions: str = ""
    """JSON file of captions and rewrites; empty: a grid of classes and attributes."""
    captions_too_long: TooLong = "error"
    """Captions longer than the context: raise an error, or cut them and print how many."""
    kinds: tuple[ImageKind, ...] = IMAGE_KINDS
    """Kinds of intervention on images [code]."""
    strength: float = 1.0
    """Factor on the default strengths of the interventions."""
    against: Against = "image"
    """Compare an intervention with the original image, or with other interventions on it."""
    draws: int = 0
    """Interventions per image; 0: enough for four pairs per dimension, at least one."""
    twins: bool = False
    """Use the data set's exact twins (CausalShapes) in place of interventions."""
    select: Select = "lodo"
    """Choose from the grid on left-out source domains (lodo) or on left-out images; fixed: use
    ESTIMATOR, LAM or EPS, and DIM_INV."""
    select_new: SelectNew = "same"
    """Subspace for classes outside the fit. same: that of the fit; classes: one chosen on held-out
    training classes; combined: the mean logits of plain features and both subspaces."""
    class_folds: int = 0
    """Number of groups of training classes to hold out in turn for SELECT_NEW; 0: at most five
    groups, of two classes or more."""
    estimator: Estimator = "generalized"
    """Estimator of the subspace; difference is that of the published code's figure."""
    lam: float = 1.0
    """Strength lambda of the difference estimator."""
    eps: float = 0.3
    """Strength eps of the generalized estimator."""
    dim_inv: int = 0
    """Dimension k of the subspace, if SELECT is fixed."""
    grid_estimators: tuple[Estimator, ...] = ("difference", "generalized")
    """Estimators of the grid."""
    grid_lams: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0)
    """Values of lambda in the grid."""
    grid_eps: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    """Values of eps in the grid."""
    grid_dims: tuple[float, ...] = (0.125, 0.15625, 0.1875, 0.25, 0.375, 0.5, 0.75, 1.0)
    """Dimensions of the grid as shares of the feature width; 1 keeps the plain features."""
    # RULE and SELECT_MARGIN were chosen on held-out sources (docs/clip_icm_results.md).
    rule: Rule = "one_standard_error"
    """Choose the widest cell within one standard error of the best mean accuracy; best: the cell
    of the best mean; worst_case: the cell whose worst source is best."""
    select_margin: float = 1.0
    """Standard errors by which the choice must beat the plain features, or they are kept; 0: keep
    the choice without this and the next two tests."""
    select_images: int = 20
    """Images that each left-out source must have, at least 2, or the plain features are kept."""
    select_above_chance: float = 8.0
    """Points above chance that plain features must reach on left-out sources, or they are kept."""
    select_probe: SelectProbe = "ridge"
    """Classifier that scores the probe's grid; logistic is the probe itself, and slow."""
    bootstrap: int = 0
    """Resamples of the images, to estimate how far the subspace turns; 0: none."""
    keep: Keep = "invariant"
    """Keep the largest eigenvalues; reference: keep the smallest, as the published code does."""
    normalize: bool = True
    """L2-normalise features before their moments are taken; the published code does not."""
    orthonormal: bool = True
    """Make the basis orthonormal; False: scale generalized eigenvectors by the interventions."""
    normalize_projected: bool = True
    """Classify by the cosine in the subspace [paper]; False: by the dot product [code]."""
    head: Head = "zeroshot"
    """Classifier that gives the main result of the run."""
    probe: bool = True
    """Fit the linear probes."""
    c: float = 0.316
    """Inverse strength of the probe's L2 penalty [code]."""
    max_iter: int = 1000
    """Maximum number of iterations of the probe's fit [code]."""

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
        """The classifiers, each of which gets its own subspace."""
        return ICM_HEADS if self.probe else ICM_HEADS[:1]

    def n_class_groups(self, n_classes: int) -> int:
        """Return the number of groups of training classes to hold out; 1: too few classes."""
        return self.class_folds or max(1, min(MOST_CLASS_GROUPS, n_classes // 2))

    def uses_texts(self, head: Subspace) -> bool:
        """Return whether pairs with a text are used to estimate a subspace."""
        return head != "linear_probe" or self.probe_texts or not self.image_pairs
