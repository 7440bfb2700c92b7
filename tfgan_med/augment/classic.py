"""Classical augmentation of training pictures: flips, turns, zoom, blur, noise, contrast.

For downstream models, in the data pipeline, before a network sees the batch. Masks, numbered
objects and boxes move with their picture; colors change in the picture alone. Every draw is a
function of the seed and the position in the training sequence.

Sources: the eleven operations of Bailo et al., arXiv:1901.06219 (ranges are ours, it has none);
flips, ±36 degrees and ±10 % zoom of Sobolev's thesis on GANs for medical images, section 4.3.

Keras' preprocessing layers are not used: their random numbers have a state, they know no boxes,
and several differ (contrast about the picture's mean, inversion of whole pictures, blur cut off).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import tensorflow as tf
from pydantic import Field, model_validator

from tfgan_med.augment import _geometry, _photometry
from tfgan_med.augment._geometry import Moves
from tfgan_med.augment._photometry import Operation, per_channel
from tfgan_med.batches import Tensor
from tfgan_med.config import Config
from tfgan_med.errors import UserError

PHOTOMETRIC = (
    *("blur", "sharpen", "emboss", "noise", "invert"),
    *("add", "multiply", "contrast", "grayscale"),
)
LIGHTNESS = (0.75, 1.5)  # of sharpened pictures
EMBOSS_STRENGTH = 2.0
STREAM = 1000  # of random numbers, far from those of the order and the jitter of items

Preset = Literal["none", "thesis", "cells", "flips", "turns"]
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    "thesis": {"flip": 0.5, "rotation": 0.1, "zoom": 0.1},
    "cells": {
        "flip": 0.5,
        "flip_vertical": 0.5,
        "blur": 2.0,
        "sharpen": 1.0,
        "emboss": 1.0,
        "noise": 0.05,
        "invert": 0.05,
        "add": 10.0,
        "multiply": 0.25,
        "contrast": 1.0,
        "grayscale": 1.0,
    },
    "flips": {"flip": 0.5, "flip_vertical": 0.5},
    "turns": {"flip": 0.5, "flip_vertical": 0.5, "rotate90": True},
}


class ClassicConfig(Config):
    """Random changes of training pictures; 0 switches one off.

    A preset sets what is not given; what is given wins.
    """

    preset: Preset = "none"
    """`thesis`: flip, turns up to 36 degrees, zoom up to 10 %; `cells`: both flips and all nine
    changes of color and sharpness; `flips`: both; `turns`: both and quarter turns. What is
    set below wins over it."""
    flip: float = Field(0.0, ge=0.0, le=1.0)
    """Probability of mirroring left to right. Organs change sides: the label must allow it."""
    flip_vertical: float = Field(0.0, ge=0.0, le=1.0)
    """Probability of mirroring upside down; for pictures without an upright, such as cells."""
    rotate90: bool = False
    """Turn by 0, 90, 180 or 270 degrees, without interpolation; square pictures only."""
    rotation: float = Field(0.0, ge=0.0, le=0.5)
    """Largest turn either way, as a share of a full turn: 0.1 is 36 degrees. Uniform."""
    zoom: float = Field(0.0, ge=0.0, le=0.9)
    """The sides of what is seen change by up to this share either way. Uniform."""
    shift: float = Field(0.0, ge=0.0, le=0.9)
    """Largest shift along each axis either way, as a share of the side. Uniform."""
    fill: Literal["black", "white", "reflect", "border"] = "black"
    """What comes in from beyond the border. With `reflect` and `border` masks are continued like
    the picture; boxes are not, so take `black` or `white` with them."""
    min_visible: float = Field(0.25, ge=0.0, le=1.0)
    """Share of a moved box that must lie in the picture, or the box is dropped."""
    operations: int = Field(5, ge=0, le=len(PHOTOMETRIC))
    """Most of the following changes of one picture: 0 to this many, each number as likely, are
    drawn and applied in random order."""
    blur: float = Field(0.0, ge=0.0, le=20.0)
    """Largest standard deviation of a Gaussian blur, in pixels; uniform from 0."""
    sharpen: float = Field(0.0, ge=0.0, le=1.0)
    """Largest share of a sharpened, up to 1.5 times as light picture; uniform from 0."""
    emboss: float = Field(0.0, ge=0.0, le=1.0)
    """Largest share of an embossed picture; uniform from 0."""
    noise: float = Field(0.0, ge=0.0, le=1.0)
    """Largest standard deviation of Gaussian noise, as a share of the range from black to white;
    uniform from 0. Half of the time the same in all channels."""
    invert: float = Field(0.0, ge=0.0, le=1.0)
    """Probability of each channel to become its negative."""
    add: float = Field(0.0, ge=0.0, le=255.0)
    """Largest change of brightness either way, in gray levels of 255. Uniform, half of the time
    for each channel by itself, as in the next two."""
    multiply: float = Field(0.0, ge=0.0, le=1.0)
    """Largest change of the factor of brightness either way: 0.25 is a factor of 0.75 to 1.25."""
    contrast: float = Field(0.0, ge=0.0, le=10.0)
    """Distances to mid-gray become up to 1 + this many times as large, or that many times as
    small: 1 is a factor of 0.5 to 2."""
    grayscale: float = Field(0.0, ge=0.0, le=1.0)
    """Largest share of the gray picture; uniform from 0. Nothing to gray pictures."""

    @model_validator(mode="before")
    @classmethod
    def _take_the_preset(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("preset"), str):
            return values
        return {**PRESETS.get(values["preset"], {}), **values}

    @model_validator(mode="after")
    def _keep_something_of_the_preset(self) -> ClassicConfig:
        if self.preset != "none" and not self.active:
            lines = ", ".join(PRESETS[self.preset])
            raise ValueError(
                f"nothing is left of the preset {self.preset}, for all it sets is given beside it "
                f"({lines}) and is off. Remove those lines, or take preset: none."
            )
        return self

    @property
    def moves(self) -> Moves:
        """What moves the pixels."""
        return Moves(
            **{field.name: getattr(self, field.name) for field in dataclasses.fields(Moves)}
        )

    @property
    def menu(self) -> list[str]:
        """Names of the changes of color and sharpness that may be drawn."""
        return [name for name in PHOTOMETRIC if self.operations and getattr(self, name)]

    @property
    def active(self) -> bool:
        """Whether anything may change."""
        return bool(self.moves) or bool(self.menu)


class ClassicAugment:
    """Random changes of a batch, for `Dataset.map`.

    Args:
        config: what may change, and how much.
        seed: of the run.
    """

    def __init__(self, config: ClassicConfig, seed: int) -> None:
        self.config = config
        self.seed = seed

    def __call__(self, batch: Mapping[str, Tensor], first: Tensor) -> dict[str, Tensor]:
        """The changed batch.

        Args:
            batch: `images` `(batch, height, width, 1 or 3)` float32 in [-1, 1]; if there,
                `masks` `(batch, height, width, k)` of 0 and 1, where one-hot masks stay one-hot,
                `ids` `(batch, height, width, 1)` int32 with 0 for background, and
                `boxes` `(batch, max, 4)` float32, x0, y0, x1, y1 in pixels, half-open, with
                `boxes_valid` `(batch, max)` bool. Sides and channels must be known.
            first: int64 scalar, position of the batch's first draw in the endless sequence of
                training items; with the seed it fixes all random numbers.
        Returns:
            The same keys, shapes and types; all other entries untouched. Images are clipped to
            [-1, 1] once, at the end. A turned box is the upright one around it, so it grows; one
            with too little left in the picture becomes 0 and invalid.
        Raises:
            UserError: for quarter turns of pictures that are not square.
            ValueError: for pictures that are neither gray nor of three colors.
        """
        batch = dict(batch)
        if not self.config.active:
            return batch
        self._check(batch["images"])
        key = tf.constant([self.seed, STREAM], tf.int64)
        key = tf.random.experimental.stateless_fold_in(key, tf.cast(first, tf.int64))
        to_move, to_change = tf.unstack(tf.random.experimental.stateless_split(key, 2), 2)
        if self.config.moves:
            batch |= self._moved(batch, to_move)
        operations = _operations(self.config, batch["images"].shape[-1])
        if operations:
            most = self.config.operations
            batch["images"] = _photometry.changed(batch["images"], operations, most, to_change)
        batch["images"] = tf.clip_by_value(batch["images"], -1.0, 1.0)
        return batch

    def _check(self, images: Tensor) -> None:
        _, height, width, channels = images.shape
        if channels not in (1, 3):
            raise ValueError(f"Expected pictures of 1 or 3 channels, received {channels}.")
        if self.config.rotate90 and height != width:
            raise UserError(
                f"classic.rotate90: the pictures are {width} x {height}; only square ones can be "
                "turned by 90 degrees. Set it to false, or make them square with data.fit."
            )

    def _moved(self, batch: Mapping[str, Tensor], seed: Tensor) -> dict[str, Tensor]:
        """What has a place in the picture, moved."""
        config, images = self.config, batch["images"]
        count, (height, width) = tf.shape(images)[0], images.shape[1:3]
        placement = _geometry.placed(config.moves, count, height, width, seed)
        between_pixels = config.moves.between_pixels
        moved = {"images": _geometry.moved_images(images, placement, config.fill, between_pixels)}
        if "masks" in batch:
            moved["masks"] = _geometry.moved_masks(batch["masks"], placement, config.fill)
        if "ids" in batch:
            moved["ids"] = _geometry.moved_classes(batch["ids"], placement, config.fill)
        if "boxes" in batch:
            moved["boxes"], moved["boxes_valid"] = _geometry.moved_boxes(
                batch["boxes"], batch["boxes_valid"], placement, config.min_visible
            )
        return moved


def _operations(config: ClassicConfig, channels: int) -> list[Operation]:
    """What may be drawn for pictures of so many channels."""
    names = [name for name in config.menu if channels == 3 or name != "grayscale"]
    return [_operation(name, getattr(config, name), channels) for name in names]


def _operation(name: str, most: float, channels: int) -> Operation:
    """The change of this name with strengths up to `most`.

    Of its four numbers u the first `channels` say how much, the last says whether each channel
    has an amount of its own.
    """

    def amounts(low: float, high: float, u: Tensor) -> Tensor:
        return low + (high - low) * per_channel(u[:channels], u[3])

    def between(low: float, high: float, u: Tensor) -> Tensor:
        return low + (high - low) * u

    operations: dict[str, Operation] = {
        "blur": lambda x, u, _: _photometry.blur(x, most * u[0], most),
        "sharpen": lambda x, u, _: _photometry.sharpen(x, most * u[0], between(*LIGHTNESS, u[1])),
        "emboss": lambda x, u, _: _photometry.emboss(x, most * u[0], EMBOSS_STRENGTH * u[1]),
        "noise": lambda x, u, seed: _photometry.noise(x, most * u[0], u[1], seed),
        "invert": lambda x, u, _: _photometry.invert(x, u[:channels] < most),
        "add": lambda x, u, _: _photometry.add(x, amounts(-most, most, u)),
        "multiply": lambda x, u, _: _photometry.multiply(x, amounts(1 - most, 1 + most, u)),
        "contrast": lambda x, u, _: _photometry.contrast(x, amounts(1 / (1 + most), 1 + most, u)),
        "grayscale": lambda x, u, _: _photometry.grayscale(x, most * u[0]),
    }
    return operations[name]
