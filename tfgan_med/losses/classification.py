"""How far a classifier's beliefs are from the classes of the pictures."""

from __future__ import annotations

from typing import Any

from keras import ops

Tensor = Any

_HARDNESS_FLOOR = 1e-7  # keeps the slope of small powers finite where a picture is certain


def classification_loss(
    labels: Tensor,
    logits: Tensor,
    positive: int | None = None,
    weights: Tensor | None = None,
    focal_gamma: float = 0.0,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Weighted mean of the cross-entropy of each picture, in nats, a float32 scalar.

        L = Σ_i w_i l_i / Σ_i w_i,   l = -Σ_c t_c (1 - p_c)^gamma log p_c

    One logit is a yes-or-no question and p the sigmoid: the classes are yes and no. Several
    logits are one for each class, and p is their softmax.

    Args:
        labels: `(batch,)` integer classes.
        logits: `(batch, 1)` or `(batch, classes)`, any precision.
        positive: class that one logit asks for; without meaning for several.
        weights: `(batch,)`, not negative and not all 0; None counts all pictures alike.
        focal_gamma: above 0, pictures that are already right count less.
        label_smoothing: share of t that is spread evenly over all classes.
    Raises:
        ValueError: one logit without `positive`.
    Source: Lin et al., arXiv:1708.02002, eq. 4 without alpha; the smoothing of Szegedy et al.,
        arXiv:1512.00567, section 7.
    """
    logits = ops.cast(logits, "float32")
    if logits.shape[-1] == 1:
        if positive is None:
            raise ValueError(
                "One logit is a yes-or-no question: `positive` must say of which class."
            )
        yes = ops.equal(ops.reshape(labels, (-1, 1)), positive)
        targets = ops.cast(ops.concatenate([yes, ops.logical_not(yes)], axis=-1), "float32")
        log_beliefs = -ops.softplus(ops.concatenate([-logits, logits], axis=-1))
    else:
        targets = ops.one_hot(labels, logits.shape[-1], dtype="float32")
        log_beliefs = ops.log_softmax(logits, axis=-1)
    if label_smoothing:
        targets = (1.0 - label_smoothing) * targets + label_smoothing / targets.shape[-1]
    parts = targets * log_beliefs
    if focal_gamma:
        parts = parts * ops.maximum(1.0 - ops.exp(log_beliefs), _HARDNESS_FLOOR) ** focal_gamma
    each = -ops.sum(parts, axis=-1)
    if weights is None:
        return ops.mean(each)
    weights = ops.cast(weights, "float32")
    return ops.sum(weights * each) / ops.sum(weights)
