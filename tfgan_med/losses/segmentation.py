"""How far predicted masks are from the true ones: overlap of areas, and pixel by pixel.

Targets are masks of 0 and 1, `(batch, height, width, classes)`; logits have their shape and any
precision, the losses are float32 scalars. `exclusive` says that exactly one class holds for each
pixel (softmax over one-hot targets); otherwise every class is a question of its own (sigmoid).
"""

from __future__ import annotations

from typing import Any

from keras import ops

Tensor = Any

_HARDNESS_FLOOR = 1e-7  # keeps the slope of small powers finite where a pixel is certain


def segmentation_loss(
    targets: Tensor,
    logits: Tensor,
    exclusive: bool = False,
    dice: float = 1.0,
    cross_entropy: float = 1.0,
    focal_gamma: float = 0.0,
) -> dict[str, Tensor]:
    """The parts of the usual loss, `dice (1 - Dice) + cross_entropy CE`, weighted, by name.

    Args:
        dice, cross_entropy: weights; a part of weight 0 is left out.
        focal_gamma: of the cross-entropy, see `cross_entropy_loss`.
    Raises:
        ValueError: if the shapes disagree or both weights are 0.
    """
    parts = {}
    if dice:
        parts["dice"] = dice * dice_loss(targets, logits, exclusive)
    if cross_entropy:
        value = cross_entropy_loss(targets, logits, exclusive, focal_gamma)
        parts["cross_entropy"] = cross_entropy * value
    if not parts:
        raise ValueError("A segmentation loss needs dice or cross_entropy above 0: both are 0.")
    return parts


def dice_loss(
    targets: Tensor, logits: Tensor, exclusive: bool = False, smooth: float = 1.0
) -> Tensor:
    """One minus the soft Dice coefficient, 0 to 1.

        L = mean over classes of 1 - (2 Σ t p + s) / (Σ t + Σ p + s)

    The sums run over the whole batch, so that a picture without the object counts its false
    pixels instead of giving 0 or 1; where target and prediction are empty the loss is 0.

    Args:
        smooth: s, in pixels.
    Raises:
        ValueError: if the shapes disagree.
    Source: Milletari et al., arXiv:1606.04797, section 3, with plain sums for squares.
    """
    return tversky_loss(targets, logits, 0.5, 0.5, exclusive, smooth / 2.0)


def tversky_loss(
    targets: Tensor,
    logits: Tensor,
    false_positives: float = 0.3,
    false_negatives: float = 0.7,
    exclusive: bool = False,
    smooth: float = 0.5,
) -> Tensor:
    """Overlap with unequal prices of pixels too many and pixels missed, 0 to 1.

        L = mean over classes of 1 - (TP + s) / (TP + a FP + b FN + s)
        TP = Σ t p,  FP = Σ (1 - t) p,  FN = Σ t (1 - p)

    Args:
        false_positives, false_negatives: a and b; one half each is `dice_loss` of 2 s.
        smooth: s, in pixels.
    Raises:
        ValueError: if the shapes disagree.
    Source: Salehi et al., arXiv:1706.05721, eq. 4. `keras.losses.tversky` has no smoothing: an
        empty mask predicted empty costs 1 there.
    """
    targets, logits = _checked(targets, logits)
    predicted = ops.softmax(logits, axis=-1) if exclusive else ops.sigmoid(logits)
    pixels = tuple(range(len(targets.shape) - 1))
    both = ops.sum(targets * predicted, axis=pixels)
    wanted, found = ops.sum(targets, axis=pixels), ops.sum(predicted, axis=pixels)
    wrong = false_positives * (found - both) + false_negatives * (wanted - both)
    return ops.mean(1.0 - (both + smooth) / (both + wrong + smooth))


def cross_entropy_loss(
    targets: Tensor,
    logits: Tensor,
    exclusive: bool = False,
    focal_gamma: float = 0.0,
    balanced: bool = False,
) -> Tensor:
    """Mean cross-entropy of the pixels, in nats.

        L = E[(1 - p_true)^gamma * -log p_true]

    Args:
        focal_gamma: above 0, pixels that are already right count less.
        balanced: weight 1 and 0 of each class inversely to their share of the batch, for thin
            lines; only without `exclusive`.
    Raises:
        ValueError: if the shapes disagree, or for `balanced` with `exclusive`.
    Source: Lin et al., arXiv:1708.02002, eq. 4 without alpha; the balance of Xie and Tu,
        arXiv:1504.06375, eq. 2.
    """
    if balanced and exclusive:
        raise ValueError("Balanced cross-entropy is defined for independent masks only.")
    targets, logits = _checked(targets, logits)
    if exclusive:
        entropy = ops.categorical_crossentropy(targets, logits, from_logits=True)
    else:
        entropy = ops.binary_crossentropy(targets, logits, from_logits=True)
    if focal_gamma:
        hardness = ops.maximum(1.0 - ops.exp(-entropy), _HARDNESS_FLOOR)
        entropy = entropy * hardness**focal_gamma
    if balanced:
        entropy = entropy * _balance(targets)
    return ops.mean(entropy)


def _balance(targets: Tensor) -> Tensor:
    """Weights of the pixels of each class: the share of the other side, twice, so that equal
    shares weigh 1."""
    share = ops.mean(targets, axis=tuple(range(len(targets.shape) - 1)))
    return 2.0 * (targets * (1.0 - share) + (1.0 - targets) * share)


def _checked(targets: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float32; a ValueError where broadcasting would hide that shapes disagree."""
    sides = zip(targets.shape, logits.shape, strict=False)
    if len(targets.shape) != len(logits.shape) or any(
        wanted is not None and given is not None and wanted != given for wanted, given in sides
    ):
        raise ValueError(
            "A segmentation loss compares maps of one shape: received targets of shape "
            f"{tuple(targets.shape)} and logits of shape {tuple(logits.shape)}."
        )
    return ops.cast(targets, "float32"), ops.cast(logits, "float32")
