from collections.abc import Iterator

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from tfgan_med.networks.unet import unet_generator, unet_levels


@pytest.fixture
def policy(request: pytest.FixtureRequest) -> Iterator[str]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


def trainable(model: keras.Model) -> int:
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def conditions(count: int, size: int, channels: int = 1) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).uniform(-1, 1, (count, size, size, channels)).astype("float32")


@pytest.mark.parametrize(
    ("size", "trained", "all_weights"),
    [
        (64, 29_244_035, 29_249_795),
        (128, 41_828_995, 41_836_803),
        (256, 54_413_955, 54_423_811),
        (512, 54_413_955, 54_423_811),
    ],
)
def test_a_batch_norm_generator_has_the_papers_number_of_weights(
    size: int, trained: int, all_weights: int
) -> None:
    model = unet_generator(size, 3, 3, norm="batch")
    assert (trainable(model), model.count_params()) == (trained, all_weights)


@pytest.mark.parametrize(
    ("size", "source", "target", "trained"),
    [
        (64, 3, 3, 29_244_035),
        (128, 3, 3, 41_828_995),
        (128, 1, 1, 41_822_849),
        (128, 1, 3, 41_826_947),
        (128, 3, 1, 41_824_897),
        (256, 3, 3, 54_413_955),
        (256, 1, 1, 54_407_809),
        (256, 1, 3, 54_411_907),
        (256, 3, 1, 54_409_857),
    ],
)
def test_instance_norm_has_the_same_trained_weights_and_no_statistics(
    size: int, source: int, target: int, trained: int
) -> None:
    model = unet_generator(size, source, target)
    assert (trainable(model), model.count_params()) == (trained, trained)


@pytest.mark.parametrize(
    ("size", "bottleneck", "rates"),
    [(64, 1, 1), (128, 1, 2), (256, 1, 3), (512, 2, 3), (1024, 4, 3)],
)
def test_dropout_and_bottleneck_follow_the_size(size: int, bottleneck: int, rates: int) -> None:
    model = unet_generator(size, 1, 1, base=4)
    dropouts = [x for x in model.layers if isinstance(x, keras.layers.Dropout)]
    innermost = model.get_layer(f"down{unet_levels(size) - 1}_relu").output
    assert innermost.shape[1:3] == (bottleneck, bottleneck)
    assert [layer.name for layer in dropouts] == [f"up{level}_drop" for level in range(rates)]
    assert model.output_shape == (None, size, size, 1)


def test_no_norm_sees_a_map_of_one_pixel_nor_the_first_level() -> None:
    for norm in ("instance", "batch"):
        names = {layer.name for layer in unet_generator(64, 1, 1, base=4, norm=norm).layers}
        normed = sorted(name for name in names if name.endswith("_norm"))
        downs = [f"down{level}_norm" for level in range(1, 5)]
        assert normed == downs + [f"up{level}_norm" for level in range(5)]


@pytest.mark.parametrize(
    ("size", "nearest"), [(100, "64 or 128"), (192, "128 or 256"), (300, "256 or 512")]
)
def test_a_size_that_cannot_be_halved_is_refused_with_its_neighbors(
    size: int, nearest: str
) -> None:
    with pytest.raises(ValueError, match=f"image_size is {size}.*Use {nearest}"):
        unet_generator(size, 1, 1)


def test_every_multiple_of_256_beyond_it_works() -> None:
    assert [unet_levels(size) for size in (64, 128, 256, 512, 768, 1024)] == [6, 7, 8, 8, 8, 8]
    with pytest.raises(ValueError, match="at least 16"):
        unet_levels(8)


def test_starting_weights_depend_on_the_seed_alone_and_differ_between_layers() -> None:
    first, again = (unet_generator(128, 1, 1, base=8, seed=5).get_weights() for _ in range(2))
    other = unet_generator(128, 1, 1, base=8, seed=6).get_weights()
    kernels = [index for index, weight in enumerate(first) if weight.ndim == 4]
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert all(np.abs(first[index] - other[index]).max() > 0.01 for index in kernels)
    heads = [first[index].ravel()[:8].tobytes() for index in kernels]
    assert len(set(heads)) == len(heads)


def test_starting_weights_are_normal_with_deviation_0_02() -> None:
    kernel = unet_generator(64, 3, 3, base=16).get_layer("down4_conv").kernel.numpy()
    assert abs(kernel.mean()) < 3 * 0.02 / np.sqrt(kernel.size)
    assert kernel.std() == pytest.approx(0.02, rel=0.01)


def test_leaky_slope_is_0_2() -> None:
    layer = unet_generator(64, 1, 1, base=4).get_layer("down0_relu")
    assert float(layer(np.array([-1.0], np.float32))[0]) == pytest.approx(-0.2)


@pytest.mark.parametrize("upsample", ["transposed", "resize"])
def test_an_image_is_the_same_alone_and_in_a_batch(upsample: str) -> None:
    model = unet_generator(64, 1, 3, base=8, upsample=upsample)  # type: ignore[arg-type]
    x = conditions(4, 64)
    np.testing.assert_allclose(model(x)[1:2], model(x[1:2]), atol=1e-5)


def test_batch_norm_on_one_picture_is_instance_norm_with_the_same_weights() -> None:
    """So pictures of a batch-norm generator can be made without touching its statistics."""
    trained, twin = (
        unet_generator(64, 1, 3, base=8, norm=norm, dropout=0.0) for norm in ("batch", "instance")
    )
    for index, weight in enumerate(trained.trainable_weights):
        weight.assign(weight + 0.01 * np.cos(index + np.arange(weight.shape[-1])))
    twin.set_weights([weight.numpy() for weight in trained.trainable_weights])
    x = conditions(1, 64)
    np.testing.assert_allclose(twin(x), trained(x, training=True), atol=1e-5)


def test_the_bottleneck_differs_between_conditions() -> None:
    model = unet_generator(64, 1, 3, base=16)
    inside = keras.Model(model.input, model.get_layer("down5_relu").output)
    features = np.asarray(inside(conditions(2, 64)))
    assert np.abs(features[0] - features[1]).max() > 0.1 * np.abs(features).max()


def test_dropout_is_the_only_difference_between_training_and_inference() -> None:
    x = conditions(1, 64)
    noisy, silent = (unet_generator(64, 1, 1, base=8, dropout=rate) for rate in (0.5, 0.0))
    silent.set_weights(noisy.get_weights())
    assert np.abs(noisy(x, training=True) - noisy(x, training=False)).max() > 1e-4
    np.testing.assert_array_equal(noisy(x, training=False), silent(x, training=True))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"], indirect=True)
def test_the_image_is_float32_within_one_under_mixed_precision(policy: str) -> None:
    model = unet_generator(64, 1, 3, base=8)
    image = model(conditions(2, 64))
    assert image.dtype == tf.float32
    assert float(tf.reduce_max(tf.abs(image))) <= 1.0
    assert model.get_layer("down1_conv").compute_dtype == policy.removeprefix("mixed_")


def test_every_weight_gets_a_gradient() -> None:
    model = unet_generator(64, 1, 1, base=4)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(conditions(1, 64), training=True) - 0.5))
    gradients = tape.gradient(loss, [weight.value for weight in model.trainable_weights])
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)
