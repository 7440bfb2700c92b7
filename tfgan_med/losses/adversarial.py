"""Adversarial losses: pairs of a discriminator and a generator objective, both minimized.

Discriminators return raw scores. Every function takes them in any shape, `(batch, 1)` for whole
images or `(batch, height, width, 1)` for patches, and means over all elements of the real and of
the generated scores separately, so the two batches may differ in size. A list of tensors, one per
scale of the discriminator, is summed over its scales. Results are float32 scalars under every
precision. Probabilities never appear: `softplus` stays finite where `log(sigmoid)` does not.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from keras import ops

from tfgan_med.errors import UserError

Tensor = Any
Logits = Tensor | list[Tensor]


def minimax_discriminator_loss(real_logits: Logits, fake_logits: Logits) -> Tensor:
    """Cross-entropy of the discriminator, `-E[log s(D(x))] - E[log(1 - s(D(G(z))))]`.

    Source: Goodfellow et al., arXiv:1406.2661, eq. 1; `s` is the sigmoid.
    """
    return _mean(lambda real: ops.softplus(-real), real_logits) + _mean(ops.softplus, fake_logits)


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


def least_squares_discriminator_loss(real_logits: Logits, fake_logits: Logits) -> Tensor:
    """`E[(D(x) - 1)²] + E[D(G(z))²]`, without the factor 1/2 of the paper and of TF-GAN.

    Source: Mao et al., arXiv:1611.04076, eq. 9, in the form of Sobolev's thesis, table 1.1.
    """
    on_real = _mean(lambda real: ops.square(real - 1.0), real_logits)
    return on_real + _mean(ops.square, fake_logits)


def least_squares_generator_loss(fake_logits: Logits) -> Tensor:
    """`E[(D(G(z)) - 1)²]`, without the factor 1/2 of the paper and of TF-GAN.

    Source: Mao et al., arXiv:1611.04076, eq. 9.
    """
    return _mean(lambda fake: ops.square(fake - 1.0), fake_logits)


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


@dataclass(frozen=True)
class AdversarialLoss:
    """The two objectives of one game."""

    discriminator: Callable[[Logits, Logits], Tensor]
    """From real and generated scores to a float32 scalar."""
    generator: Callable[[Logits], Tensor]
    """From the scores of generated images to a float32 scalar."""


NONSATURATING = AdversarialLoss(minimax_discriminator_loss, nonsaturating_generator_loss)
MINIMAX = AdversarialLoss(minimax_discriminator_loss, minimax_generator_loss)
HINGE = AdversarialLoss(hinge_discriminator_loss, wasserstein_generator_loss)
LSGAN = AdversarialLoss(least_squares_discriminator_loss, least_squares_generator_loss)
WGAN = AdversarialLoss(wasserstein_discriminator_loss, wasserstein_generator_loss)

ADVERSARIAL_LOSSES = {
    "nonsaturating": NONSATURATING,
    "minimax": MINIMAX,
    "hinge": HINGE,
    "lsgan": LSGAN,
    "wgan": WGAN,
}


def adversarial_loss(name: str) -> AdversarialLoss:
    """The pair called `name`, one of `ADVERSARIAL_LOSSES`.

    Raises:
        UserError: if there is no such loss; names the nearest.
    """
    if name not in ADVERSARIAL_LOSSES:
        near = difflib.get_close_matches(name, ADVERSARIAL_LOSSES, n=1)
        hint = f' Did you mean "{near[0]}"?' if near else ""
        raise UserError(
            f'There is no adversarial loss "{name}".{hint} '
            f"Expected one of: {', '.join(ADVERSARIAL_LOSSES)}."
        )
    return ADVERSARIAL_LOSSES[name]


def _mean(objective: Callable[[Tensor], Tensor], logits: Logits) -> Tensor:
    """Mean over the elements of a tensor, summed over the scales of a list."""
    scales = logits if isinstance(logits, list | tuple) else [logits]
    if not scales:
        raise ValueError("An adversarial loss needs scores of at least one scale, received none.")
    return sum(ops.mean(objective(ops.cast(scale, "float32"))) for scale in scales)


def _as_is(logits: Tensor) -> Tensor:
    return logits
