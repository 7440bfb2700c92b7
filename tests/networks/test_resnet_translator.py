"""The residual translator: its numbers, its borders, and that it is PyTorch's network."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from tfgan_med.networks.resnet_translator import ReflectionPadding2D, resnet_translator


@pytest.fixture
def policy(request: pytest.FixtureRequest) -> Iterator[str]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


def pictures(count: int, size: int, channels: int = 3) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).uniform(-1, 1, (count, size, size, channels)).astype("float32")


def small(size: int = 16, seed: int = 0) -> keras.Model:
    return resnet_translator(size, 3, 3, blocks=2, base=4, seed=seed)


@pytest.mark.parametrize(
    ("blocks", "channels", "count"),
    [(6, 3, 7_837_699), (6, 1, 7_825_153), (9, 3, 11_378_179), (9, 1, 11_365_633)],
)
def test_the_number_of_weights_is_the_references(blocks: int, channels: int, count: int) -> None:
    model = resnet_translator(128, channels, channels, blocks=blocks)
    assert model.count_params() == count
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == count


def test_more_downsamplings_double_the_width_each_time() -> None:
    """pix2pixHD's global generator: 64 channels at full size, 1024 at a sixteenth."""
    model = resnet_translator(64, 3, 3, blocks=1, base=4, downsamplings=4, norm="instance")
    shapes = [model.get_layer(f"{name}_relu").output.shape[1:]
              for name in ("stem", "down3", "up0", "up3")]  # fmt: skip
    assert shapes == [(64, 64, 4), (4, 4, 64), (8, 8, 32), (64, 64, 4)]
    assert model.output_shape == (None, 64, 64, 3)


def test_an_image_is_the_same_alone_and_in_a_batch() -> None:
    x = pictures(4, 32)
    model = small(32)
    np.testing.assert_allclose(model(x)[1:2], model(x[1:2]), atol=1e-5)


def test_padding_mirrors_without_repeating_the_border() -> None:
    row = np.arange(5, dtype=np.float32)
    padded = np.asarray(ReflectionPadding2D(2)(np.broadcast_to(row, (1, 5, 5))[..., None]))
    assert padded.shape == (1, 9, 9, 1)
    np.testing.assert_array_equal(padded[0, 0, :, 0], [2, 1, 0, 1, 2, 3, 4, 3, 2])
    np.testing.assert_array_equal(padded[0, :, 4, 0], [2] * 9)


def test_a_constant_picture_gets_no_frame() -> None:
    # With zeros outside, sums at the border would be 6 and 4 instead of 9.
    model = keras.Sequential([keras.Input((8, 8, 1)), ReflectionPadding2D(1),
                              keras.layers.Conv2D(1, 3, kernel_initializer="ones")])  # fmt: skip
    np.testing.assert_allclose(model(np.ones((1, 8, 8, 1), np.float32)), 9.0)


def test_halving_is_pytorchs_convolution_with_padding_one() -> None:
    """y[i, j] = sum_k w[k] x[2i - 1 + k]: by its definition, with zeros outside."""
    model = small()
    layer = model.get_layer("down0_conv")
    inside = keras.Model(model.get_layer("stem_relu").output, layer.output)
    x = np.random.default_rng(1).normal(size=(1, 16, 16, 4)).astype("float32")
    layer.bias.assign(np.arange(8.0))
    kernel, padded = layer.kernel.numpy(), np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = np.zeros((1, 8, 8, 8), np.float32) + np.arange(8.0)
    for row in range(3):
        for column in range(3):
            window = padded[:, row : row + 15 : 2, column : column + 15 : 2]
            expected += window @ kernel[row, column]
    np.testing.assert_allclose(inside(x), expected, atol=1e-5)


def test_doubling_is_pytorchs_transposed_convolution_with_padding_and_output_padding_one() -> None:
    """Each x[i, j] is added at (2i - 1, 2j - 1) ... (2i + 1, 2j + 1) times the kernel, as in
    `torch.nn.ConvTranspose2d(4, 2, 3, stride=2, padding=1, output_padding=1)`."""
    model = resnet_translator(16, 3, 3, blocks=1, base=4)
    layer = model.get_layer("up0_conv")
    inside = keras.Model(model.get_layer("block0_sum").output, model.get_layer("up0_norm").input)
    x = np.random.default_rng(1).normal(size=(1, 4, 4, 16)).astype("float32")
    kernel = layer.kernel.numpy()  # (row, column, out, in)
    full = np.zeros((1, 10, 10, 8), np.float32)
    for i in range(4):
        for j in range(4):
            full[0, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] += kernel @ x[0, i, j]
    layer.bias.assign(np.arange(8.0))
    np.testing.assert_allclose(inside(x), full[:, 1:9, 1:9] + np.arange(8.0), atol=1e-5)


def test_rows_and_columns_are_treated_alike() -> None:
    """With symmetric kernels, turning the picture over its diagonal turns the result."""
    model = small(16)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Conv2DTranspose):
            kernel = layer.kernel.numpy()
            layer.kernel.assign((kernel + kernel.swapaxes(0, 1)) / 2)
    x = pictures(1, 16)
    np.testing.assert_allclose(
        model(x.swapaxes(1, 2)), np.asarray(model(x)).swapaxes(1, 2), atol=1e-5
    )


@pytest.mark.parametrize(
    ("size", "cure"), [(30, "Use 28 or 32"), (4, "Use 8"), (0, "Use 8"), (10, "Use 8 or 12")]
)
def test_a_size_that_cannot_be_halved_is_refused_with_its_neighbors(size: int, cure: str) -> None:
    with pytest.raises(ValueError, match=f"image_size is {size};.*multiple of 4.*{cure}"):
        small(size)


def test_the_smallest_size_works() -> None:
    assert small(8)(pictures(2, 8)).shape == (2, 8, 8, 3)


def test_starting_weights_depend_on_the_seed_alone_and_differ_between_layers() -> None:
    first, again = small(seed=5).get_weights(), small(seed=5).get_weights()
    other = small(seed=6).get_weights()
    kernels = [index for index, weight in enumerate(first) if weight.ndim == 4]
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert all(np.abs(first[index] - other[index]).max() > 0.01 for index in kernels)
    assert len({first[index].ravel()[:8].tobytes() for index in kernels}) == len(kernels)
    assert all(not weight.any() for weight in first if weight.ndim == 1)


def test_starting_weights_are_normal_with_deviation_0_02() -> None:
    kernel = resnet_translator(16, 1, 1, blocks=1, base=16).get_layer("block0_first_conv").kernel
    assert np.asarray(kernel).std() == pytest.approx(0.02, rel=0.02)


def test_a_copy_and_a_stored_description_give_the_same_pictures() -> None:
    model, x = small(), pictures(1, 16)
    described = keras.Model.from_config(
        model.get_config(),
        custom_objects={
            "ReflectionPadding2D": ReflectionPadding2D,
            "InstanceNormalization": type(model.get_layer("stem_norm")),
        },
    )
    for copy in (keras.models.clone_model(model), described):
        copy.set_weights(model.get_weights())
        np.testing.assert_array_equal(copy(x), model(x))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"], indirect=True)
def test_the_image_is_float32_within_one_under_mixed_precision(policy: str) -> None:
    model = small()
    image = model(pictures(2, 16))
    assert image.dtype == tf.float32
    assert float(tf.reduce_max(tf.abs(image))) <= 1.0
    assert model.get_layer("down1_conv").compute_dtype == policy.removeprefix("mixed_")


def test_every_kernel_gets_a_gradient() -> None:
    model = small()
    kernels = [weight for weight in model.trainable_weights if len(weight.shape) == 4]
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(pictures(1, 16), training=True) - 0.5))
    gradients = tape.gradient(loss, [kernel.value for kernel in kernels])
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)
