"""How long a user waits: `--help`, and `train` until its first step.

python benchmarks/startup.py [--repeats 5]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MAIN = [sys.executable, "-c", "from tfgan_med.cli.app import main; main()"]
SMOKE = Path(__file__).resolve().parents[1] / "configs" / "smoke" / "pix2pix.yaml"


def seconds_of_help() -> float:
    """Wall seconds of `tfgan-med --help`."""
    begin = time.perf_counter()
    subprocess.run([*MAIN, "--help"], check=True, capture_output=True)
    return time.perf_counter() - begin


def seconds_to_first_step() -> float:
    """Wall seconds from the start of `train` to the line of its first step, data decoded before."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*MAIN, "train", "pix2pix", "--config", str(SMOKE), "--out", folder]
        command += ["--steps", "1", "--set", "train.log_interval=1"]
        begin = time.perf_counter()
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if line.startswith("step 1/"):
                    elapsed = time.perf_counter() - begin
        if process.returncode:
            raise RuntimeError("the run failed")
    return elapsed


def main() -> None:
    """Measure both and print medians as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    seconds_to_first_step()  # makes the built-in set and warms the disk cache
    figures = {
        "help_seconds": statistics.median(seconds_of_help() for _ in range(repeats)),
        "first_step_seconds": statistics.median(seconds_to_first_step() for _ in range(repeats)),
    }
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
