"""Several devices and several machines: the batches of one, the weights of one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfgan_med.errors import UserError
from tfgan_med.training import run_folder, runtime
from tfgan_med.training.settings import TrainConfig

SMOKE = Path(__file__).resolve().parents[2] / "configs" / "smoke" / "pix2pix.yaml"


def test_workers_and_devices_share_each_batch_in_order() -> None:
    data = tf.data.Dataset.from_tensor_slices({"x": tf.range(24)}).batch(8, drop_remainder=True)
    seen = []
    for worker in range(2):  # two workers of two devices each: batches of 2
        context = tf.distribute.InputContext(
            num_input_pipelines=2, input_pipeline_id=worker, num_replicas_in_sync=4
        )
        seen.append([batch["x"].numpy().tolist() for batch in runtime.share(data, context)])
    assert seen[0] == [[0, 1], [2, 3], [8, 9], [10, 11], [16, 17], [18, 19]]
    assert seen[1] == [[4, 5], [6, 7], [12, 13], [14, 15], [20, 21], [22, 23]]


def test_a_batch_that_devices_cannot_share_is_refused() -> None:
    with pytest.raises(UserError, match="train.batch_size=8"):
        runtime._check_divisible(6, 4)


def test_an_absent_gpu_is_refused() -> None:
    with pytest.raises(UserError, match="shows TensorFlow 0 GPUs"):
        runtime.start(TrainConfig(device="gpu:3"))


@pytest.mark.parametrize(
    ("flags", "expected"), [({"amx_bf16"}, "mixed_bfloat16"), (set(), "float32")]
)
def test_precision_auto_takes_bfloat16_where_the_processor_has_it(
    flags: set[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "cpu_flags", lambda: flags)
    assert runtime.settled(TrainConfig()).precision == expected
    assert runtime.settled(TrainConfig(precision="mixed_float16")).precision == "mixed_float16"


def test_xla_is_on_by_itself_with_a_gpu_only() -> None:
    assert not runtime.use_xla(TrainConfig())
    assert runtime.use_xla(TrainConfig(xla="on"))


@pytest.mark.slow
def test_two_machines_give_the_weights_of_one(tmp_path: Path) -> None:
    ports = [_free_port() for _ in range(2)]
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    command = [
        sys.executable, "-c", "from tfgan_med.cli.app import main; main()",
        "train", "pix2pix", "--config", str(SMOKE), "--set", "model.dropout=0",
        "--set", "model.decay=0", "--steps", "4", "--out",
    ]  # fmt: skip
    workers = [
        subprocess.Popen(
            [*command, str(tmp_path / "two"), "--strategy", "multiworker"],
            env={
                **os.environ,
                "TF_CONFIG": json.dumps(
                    {"cluster": cluster, "task": {"type": "worker", "index": index}}
                ),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    for worker in workers:
        _, said = worker.communicate(timeout=300)
        assert worker.returncode == 0, said
    assert len(list((tmp_path / "two").iterdir())) == 1  # the chief's run alone
    subprocess.run([*command, str(tmp_path / "one")], check=True, capture_output=True, timeout=300)
    states = [
        run_folder.read_arrays(next(folder.iterdir()) / "weights" / "generator.weights.h5")
        for folder in (tmp_path / "one", tmp_path / "two")
    ]
    for name, value in states[0].items():
        np.testing.assert_allclose(states[1][name], value, atol=1e-5, err_msg=name)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
