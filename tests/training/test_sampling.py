"""Generated sets: what is made, in which files, and that stopping, batches and formats change none
of it. The runs are written by hand around small generators with random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
import yaml
from PIL import Image, ImageSequence

from tfgan_med import config, files
from tfgan_med.data import decode, opening, synthetic, writers
from tfgan_med.data.encoding import Encoding
from tfgan_med.data.records import DataConfig, Part
from tfgan_med.errors import TrainingError, UserError
from tfgan_med.ops.latents import latents, slerp
from tfgan_med.training import sampling, settings, weights
from tfgan_med.training.run_folder import RunFolder
from tfgan_med.training.sampling import ImageShapes, Order, Sampler, build_model, generate_folder

GREY = Encoding(role="images", kind="image", channels=1)
COLOR = Encoding(role="images", kind="image", channels=3)
DEEP = COLOR.model_copy(update={"dtype": "uint16", "window": (0.0, 65535.0)})
MASK = Encoding(role="masks", kind="mask", channels=1)


def make_run(
    run: Path,
    *encodings: Encoding,
    label: str | None = None,
    seed: int = 0,
    ema: float | None = None,
) -> Path:
    """A run folder as training leaves it, of a DCGAN of 32 px with random weights.

    With `ema` there is a checkpoint too, of the networks of training.
    """
    chosen = settings.resolve(
        "dcgan",
        None,
        ["data.path=somewhere", "data.image_size=32", "model.generator_base=32",
         "model.discriminator_base=4", "model.latent_size=8", f"model.ema={ema or 0}",
         f"train.seed={seed}", "train.calibration_batches=3"],
    )  # fmt: skip
    shapes = ImageShapes(system="dcgan", image_size=32, encodings=encodings or (GREY,), label=label)
    model = build_model(chosen, shapes, inference=ema is None)
    for weight in model.average("generator").weights:
        if weight.name == "kernel":
            weight.assign(8.0 * weight.value)  # pictures with contrast
    folder = RunFolder(run)
    for below in ("weights", "checkpoints"):
        (run / below).mkdir(parents=True)
    files.write_text(run / "config.yaml", config.as_yaml(chosen, commented=True))
    network = yaml.safe_dump(shapes.model_dump(mode="json"), sort_keys=False)
    files.write_text(run / "weights" / "network.yaml", network)
    if ema is not None:
        folder.save_checkpoint(model.state(), {"step": 3})
    weights.save(folder, "generator", model.prepare_samples(3))
    items = [{"id": f"{i}.png", "split": "train", "sha256": {"images": "0"}} for i in range(5)]
    files.write_json(run / "data.json", {"items": items})
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey pictures."""
    return make_run(tmp_path_factory.mktemp("runs") / "0001-grey")


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in colour with their masks, of the class bad."""
    return make_run(tmp_path_factory.mktemp("runs") / "0002-masked", COLOR, MASK, label="bad")


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `train --per-class` leaves it."""
    parent = tmp_path_factory.mktemp("runs") / "0003-classes"
    for seed, label in enumerate(("abnormal", "normal")):
        make_run(parent / label, label=label, seed=seed)
    names = {"classes": {"abnormal": "abnormal", "normal": "normal"}}
    files.write_json(parent / "classes.json", names)
    return parent


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def entries(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "provenance.json").read_text())["images"]
    return found


def pixels(path: Path) -> npt.NDArray[Any]:
    return decode.read_picture(Part(path), 10**6)


# The sampler --------------------------------------------------------------------------------------


def test_the_size_of_the_batch_does_not_change_pictures(masked: Path) -> None:
    vectors = latents(0, range(20), 8)
    one, seven, many = (Sampler(masked, batch=batch).pictures(vectors) for batch in (1, 7, 64))
    assert [part.shape for part in many] == [(20, 32, 32, 3), (20, 32, 32, 1)]
    assert [part.dtype for part in many] == [np.uint8, np.uint8]
    assert many[0].std() > 20  # pictures with contrast, so that the comparison says something
    assert len(np.unique(many[0][:, 16, 16], axis=0)) > 10
    assert set(np.unique(many[1])) == {0, 255}
    for other in (one, seven):
        assert np.abs(other[0].astype(int) - many[0]).max() <= 1
        assert (other[1] != many[1]).mean() < 1e-4


def test_the_function_is_compiled_once(run: Path) -> None:
    sampler = Sampler(run, batch=4)
    for count in (1, 4, 9):
        assert len(sampler.pictures(latents(0, range(count), 8))[0]) == count
    assert sampler._forward.experimental_get_tracing_count() == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_checkpoint_makes_the_pictures_of_the_export_of_its_step(
    ema: float, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", ema=ema)
    vectors = latents(0, range(8), 8)
    final, latest = Sampler(run), Sampler(run, "latest")
    np.testing.assert_allclose(final.images(vectors), latest.images(vectors), atol=1e-5)
    assert final.facts["batch_norm_statistics"] == "stored with the weights"
    assert latest.facts["batch_norm_statistics"]["batches"] == 3
    assert latest.facts["weights"]["file"] == "checkpoints/step-000003/model.weights.h5"


def test_large_pictures_are_computed_few_at_once(run: Path) -> None:
    assert Sampler(run).batch == 64
    assert min(64, sampling.BATCH_PIXELS // 512**2) == 4


def test_pictures_of_floating_point_values_are_written_in_16_bits(tmp_path: Path) -> None:
    values = Encoding(role="images", kind="image", channels=1, window=(-3.0, 4.5), dtype="float32")
    sampler = Sampler(make_run(tmp_path / "run", values))
    vectors = latents(0, range(3), 8)
    (made,) = sampler.pictures(vectors)
    expected = np.rint(65535 * (sampler.images(vectors).astype(np.float64) + 1) / 2)
    np.testing.assert_array_equal(made, expected.astype(np.uint16))


def test_what_has_no_latent_vectors_is_refused(tmp_path: Path, run: Path) -> None:
    with pytest.raises(UserError, match=r"network\.yaml"):
        Sampler(tmp_path)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "network.yaml").write_text("system: pix2pix\n")
    assert sampling.kind_of(tmp_path) == "pairs"
    with pytest.raises(UserError, match="tfgan-med translate"):
        Sampler(tmp_path)


def test_a_run_without_weights_says_so(run: Path, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    for name in ("config.yaml", "weights/network.yaml"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    with pytest.raises(TrainingError, match="no whole checkpoint"):
        Sampler(tmp_path)


# A folder -----------------------------------------------------------------------------------------


def test_a_folder_is_a_data_set_with_masks_classes_and_marks(masked: Path, tmp_path: Path) -> None:
    out = tmp_path / "made"
    made = generate_folder([Sampler(masked, batch=4)], out, Order(6))
    assert (made.pictures, made.added) == (6, 6)
    found = opening.open_set(DataConfig(path=str(out)))
    assert (found.layout, len(found.records), found.faults) == ("paired", 6, ())
    assert {record.label for record in found.records} == {"bad"}
    assert all(set(record.parts) == {"images", "masks"} for record in found.records)
    for path in [*(out / "images").iterdir(), *(out / "masks").iterdir()]:
        with Image.open(path) as picture:
            assert picture.info["Synthetic"] == "yes"
            assert picture.mode == ("RGB" if path.parent.name == "images" else "L")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["made"]
    names = ["images", "masks", "provenance.json", "splits.csv"]
    assert sorted(p.name for p in out.iterdir()) == names


def test_provenance_tells_weights_settings_and_training_items(run: Path, tmp_path: Path) -> None:
    generate_folder([Sampler(run)], tmp_path / "made", Order(3, seed=7, truncation=0.5))
    facts = json.loads((tmp_path / "made" / "provenance.json").read_text())
    exported = run / "weights" / "generator.weights.h5"
    assert facts["synthetic"] is True
    assert (facts["run"], facts["system"], facts["role"]) == ("0001-grey", "dcgan", "images")
    assert facts["weights"]["sha256"] == files.sha256_of(exported)
    assert (facts["seed"], facts["truncation"], facts["count"]) == (7, 0.5, 3)
    assert [item["id"] for item in facts["trained_on"]] == [f"{i}.png" for i in range(5)]
    assert facts["images"] == [
        {"file": f"images/00000{i}.png", "seed": 7, "index": i} for i in range(3)
    ]


@pytest.mark.parametrize("truncation", [None, 0.5])
def test_an_entry_of_the_provenance_makes_its_picture_again(
    truncation: float | None, run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "made"
    generate_folder([Sampler(run)], out, Order(70, seed=9, truncation=truncation))
    for entry in (entries(out)[3], entries(out)[69]):
        vector = latents(entry["seed"], [entry["index"]], 8, truncation)
        (again,) = Sampler(run).pictures(vector)
        np.testing.assert_array_equal(pixels(out / entry["file"]), again[0])


def test_by_default_there_are_as_many_as_it_was_trained_on(run: Path, tmp_path: Path) -> None:
    assert generate_folder([Sampler(run)], tmp_path / "made", Order()).pictures == 5
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match="--count"):
        sampling.training_count(tmp_path / "run")


def test_masks_alone_are_a_set_of_masks(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", MASK)
    generate_folder([Sampler(run)], tmp_path / "made", Order(2))
    found = opening.open_set(DataConfig(path=str(tmp_path / "made")))
    assert (found.layout, len(found.records)) == ("masks", 2)
    assert entries(tmp_path / "made")[0]["file"] == "masks/000000.png"


def test_16_bit_color_is_tiff(tmp_path: Path) -> None:
    sampler = Sampler(make_run(tmp_path / "run", DEEP))
    out = tmp_path / "made"
    generate_folder([sampler], out, Order(2))
    assert [entry["file"] for entry in entries(out)] == ["images/000000.tif", "images/000001.tif"]
    (expected,) = sampler.pictures(latents(0, range(2), 8))
    np.testing.assert_array_equal(pixels(out / "images/000001.tif"), expected[1])
    assert expected.max() > 40_000


# Classes ------------------------------------------------------------------------------------------


def test_each_class_has_its_folder_and_its_generator(classes: Path, tmp_path: Path) -> None:
    samplers = [Sampler(path, batch=4) for path in sampling.class_runs(classes).values()]
    made = generate_folder(samplers, tmp_path / "made", Order(5))
    assert made.pictures == 10
    found = opening.open_set(DataConfig(path=str(tmp_path / "made")))
    assert (found.layout, found.labels, len(found.records)) == (
        "folder",
        ("abnormal", "normal"),
        10,
    )
    assert not found.faults
    facts = json.loads((tmp_path / "made" / "provenance.json").read_text())
    assert facts["run"] == "0003-classes"
    assert facts["classes"]["normal"]["weights"] == samplers[1].facts["weights"]
    assert facts["images"][7] == {
        "file": "normal/000002.png", "class": "normal", "seed": 0, "index": 2
    }  # fmt: skip
    (expected,) = samplers[1].pictures(latents(0, range(4), 8))
    np.testing.assert_array_equal(pixels(tmp_path / "made/normal/000002.png"), expected[2])


def test_names_that_mean_something_else_are_classes_in_a_table(tmp_path: Path) -> None:
    samplers = []
    for label, folder in (("train", "train"), ("a/b", "a-b")):
        samplers.append(Sampler(make_run(tmp_path / "runs" / folder, label=label)))
    generate_folder(samplers, tmp_path / "made", Order(2))
    found = opening.open_set(DataConfig(path=str(tmp_path / "made")))
    assert not found.faults
    labels = {record.id: record.label for record in found.records}
    assert labels == {
        "images/a-b/000000.png": "a/b", "images/a-b/000001.png": "a/b",
        "images/train/000000.png": "train", "images/train/000001.png": "train",
    }  # fmt: skip


def test_classes_with_masks_keep_pictures_and_masks_together(tmp_path: Path) -> None:
    samplers = [
        Sampler(make_run(tmp_path / "runs" / label, GREY, MASK, label=label)) for label in "xy"
    ]
    generate_folder(samplers, tmp_path / "made", Order(2))
    found = opening.open_set(DataConfig(path=str(tmp_path / "made")))
    assert not found.faults
    assert [(record.id, record.label) for record in found.records] == [
        ("images/x/000000.png", "x"), ("images/x/000001.png", "x"),
        ("images/y/000000.png", "y"), ("images/y/000001.png", "y"),
    ]  # fmt: skip
    assert found.roles == ("images", "masks")


def test_a_class_outside_of_the_run_is_refused(tmp_path: Path) -> None:
    files.write_json(tmp_path / "classes.json", {"classes": {"normal": "../elsewhere"}})
    with pytest.raises(UserError, match="no folder of the run"):
        sampling.class_runs(tmp_path)


# Formats ------------------------------------------------------------------------------------------


def test_numpy_shards_hold_pictures_masks_indices_seeds_and_labels(
    masked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writers, "SHARD_PICTURES", 5)
    sampler = Sampler(masked, batch=4)
    generate_folder([sampler], tmp_path / "made", Order(12, seed=3, form="npz"))
    names = [f"shard-0000{i}.npz" for i in range(3)]
    assert sorted(p.name for p in (tmp_path / "made").iterdir()) == ["provenance.json", *names]
    expected = sampler.pictures(latents(3, range(12), 8))
    for number, name in enumerate(names):
        rows = slice(5 * number, min(5 * number + 5, 12))
        with np.load(tmp_path / "made" / name, allow_pickle=False) as stored:
            np.testing.assert_array_equal(stored["images"], expected[0][rows])
            np.testing.assert_array_equal(stored["masks"], expected[1][rows])
            assert stored["indices"].tolist() == list(range(12))[rows]
            assert set(stored["seeds"]) == {3}
            assert set(stored["labels"]) == {"bad"}
    assert [entry["file"] for entry in entries(tmp_path / "made")][4:6] == names[:2]


@pytest.mark.parametrize("encodings", [(COLOR, MASK), (GREY,), (DEEP,)])
def test_records_hold_png_pictures_of_the_same_pixels(
    encodings: tuple[Encoding, ...], tmp_path: Path
) -> None:
    sampler = Sampler(make_run(tmp_path / "run", *encodings, label="bad"))
    generate_folder([sampler], tmp_path / "made", Order(3, seed=3, form="tfrecord"))
    expected = sampler.pictures(latents(3, range(3), 8))
    (shard,) = (tmp_path / "made").glob("*.tfrecord")
    for index, record in enumerate(tf.data.TFRecordDataset(str(shard))):
        feature = tf.train.Example.FromString(record.numpy()).features.feature
        for role, encoding, values in zip(("images", "masks"), encodings, expected, strict=False):
            png = feature[role].bytes_list.value[0]
            dtype = tf.uint16 if encoding.dtype == "uint16" else tf.uint8
            np.testing.assert_array_equal(tf.io.decode_png(png, dtype=dtype), values[index])
            (tmp_path / "one.png").write_bytes(png)  # Pillow checks every checksum
            with Image.open(tmp_path / "one.png") as picture:
                assert picture.info["Synthetic"] == "yes"
                picture.load()
        assert feature["index"].int64_list.value[0] == index
        assert feature["seed"].int64_list.value[0] == 3
        assert feature["label"].bytes_list.value[0] == b"bad"
    assert index == 2


def test_a_shard_of_large_pictures_is_short(tmp_path: Path) -> None:
    def length(size: int, *encodings: Encoding) -> int:
        return writers.ArrayWriter(tmp_path, writers.Plan(10**5, size, encodings)).length

    assert length(64, GREY) == 1000
    assert length(1024, COLOR, MASK) * 1024**2 * 4 == writers.SHARD_BYTES
    assert length(1024, DEEP) * 1024**2 * 6 <= writers.SHARD_BYTES


# Stopping and going on ----------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for a signal."""


def stopped_after(done: int) -> Callable[[int, int], None]:
    def progress(reached: int, total: int) -> None:
        if reached >= done:
            raise Killed

    return progress


@pytest.mark.parametrize("form", ["png", "npz", "tfrecord"])
def test_a_stopped_generation_goes_on_to_the_same_bytes(
    form: str, masked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writers, "SHARD_PICTURES", 5)
    order, whole, part = Order(22, seed=5, form=form), tmp_path / "whole", tmp_path / "made.part"
    generate_folder([Sampler(masked, batch=4)], whole, order)
    with pytest.raises(Killed):
        generate_folder([Sampler(masked, batch=4)], tmp_path / "made", order,
                        progress=stopped_after(12))  # fmt: skip
    assert not (tmp_path / "made").exists()
    assert (part / "generation.json").is_file()
    there = sorted(p for p in part.rglob("*") if p.suffix in (".png", ".npz", ".tfrecord"))
    there[0].unlink()
    there[-1].with_name(f".{there[-1].name}.0a1b2c3d.tmp").write_bytes(b"half")
    kept = {p: p.stat().st_mtime_ns for p in there if p.name != there[0].name}
    made = generate_folder([Sampler(masked, batch=4)], tmp_path / "made", order)
    assert made.pictures == 22
    assert made.added == {"png": 22 - 12 + 1, "npz": 22 - 5, "tfrecord": 22 - 5}[form]
    assert content(tmp_path / "made") == content(whole)
    assert not part.exists()
    for path, when in kept.items():  # whole files were not written again
        assert (tmp_path / "made" / path.relative_to(part)).stat().st_mtime_ns == when


def test_classes_go_on_too(classes: Path, tmp_path: Path) -> None:
    def samplers() -> list[Sampler]:
        return [Sampler(path, batch=4) for path in sampling.class_runs(classes).values()]

    generate_folder(samplers(), tmp_path / "whole", Order(6))
    with pytest.raises(Killed):
        generate_folder(samplers(), tmp_path / "made", Order(6), progress=stopped_after(10))
    assert generate_folder(samplers(), tmp_path / "made", Order(6)).added == 2
    assert content(tmp_path / "made") == content(tmp_path / "whole")


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (Order(9), r"another count \(8, now 9\)"),
        (Order(8, seed=1), r"another seed \(0, now 1\)"),
        (Order(8, truncation=1.0), r"another truncation \(None, now 1.0\)"),
        (Order(8, form="npz"), r"another format \(png, now npz\)"),
    ],
)
def test_an_unfinished_generation_of_another_order_is_kept_unless_forced(
    other: Order, told: str, run: Path, tmp_path: Path
) -> None:
    sampler, out = Sampler(run, batch=4), tmp_path / "made"
    with pytest.raises(Killed):
        generate_folder([sampler], out, Order(8), progress=stopped_after(4))
    before = content(sampling.part_of(out))
    with pytest.raises(UserError, match=told) as caught:
        generate_folder([sampler], out, other)
    assert "--force" in str(caught.value)
    assert content(sampling.part_of(out)) == before
    generate_folder([sampler], out, other, replace=True)
    generate_folder([sampler], tmp_path / "fresh", other)
    assert content(out) == content(tmp_path / "fresh")


def test_other_weights_do_not_go_on(run: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        generate_folder([Sampler(run, batch=4)], tmp_path / "made", Order(8),
                        progress=stopped_after(4))  # fmt: skip
    other = make_run(tmp_path / "0001-grey", seed=1)
    with pytest.raises(UserError, match="another run"):
        generate_folder([Sampler(other, batch=4)], tmp_path / "made", Order(8))


def test_a_folder_of_the_users_is_never_deleted(run: Path, tmp_path: Path) -> None:
    part = tmp_path / "made.part"
    part.mkdir()
    (part / "thesis.txt").write_text("mine")
    for replace in (False, True):
        with pytest.raises(UserError, match="in the way"):
            generate_folder([Sampler(run)], tmp_path / "made", Order(2), replace)
    assert (part / "thesis.txt").read_text() == "mine"


def test_two_processes_do_not_write_one_folder(run: Path, tmp_path: Path) -> None:
    sampler, part = Sampler(run, batch=4), tmp_path / "made.part"
    with pytest.raises(Killed):
        generate_folder([sampler], tmp_path / "made", Order(8), progress=stopped_after(4))
    with RunFolder(part).locked():
        for order, replace in ((Order(8), False), (Order(9), True)):
            with pytest.raises(UserError, match="in use by process"):
                generate_folder([sampler], tmp_path / "made", order, replace)
    assert generate_folder([sampler], tmp_path / "made", Order(8)).added == 4


def test_an_older_folder_stays_until_the_new_one_is_whole(run: Path, tmp_path: Path) -> None:
    sampler, out = Sampler(run, batch=4), tmp_path / "made"
    generate_folder([sampler], out, Order(4))
    before = content(out)
    with pytest.raises(Killed):
        generate_folder([sampler], out, Order(8), replace=True, progress=stopped_after(4))
    assert content(out) == before
    generate_folder([sampler], out, Order(8), replace=True)
    assert len(entries(out)) == 8


def test_a_full_disk_says_that_the_command_goes_on(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **more: Any) -> None:
        raise OSError(28, "No space left on device")

    sampler = Sampler(run, batch=4)
    with monkeypatch.context() as patch:
        patch.setattr(synthetic, "write_picture", full)
        with pytest.raises(TrainingError, match="same command"):
            generate_folder([sampler], tmp_path / "made", Order(4))
    assert generate_folder([sampler], tmp_path / "made", Order(4)).added == 4


# Ways ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["spherical", "linear"])
def test_a_way_begins_and_ends_with_pictures_of_the_set(
    path: str, masked: Path, tmp_path: Path
) -> None:
    sampler = Sampler(masked)
    generate_folder([sampler], tmp_path / "made", Order(6, seed=4))
    frames = sampling.interpolate(sampler, 2, 5, 7, path, Order(seed=4))
    assert [part.shape for part in frames] == [(7, 32, 32, 3)] * 2
    for frame, index in ((0, 2), (-1, 5)):
        picture = pixels(tmp_path / "made" / "images" / f"00000{index}.png")
        mask = pixels(tmp_path / "made" / "masks" / f"00000{index}.png")
        assert np.abs(frames[0][frame].astype(int) - picture).max() <= 1
        np.testing.assert_array_equal(frames[1][frame][..., :1], mask)
    assert set(np.unique(frames[1])) == {0, 255}


def test_the_middle_of_the_way_is_that_of_its_vectors(run: Path) -> None:
    sampler = Sampler(run)
    ends = latents(0, (0, 1), 8)
    (frames,) = sampling.interpolate(sampler, 0, 1, 3, "spherical", Order())
    (middle,) = sampler.pictures(slerp(ends[0], ends[1], 3)[1:2])
    assert np.abs(frames[1][..., :1].astype(int) - middle[0]).max() <= 1
    (straight,) = sampling.interpolate(sampler, 0, 1, 3, "linear", Order())
    assert np.abs(frames[1].astype(int) - straight[1]).max() > 5


def test_strip_and_film_show_all_steps_and_are_marked(masked: Path, tmp_path: Path) -> None:
    frames = sampling.interpolate(Sampler(masked), 0, 1, 5, "spherical", Order())
    strip, film = sampling.write_interpolation(tmp_path / "way", frames)
    with Image.open(strip) as picture:
        assert picture.info["Synthetic"] == "yes"
        sheet = np.asarray(picture)
    assert sheet.shape == (2 * 32 + 2, 5 * 32 + 4 * 2, 3)
    np.testing.assert_array_equal(sheet[:32, 34:66], frames[0][1])
    np.testing.assert_array_equal(sheet[34:, :32], frames[1][0])
    with Image.open(film) as moving:
        assert (
            len(list(ImageSequence.Iterator(moving))) == 8
        )  # there and back without the ends twice
        assert (moving.size, moving.info["loop"]) == ((64, 32), 0)
        assert moving.info["comment"] == b"Synthetic=yes"
        moving.seek(3)
        shown = np.asarray(moving.convert("RGB")).astype(int)
    # a palette of 256 colors for a picture of up to 1024: near, not equal
    assert np.abs(shown - np.concatenate([frames[0][3], frames[1][3]], axis=1)).mean() < 6


def test_a_grey_film_is_exact(run: Path, tmp_path: Path) -> None:
    frames = sampling.interpolate(Sampler(run), 0, 1, 3, "linear", Order())
    _, film = sampling.write_interpolation(tmp_path / "way", frames)
    with Image.open(film) as moving:
        for index in range(3):
            moving.seek(index)
            np.testing.assert_array_equal(np.asarray(moving.convert("RGB")), frames[0][index])
