import numpy as np
import pytest
import tensorflow as tf

from tfgan_med.losses.reconstruction import l1_loss, l2_loss


def test_losses_are_means_over_every_number() -> None:
    target = np.array([0.0, 1.0, -1.0, 0.5], np.float32).reshape(1, 2, 2, 1)
    fake = np.array([0.5, 1.0, 1.0, 0.0], np.float32).reshape(1, 2, 2, 1)
    assert float(l1_loss(target, fake)) == pytest.approx((0.5 + 0 + 2 + 0.5) / 4)
    assert float(l2_loss(target, fake)) == pytest.approx((0.25 + 0 + 4 + 0.25) / 4)


def test_the_gradient_of_l1_is_a_sign_over_the_number_of_pixels() -> None:
    target, fake = tf.zeros((1, 2, 2, 1)), tf.reshape(tf.constant([1.0, -2, 3, -4]), (1, 2, 2, 1))
    with tf.GradientTape() as tape:
        tape.watch(fake)
        loss = l1_loss(target, fake)
    np.testing.assert_allclose(tf.reshape(tape.gradient(loss, fake), -1), [0.25, -0.25] * 2)


def test_half_precision_images_give_a_float32_mean() -> None:
    # 2^17 ones: a float16 sum would stop at 65504.
    ones = tf.ones((2, 256, 256, 1), "float16")
    loss = l1_loss(ones, -ones)
    assert loss.dtype == tf.float32
    assert float(loss) == 2.0


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 4, 4, 3\).*\(1, 4, 4, 1\)"):
        l1_loss(np.zeros((1, 4, 4, 3)), np.zeros((1, 4, 4, 1)))
    with pytest.raises(ValueError, match="one shape"):
        l2_loss(np.zeros((1, 4, 4, 3)), np.zeros((2, 4, 4, 3)))
