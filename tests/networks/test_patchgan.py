from collections.abc import Iterator

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfgan_med.errors import UserError
from tfgan_med.networks.patchgan import (
    PATCH_KINDS,
    HalvingPool,
    patch_discriminator,
    receptive_field,
    score_side,
)

# kind: receptive field, side of the scores at 64, 128, 256, weights for 6, 4, 3 channels,
# normalized channels (64 * 2^i from the second layer on, at most 512)
TABLE = {
    "patch10": (10, (31, 63, 127), (7_169, 5_121, 4_097), 0),
    "patch16": (16, (30, 62, 126), (139_521, 137_473, 136_449), 128),
    "patch22": (22, (15, 31, 63), (139_521, 137_473, 136_449), 128),
    "patch34": (34, (14, 30, 62), (666_369, 664_321, 663_297), 384),
    "patch46": (46, (7, 15, 31), (666_369, 664_321, 663_297), 384),
    "patch70": (70, (6, 14, 30), (2_768_641, 2_766_593, 2_765_569), 896),
    "patch94": (94, (3, 7, 15), (2_768_641, 2_766_593, 2_765_569), 896),
    "patch142": (142, (2, 6, 14), (6_963_969, 6_961_921, 6_960_897), 1408),
    "patch190": (190, (1, 3, 7), (6_963_969, 6_961_921, 6_960_897), 1408),
    "patch286": (286, (None, 2, 6), (11_159_297, 11_157_249, 11_156_225), 1920),
}


@pytest.fixture
def policy(request: pytest.FixtureRequest) -> Iterator[str]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


def trainable(model: keras.Model) -> int:
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def pair(count: int, size: int, channels: tuple[int, int] = (1, 1)) -> list[tf.Tensor]:
    shapes = [(count, size, size, number) for number in channels]
    return [tf.random.stateless_normal(s, (i, 7)) for i, s in enumerate(shapes)]


@pytest.mark.parametrize("kind", TABLE)
def test_numbers_of_weights_are_those_of_the_table(kind: str) -> None:
    _, _, counts, normalized = TABLE[kind]
    for channels, count in zip([(3, 3), (3, 1), (2, 1)], counts, strict=True):
        model = patch_discriminator(kind, 256, channels)
        assert (trainable(model), model.count_params()) == (count, count)
    batch = patch_discriminator(kind, 256, (3, 3), norm="batch")
    assert (trainable(batch), batch.count_params()) == (counts[0], counts[0] + 2 * normalized)


@pytest.mark.parametrize("kind", TABLE)
def test_sides_of_the_score_map_are_those_of_the_table(kind: str) -> None:
    for size, side in zip((64, 128, 256), TABLE[kind][1], strict=True):
        if side is None:
            with pytest.raises(ValueError, match=f"at least 65 .* received {size}"):
                patch_discriminator(kind, size, (1, 1), base=4)
            continue
        (scores,) = patch_discriminator(kind, size, (1, 1), base=4)(pair(2, size))
        assert tuple(scores.shape) == (2, side, side, 1)
        assert score_side(kind, size) == side


@pytest.mark.parametrize("kind", ["pixel", *TABLE])
def test_one_score_sees_a_window_of_its_receptive_field(kind: str) -> None:
    # Without norm, for instance norm ties every score to the whole picture.
    field = receptive_field(kind, 512)
    assert field == (TABLE[kind][0] if kind in TABLE else 1)
    size = 64 * (1 + (field + 63) // 64)
    model = patch_discriminator(kind, size, (1, 1), base=4, norm="none")
    for layer in model.layers:  # equal signs: nothing cancels, no leaky unit hides a pixel
        layer.set_weights([np.abs(weight) for weight in layer.get_weights()])
    source, target = (tf.ones((1, size, size, 1)) for _ in range(2))
    with tf.GradientTape() as tape:
        tape.watch([source, target])
        (scores,) = model([source, target])
        middle = scores.shape[1] // 2
        score = scores[0, middle, middle, 0]
    for gradient in tape.gradient(score, [source, target]):
        rows, columns = np.nonzero(gradient.numpy()[0, :, :, 0])
        assert (int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1) == (field, field)


@pytest.mark.parametrize(
    ("kind", "colored", "gray"),
    [
        ("patch10", 4_161, 2_113),
        ("patch22", 136_385, 134_337),
        ("patch46", 662_977, 660_929),
        ("patch70", 2_764_737, 2_762_689),
    ],
)
def test_cyclegans_discriminators_see_one_picture_and_have_biases_but_plain_norms(
    kind: str, colored: int, gray: int
) -> None:
    for channels, count in ((3, colored), (1, gray)):
        model = patch_discriminator(kind, 128, (channels,), norm="instance-plain", bias=True)
        assert (trainable(model), model.count_params()) == (count, count)
    (scores,) = model(tf.zeros((2, 128, 128, 1)))
    assert tuple(scores.shape) == (2, score_side(kind, 128), score_side(kind, 128), 1)


def test_the_image_kind_gives_one_score_that_sees_everything() -> None:
    for size in (64, 128, 256):
        assert receptive_field("image", size) == size
        model = patch_discriminator("image", size, (1, 1), base=4, norm="none")
        source, target = (tf.ones((1, size, size, 1)) for _ in range(2))
        with tf.GradientTape() as tape:
            tape.watch(target)
            (scores,) = model([source, target])
        assert tuple(scores.shape) == (1, 1, 1, 1)
        assert np.all(tape.gradient(scores, target).numpy() != 0)


def test_aliases_name_the_discriminators_of_the_thesis() -> None:
    fields = [receptive_field(f"thesis-d{number}", 256) for number in (1, 2, 3)]
    assert fields == [46, 22, 10]
    assert trainable(patch_discriminator("thesis-d1", 64, (3, 3))) == 666_369


def test_the_condition_comes_first() -> None:
    model = patch_discriminator("pixel", 16, (2, 3), base=4)
    kernel = model.get_layer("layer0_conv").kernel
    values = np.zeros(kernel.shape, np.float32)
    values[0, 0, :2] = 1.0
    kernel.assign(values)
    source, target = pair(1, 16, (2, 3))
    (scores,) = model([source, target])
    np.testing.assert_array_equal(scores, model([source, -target])[0])
    assert np.abs(scores - model([-source, target])[0]).max() > 0


def test_scales_have_equal_structure_and_weights_of_their_own() -> None:
    model = patch_discriminator("patch22", 64, (1, 3), base=8, num_scales=3)
    scores = model(pair(2, 64, (1, 3)))
    assert [tuple(score.shape) for score in scores] == [
        (2, 15, 15, 1),
        (2, 7, 7, 1),
        (2, 3, 3, 1),
    ]
    one = trainable(patch_discriminator("patch22", 64, (1, 3), base=8))
    assert trainable(model) == 3 * one
    kernels = [model.get_layer(f"scale{i}_layer1_conv").kernel.numpy() for i in range(3)]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.01
    assert np.abs(kernels[1] - kernels[2]).max() > 0.01


def test_pooling_centers_windows_on_even_pixels_and_counts_only_what_is_there() -> None:
    # Rows 0..5, constant along columns: windows {0, 1}, {1, 2, 3}, {3, 4, 5}.
    picture = np.broadcast_to(np.arange(6.0, dtype=np.float32)[:, None], (6, 6))[None, :, :, None]
    pooled = np.asarray(HalvingPool()(picture))[0, :, :, 0]
    np.testing.assert_allclose(pooled, np.repeat([[0.5], [2.0], [4.0]], 3, axis=1), rtol=1e-6)


def test_too_many_scales_for_the_picture_are_refused() -> None:
    with pytest.raises(ValueError, match=r'"patch70" needs pictures of at least 17 .*received 16'):
        patch_discriminator("patch70", 64, (1, 1), num_scales=3)


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r'no discriminator "patch71".*mean "patch70".*pixel'):
        patch_discriminator("patch71", 64, (1, 1))
    assert set(PATCH_KINDS) >= {"pixel", "image", *TABLE}


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"], indirect=True)
def test_scores_are_float32_under_mixed_precision(policy: str) -> None:
    for kind in ("pixel", "patch22", "image"):
        (scores,) = patch_discriminator(kind, 64, (1, 1), base=8)(pair(1, 64))
        assert scores.dtype == tf.float32


def test_an_instance_norm_discriminator_judges_images_one_by_one() -> None:
    model = patch_discriminator("patch34", 64, (1, 1), base=8)
    source, target = pair(4, 64)
    np.testing.assert_allclose(
        model([source, target])[0][2:3], model([source[2:3], target[2:3]])[0], atol=1e-5
    )
