"""CDC's settings, with defaults as close as possible to what is published, and its views.

[paper] marks what the paper's abstract states, [second-hand] what others report of its tables, and
[TMC] what comes from trusted multi-view classification, on which it builds. The rest is ours.
Values that were chosen by experiments are in the `tuned` recipes (configs/trainers/CDC).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn
from torchvision import transforms as T
from torchvision.transforms import InterpolationMode

from causalclip.cdc.evidence import FUSIONS, EvidenceKind, FusionName

# Each template gets its own view of the image. The paper compares two sets of views; the second set
# adds a random crop to each family. The transforms are not published. These are ours: transforms of
# the PIL image, and of the normalised tensor.
FAMILIES: dict[str, tuple[list[nn.Module], list[nn.Module]]] = {
    "flip_crop": ([T.RandomHorizontalFlip()], []),
    "crop": ([], []),
    "color_jitter": ([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], []),
    "gray_blur": ([T.RandomGrayscale(0.5), T.GaussianBlur(3, (0.1, 2.0))], []),
    "perspective_erasing": ([T.RandomPerspective(0.3, p=0.5)], [T.RandomErasing(p=0.5)]),
    "plain": ([], []),
}
PUBLISHED_VIEWS = ("flip_crop", "color_jitter", "gray_blur", "perspective_erasing")
CROPPED = ("flip_crop", "crop")
AS_CONFIGURED = "as_configured"  # no family: the transform that INPUT.TRANSFORMS describes

Vision = Literal["coupled", "independent", "none"]
Learn = Literal["all", "tokens"]
NoiseScale = Literal["absolute", "relative"]
EvidenceOffset = Literal["image", "training"]
Loss = Literal["trusted", "cross_entropy", "base"]
Reduction = Literal["mean", "sum"]
DiversityOf = Literal["features", "residuals"]


@dataclass(frozen=True, kw_only=True)
class CDCConfig:
    """M templates with L = L_cls + beta L_de + gamma L_con, and the fusion of their answers.

    Raises:
        ValueError: settings that exclude each other; quotes the fields in backticks.
    """

    n_templates: int = 4
    """Number of templates M; each represents one semantic [second-hand]."""
    n_ctx: int = 2
    """Number of learned tokens of a template."""
    ctx_init: str = "a photo of a"
    """Words that the tokens start from; empty for a random start."""
    prompt_depth: int = 9
    """Number of transformer blocks with prompts."""
    base: str = ""
    """Prompt method of each template, with that method's settings; empty: prompts as in vision."""
    vision: Vision = "coupled"
    """Image prompts: MaPLe's coupled ones, IVLP's in both encoders, or none."""
    share_projections: bool = False
    """With coupled: share one text-to-image projection per depth among the templates."""
    learn: Learn = "all"
    """With coupled: tokens freezes the projections as initialised [second-hand]."""
    image_projection: float = 0.0
    """Scale of the change of CLIP's image projection that each template learns; 0: none [ours]."""
    projection_weight: float = 0.0625
    """Weight of the squared changes in the loss; 1 / 16 is ProLIP's value at 16 shots [ours]."""
    # Equal templates would give L_de no gradient.
    init_noise: float = 0.1
    """Standard deviation of the noise that separates the templates at the start."""
    noise_scale: NoiseScale = "relative"
    """Unit of init_noise; relative: the words' own standard deviation, about 0.02."""
    views: tuple[str, ...] = PUBLISHED_VIEWS
    """Augmentation families, one per template [second-hand]; as_configured: INPUT.TRANSFORMS."""
    crop_all_views: bool = False
    """Crop at random in every family: the second augmentation set [second-hand]."""
    evidence: EvidenceKind = "exp"
    """Function from logits to evidence; softplus is [TMC]'s."""
    evidence_offset: EvidenceOffset = "training"
    """Offset of the logits: the image's mean, or the training images' mean zero-shot logit."""
    loss: Loss = "trusted"
    """Loss of an opinion: trusted [paper, TMC], plain cross_entropy of a softmax, or the base's."""
    loss_reduction: Reduction = "sum"
    """Reduction over the opinions: sum [TMC], or mean, which scales the loss by 1 / (M + 1)."""
    fused_loss: bool = True
    """Add the loss of the fused answer to the templates' losses [TMC]."""
    kl_weight: float = 0.0
    """Weight of the KL term; 1 in [TMC], but at CLIP's scale it would dominate."""
    kl_epochs: int = 0
    """Number of epochs over which kl_weight grows linearly [TMC]; 0: constant."""
    fusion: FusionName = "dempster"
    """Rule that fuses the templates; dempster is [TMC]'s, probabilities and logits are means."""
    discount: float | Literal["fit", "geometric"] | None = None
    """For discounted: eta in [1/M, 1]; None or geometric: 1/M; fit: from the validation split."""
    beta: float = 0.1
    """Weight of L_de on text features."""
    beta_image: float | None = None
    """Weight of L_de on image features; None: as beta."""
    diversity_of: DiversityOf = "features"
    """Vectors that L_de separates; residuals are unit features minus CLIP's own."""
    gamma: float = 5.0
    """Weight of L_con between the features of learned and hand-crafted texts."""
    gamma_image: float | None = 0.0
    """Weight of L_con between image features and the frozen tower's; None: as gamma."""

    anchors: tuple[str, ...] = ()
    """Texts with {} that replace t^0 in L_con and residuals, one per template; () is t^0."""

    def __post_init__(self) -> None:
        """Raise ValueError for settings that exclude each other."""
        if self.anchors and len(self.anchors) != self.n_templates:
            raise ValueError(
                f"`anchors` must be empty or one for each of `n_templates` {self.n_templates}, "
                f"got {len(self.anchors)}"
            )
        if wrong := [anchor for anchor in self.anchors if anchor.count("{}") != 1]:
            raise ValueError(f"`anchors` must each hold one {{}}, got {wrong[0]!r}")
        self._check_fusion()
        self._check_weights()
        if self.crop_all_views and AS_CONFIGURED in self.views:
            raise ValueError(
                f"`crop_all_views` must be False where `views` holds {AS_CONFIGURED}, whose crop "
                "is that of INPUT.TRANSFORMS, got True"
            )

    @property
    def regularised(self) -> bool:
        """Whether L_de or L_con has a weight other than 0."""
        return any((self.beta, self.gamma, *self.image_weights))

    @property
    def compares_images(self) -> bool:
        """Whether L_con or L_de needs image features of the frozen tower."""
        beta, gamma = self.image_weights
        return bool(gamma or (beta and self.diversity_of == "residuals"))

    @property
    def image_weights(self) -> tuple[float, float]:
        """Weights of L_de and L_con on image features; 0 without image prompts."""
        if self.vision == "none":
            return 0.0, 0.0
        beta = self.beta if self.beta_image is None else self.beta_image
        gamma = self.gamma if self.gamma_image is None else self.gamma_image
        return beta, gamma

    def _check_fusion(self) -> None:
        eta, least = self.discount, 1 / self.n_templates
        if isinstance(eta, (int, float)) and eta < least:
            allowed = f"None or geometric, fit or a number in [{least:g}, 1]"
            raise ValueError(f"`discount` must be {allowed}, got {eta}")
        no_opinion = FUSIONS[self.fusion].evidence is None
        if self.loss == "trusted" and self.fused_loss and no_opinion:
            kind = f"`loss` is trusted and `fusion` is {self.fusion}, which gives no opinion"
            raise ValueError(f"`fused_loss` must be False where {kind}, got True")
        if self.loss == "base" and not self.base:
            raise ValueError("`base` must name a prompt method where `loss` is base, got ''")
        if self.loss == "base" and self.fused_loss:
            raise ValueError("`fused_loss` must be False where `loss` is base, got True")

    def _check_weights(self) -> None:
        if (weight := self.kl_weight) and self.loss != "trusted":
            raise ValueError(f"`kl_weight` must be 0 where `loss` is {self.loss}, got {weight}")
        for name in ("beta_image", "gamma_image"):
            # without image prompts no learned parameter changes the image features
            if self.vision == "none" and (weight := getattr(self, name)):
                raise ValueError(f"`{name}` must be 0 where `vision` is none, got {weight}")
        if self.image_projection and (self.base or self.vision == "none"):
            where = f"`base` is {self.base}" if self.base else "`vision` is none"
            raise ValueError(
                f"`image_projection` must be 0 where {where}, got {self.image_projection}"
            )


def family_view(
    family: str,
    size: Sequence[int],
    *,
    interpolation: str = "bicubic",
    mean: Sequence[float],
    std: Sequence[float],
    crop_scale: Sequence[float] = (0.08, 1.0),
    crop_all: bool = False,
) -> T.Compose:
    """Return the training transform of a family, PIL image to normalised tensor (3, H, W).

    `crop_all` is the paper's second set: a random resized crop in every family.
    """
    mode = InterpolationMode[interpolation.upper()]
    on_image, on_tensor = FAMILIES[family]
    if crop_all or family in CROPPED:
        sized = [T.RandomResizedCrop(size, scale=tuple(crop_scale), interpolation=mode)]
    else:  # as in tests: keep the aspect ratio and crop the centre
        sized = [T.Resize(max(size), interpolation=mode), T.CenterCrop(size)]
    return T.Compose([*sized, *on_image, T.ToTensor(), T.Normalize(mean, std), *on_tensor])
