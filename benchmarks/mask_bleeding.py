"""Do pictures and the masks made with them bleed into each other? Compares runs.

    python benchmarks/mask_bleeding.py RUN [RUN ...] [--count 256]

Real masks have two values and know nothing of the picture's shades. For samples of each run, made
with `data.with_masks=true`, and for the real pictures it was trained on:

    undecided   mean distance of mask values from their sign, 0 to 1; real: 0
    picture in mask   correlation of that distance with the picture's brightness, mean of absolute
                values over samples
    edge        step of the picture's brightness over the mask's border, 2 pixels on each side, in
                units of [-1, 1]; a mask that shows in its picture makes it larger than in real ones
    empty       share of masks that are empty or full

One line of JSON for each.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Array = npt.NDArray[np.float32]


def measure(pictures: Array, masks: Array) -> dict[str, Any]:
    """The four numbers, from `(images, size, size, channels)` in [-1, 1]."""
    gray, mask = pictures.mean(axis=-1), masks[..., 0]
    residual = 1.0 - np.abs(mask)
    steps, shades = [], []
    for shade, values, rest in zip(gray, mask > 0, residual, strict=True):
        if rest.std() > 1e-4:
            shades.append(abs(float(np.corrcoef(shade.ravel(), rest.ravel())[0, 1])))
        inside = values & ~ndimage.binary_erosion(values, iterations=2)
        outside = ~values & ndimage.binary_dilation(values, iterations=2)
        if inside.any() and outside.any():
            steps.append(abs(float(shade[inside].mean() - shade[outside].mean())))
    share = (mask > 0).mean(axis=(1, 2))
    return {
        "images": len(mask),
        "undecided": round(float(residual.mean()), 4),
        "picture_in_mask": round(float(np.mean(shades)), 3) if shades else 0.0,
        "edge": round(float(np.mean(steps)), 3) if steps else None,
        "empty": round(float(np.mean((share < 0.001) | (share > 0.999))), 3),
        "area": round(float(share.mean()), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--count", type=int, default=256)
    options = parser.parse_args()

    from tfgan_med.ops.latents import latents
    from tfgan_med.training.image_task import ImageTask
    from tfgan_med.training.sampling import Sampler
    from tfgan_med.training.settings import saved_settings

    for number, run in enumerate(options.runs):
        sampler = Sampler(run)
        if number == 0:
            task = ImageTask(saved_settings(run))
            batch = task.data.fixed_batch("train", options.count)
            real = sampler.shapes.parted(np.asarray(batch["images"]))
            print(json.dumps({"of": "training pictures", **measure(real[0], real[1])}))
        vectors = latents(0, range(options.count), sampler.latent_size)
        made = sampler.shapes.parted(sampler.images(vectors))
        print(json.dumps({"of": run.name, **measure(made[0], made[1])}), flush=True)


if __name__ == "__main__":
    main()
