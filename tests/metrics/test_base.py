"""Results carry their protocol, and only those that mean the same are compared."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tfgan_med.errors import UserError
from tfgan_med.metrics.base import (
    Interval,
    Result,
    checked_features,
    require_comparable,
    require_same_dimension,
)

RESULT = Result(
    metric="fid",
    value=12.5,
    protocol="ttur",
    extractor="inception-2015",
    weights_sha256="ab" * 32,
    dimension=2048,
    count_real=100,
    count_fake=100,
    image_size=(64, 64),
    color="rgb",
    value_range=(0.0, 255.0),
    real="real",
    fake="fake",
    interval=Interval(11.0, 14.0, 0.95, "method", 50),
    reference=3.5,
    reference_of="between two halves of 100 real images",
    settings={"ddof": 1},
)


def test_a_result_is_json_with_all_that_it_depends_on() -> None:
    stored = json.loads(json.dumps(RESULT.to_json(), allow_nan=False))
    assert stored["image_size"] == [64, 64]
    assert stored["interval"]["high"] == 14.0
    assert (stored["reference"], stored["settings"]) == (3.5, {"ddof": 1})
    assert {"protocol", "weights_sha256", "count_real", "color", "seed", "version"} <= set(stored)


def test_results_of_one_protocol_and_size_are_comparable() -> None:
    require_comparable(RESULT, replace(RESULT, value=3.0, fake="other", reference=None))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("protocol", "clean"),
        ("protocol", "ttur, bfloat16"),
        ("count_fake", 50),
        ("weights_sha256", "cd" * 32),
        ("settings", {"ddof": 0}),
    ],
)
def test_results_that_mean_different_things_are_not_compared(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=name):
        require_comparable(RESULT, replace(RESULT, **{name: value}))


def test_features_are_checked_without_a_copy() -> None:
    features = np.ones((5000, 2), np.float32)
    assert checked_features(features, "real") is features
    features[4500, 1] = np.nan
    with pytest.raises(ValueError, match="real features are not finite, first in row 4500"):
        checked_features(features, "real")


@pytest.mark.parametrize(
    ("shape", "message"), [((3,), r"shape \(3,\)"), ((1, 4), r"has 1 image\(s\).*at least 2")]
)
def test_features_of_another_shape_or_too_few_are_refused(
    shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        checked_features(np.zeros(shape), "generated")


def test_features_of_two_networks_are_refused() -> None:
    require_same_dimension(64, 64)
    with pytest.raises(ValueError, match="received 64 and 192"):
        require_same_dimension(64, 192)
