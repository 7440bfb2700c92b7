"""Adversarial losses: pairs of a discriminator and a generator objective, both minimized.

Discriminators return raw scores. Every function takes them in any shape, `(batch, 1)` for whole
images or `(batch, height, width, 1)` for patches, and means over all elements of the real and of
the generated scores separately, so the two batches may differ in size. A list of tensors, one per
scale of the discriminator, is summed over its scales. Results are float32 scalars under every
precision. Probabilities never appear: `softplus` stays finite where `log(sigmoid)` does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from keras import ops

from tfgan_med.discovery import nearest
from tfgan_med.errors import UserError

Tensor = Any
Logits = Tensor | list[Tensor]


# Real and generated scores apart ------------------------------------------------------------------


def minimax_discriminator_loss(
    real_logits: Logits, fake_logits: Logits, label_smoothing: float = 1.0
) -> Tensor:
    """Cross-entropy of the discriminator, `-E[log s(D(x))] - E[log(1 - s(D(G(z))))]`.

    Args:
        real_logits, fake_logits: raw scores.
        label_smoothing: probability that real images are said to be real with, e.g. 0.9; the
            real part is then `-E[a log s(D(x)) + (1 - a) log(1 - s(D(x)))]`. 1 is no smoothing.
            TF-GAN's argument is another one: its default of 0.25 is 0.875 here.
    Source: Goodfellow et al., arXiv:1406.2661, eq. 1; `s` is the sigmoid. One-sided smoothing:
        Salimans et al., arXiv:1606.03498, section 3.4.
    """

    def on_real(real: Tensor) -> Tensor:
        # a sp(-r) + (1 - a) sp(r) without a second softplus, for sp(r) = r + sp(-r)
        return ops.softplus(-real) + (1.0 - label_smoothing) * real

    return _mean(on_real, real_logits) + _mean(ops.softplus, fake_logits)


def minimax_generator_loss(fake_logits: Logits) -> Tensor:
    """The generator's side of the same game, `E[log(1 - s(D(G(z))))]`; its gradient vanishes
    where the discriminator is sure.

    Source: Goodfellow et al., arXiv:1406.2661, eq. 1.
    """
    return -_mean(ops.softplus, fake_logits)


def nonsaturating_generator_loss(fake_logits: Logits) -> Tensor:
    """`-E[log s(D(G(z)))]`: the same fixed point as minimax, strong gradients from the start.

    Source: Goodfellow et al., arXiv:1406.2661, section 3.
    """
    return _mean(lambda fake: ops.softplus(-fake), fake_logits)


def hinge_discriminator_loss(real_logits: Logits, fake_logits: Logits) -> Tensor:
    """Hinge objective of the discriminator, `E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))]`.

    Source: Lim and Ye, arXiv:1705.02894; Miyato et al., arXiv:1802.05957, eq. 17.
    """
    on_real = _mean(lambda real: ops.relu(1.0 - real), real_logits)
    on_fake = _mean(lambda fake: ops.relu(1.0 + fake), fake_logits)
    return on_real + on_fake


def least_squares_discriminator_loss(
    real_logits: Logits, fake_logits: Logits, half: bool = False
) -> Tensor:
    """`E[(D(x) - 1)²] + E[D(G(z))²]`, with `half` times the 1/2 of the paper and of TF-GAN.

    Source: Mao et al., arXiv:1611.04076, eq. 9, without 1/2 as in Sobolev's thesis, table 1.1.
    """
    on_real = _mean(lambda real: ops.square(real - 1.0), real_logits)
    whole = on_real + _mean(ops.square, fake_logits)
    return 0.5 * whole if half else whole


def least_squares_generator_loss(fake_logits: Logits, half: bool = False) -> Tensor:
    """`E[(D(G(z)) - 1)²]`, with `half` times the 1/2 of the paper and of TF-GAN.

    Source: Mao et al., arXiv:1611.04076, eq. 9.
    """
    whole = _mean(lambda fake: ops.square(fake - 1.0), fake_logits)
    return 0.5 * whole if half else whole


def wasserstein_discriminator_loss(real_logits: Logits, fake_logits: Logits) -> Tensor:
    """`-E[D(x)] + E[D(G(z))]`; a distance only if the critic is kept Lipschitz.

    Source: Arjovsky et al., arXiv:1701.07875, eq. 2.
    """
    return _mean(_as_is, fake_logits) - _mean(_as_is, real_logits)


def wasserstein_generator_loss(fake_logits: Logits) -> Tensor:
    """`-E[D(G(z))]`; the hinge objective has the same generator.

    Source: Arjovsky et al., arXiv:1701.07875, eq. 2; Miyato et al., arXiv:1802.05957, eq. 18.
    """
    return -_mean(_as_is, fake_logits)


# Scores relative to the other kind ----------------------------------------------------------------
# The generator's objective is the discriminator's with real and generated scores swapped. Under
# several devices the average is that of a device's share of the batch.


def relativistic_average_loss(real_logits: Logits, fake_logits: Logits) -> Tensor:
    """Cross-entropy of "more real than the other kind on average".

        -E[log s(D(x) - E[D(G(z))])] - E[log(1 - s(D(G(z)) - E[D(x)]))]

    Source: Jolicoeur-Martineau, arXiv:1807.00734 (RaSGAN).
    """
    return _relative_to_average(lambda x: ops.softplus(-x), ops.softplus, real_logits, fake_logits)


def relativistic_least_squares_loss(real_logits: Logits, fake_logits: Logits) -> Tensor:
    """`E[(D(x) - E[D(G(z))] - 1)²] + E[(D(G(z)) - E[D(x)] + 1)²]`.

    Source: Jolicoeur-Martineau, arXiv:1807.00734 (RaLSGAN).
    """
    return _relative_to_average(
        lambda x: ops.square(x - 1.0), lambda x: ops.square(x + 1.0), real_logits, fake_logits
    )


def relativistic_hinge_loss(real_logits: Logits, fake_logits: Logits) -> Tensor:
    """`E[max(0, 1 - (D(x) - E[D(G(z))]))] + E[max(0, 1 + (D(G(z)) - E[D(x)]))]`.

    Source: Jolicoeur-Martineau, arXiv:1807.00734 (RaHingeGAN).
    """
    return _relative_to_average(
        lambda x: ops.relu(1.0 - x), lambda x: ops.relu(1.0 + x), real_logits, fake_logits
    )


def relativistic_pairwise_loss(real_logits: Logits, fake_logits: Logits) -> Tensor:
    """`-E[log s(D(x) - D(G(z)))]`, real and generated images in pairs.

    Raises:
        ValueError: if real and generated scores differ in shape, for broadcasting would hide it.
    Source: Jolicoeur-Martineau, arXiv:1807.00734 (RSGAN).
    """

    def of_scale(real: Tensor, fake: Tensor) -> Tensor:
        if tuple(real.shape) != tuple(fake.shape):
            raise ValueError(
                "The loss rgan compares real and generated images in pairs: received scores of "
                f"shapes {tuple(real.shape)} and {tuple(fake.shape)}. Give it two batches of one "
                "size, or use ragan."
            )
        return ops.mean(ops.softplus(fake - real))

    return _over_scales(of_scale, real_logits, fake_logits)


# Choosing by name ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class AdversarialLoss:
    """The two objectives of one game."""

    discriminator: Callable[[Logits, Logits], Tensor]
    """From real and generated scores to a float32 scalar."""
    generator: Callable[..., Tensor]
    """From the scores of generated images, `(fake, real=None)`, to a float32 scalar."""
    needs_real: bool = False
    """Whether the generator's objective is relative to the scores of real images."""


def _separate(
    discriminator: Callable[..., Tensor], generator: Callable[..., Tensor]
) -> AdversarialLoss:
    return AdversarialLoss(discriminator, lambda fake, real=None: generator(fake))


def _relativistic(objective: Callable[[Logits, Logits], Tensor]) -> AdversarialLoss:
    def generator(fake: Logits, real: Logits | None = None) -> Tensor:
        if real is None:
            raise ValueError(
                "A relativistic generator loss compares with the scores of real images: pass "
                "them as the second argument."
            )
        return objective(fake, real)

    return AdversarialLoss(objective, generator, needs_real=True)


NONSATURATING = _separate(minimax_discriminator_loss, nonsaturating_generator_loss)
MINIMAX = _separate(minimax_discriminator_loss, minimax_generator_loss)
HINGE = _separate(hinge_discriminator_loss, wasserstein_generator_loss)
LSGAN = _separate(least_squares_discriminator_loss, least_squares_generator_loss)
HALF_LSGAN = _separate(
    partial(least_squares_discriminator_loss, half=True),
    partial(least_squares_generator_loss, half=True),
)
WGAN = _separate(wasserstein_discriminator_loss, wasserstein_generator_loss)
RAGAN = _relativistic(relativistic_average_loss)
RGAN = _relativistic(relativistic_pairwise_loss)
RALSGAN = _relativistic(relativistic_least_squares_loss)
RAHINGE = _relativistic(relativistic_hinge_loss)

ADVERSARIAL_LOSSES = {
    "nonsaturating": NONSATURATING,
    "minimax": MINIMAX,
    "hinge": HINGE,
    "lsgan": LSGAN,
    "wgan": WGAN,
    "wgan-gp": WGAN,  # the penalty is a term of its own
    "ragan": RAGAN,
    "rgan": RGAN,
    "ralsgan": RALSGAN,
    "rahinge": RAHINGE,
}
SMOOTHED = ("nonsaturating", "minimax")


def adversarial_loss(
    name: str, half: bool = False, label_smoothing: float = 1.0
) -> AdversarialLoss:
    """The pair called `name`, one of `ADVERSARIAL_LOSSES`.

    Args:
        name: of the loss.
        half: halve both objectives of `lsgan`, as its paper does.
        label_smoothing: target of real images for `nonsaturating` and `minimax`; 1 is off.
    Raises:
        UserError: if there is no such loss (names the nearest), or an option is not for it.
    """
    if name not in ADVERSARIAL_LOSSES:
        near = nearest(name, ADVERSARIAL_LOSSES)
        hint = f' Did you mean "{near}"?' if near else ""
        raise UserError(
            f'model.adversarial: there is no adversarial loss "{name}".{hint} '
            f"Expected one of: {', '.join(ADVERSARIAL_LOSSES)}."
        )
    if half and name != "lsgan":
        raise UserError(
            f'model.half: only "lsgan" is halved, but model.adversarial is "{name}". '
            "Remove half or set model.adversarial=lsgan."
        )
    if label_smoothing != 1.0 and name not in SMOOTHED:
        raise UserError(
            f'model.label_smoothing: {label_smoothing:g} is for the losses "nonsaturating" and '
            f'"minimax", whose targets are probabilities, but model.adversarial is "{name}". '
            "Set model.label_smoothing=1 or choose one of the two."
        )
    if half:
        return HALF_LSGAN
    chosen = ADVERSARIAL_LOSSES[name]
    if label_smoothing == 1.0:
        return chosen
    smoothed = partial(minimax_discriminator_loss, label_smoothing=label_smoothing)
    return AdversarialLoss(smoothed, chosen.generator)


# Means over elements, sums over scales ------------------------------------------------------------


def scales_of(logits: Logits) -> list[Tensor]:
    """The scores of each scale in float32; one tensor is one scale.

    Raises:
        ValueError: for an empty list.
    """
    scales = logits if isinstance(logits, list | tuple) else [logits]
    if not scales:
        raise ValueError("An adversarial loss needs scores of at least one scale, received none.")
    return [ops.cast(scale, "float32") for scale in scales]


def _mean(objective: Callable[[Tensor], Tensor], logits: Logits) -> Tensor:
    """Mean over the elements of a tensor, summed over the scales of a list."""
    return sum(ops.mean(objective(scale)) for scale in scales_of(logits))


def _over_scales(objective: Callable[[Tensor, Tensor], Tensor], real: Logits, fake: Logits) -> Any:
    """Sum of an objective that compares real and generated scores of one scale."""
    scales = zip(scales_of(real), scales_of(fake), strict=True)
    return sum(objective(*scale) for scale in scales)


def _relative_to_average(
    on_real: Callable[[Tensor], Tensor],
    on_fake: Callable[[Tensor], Tensor],
    real_logits: Logits,
    fake_logits: Logits,
) -> Tensor:
    """`E[on_real(r - E[f])] + E[on_fake(f - E[r])]`, each scale with averages of its own."""

    def of_scale(real: Tensor, fake: Tensor) -> Tensor:
        real_part = ops.mean(on_real(real - ops.mean(fake)))
        return real_part + ops.mean(on_fake(fake - ops.mean(real)))

    return _over_scales(of_scale, real_logits, fake_logits)


def _as_is(logits: Tensor) -> Tensor:
    return logits
