"""Numbers and names as reports write them: "81.1 % (76.0 to 85.9)", "+2.3 points", "1 h 12 min"."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MISSING = "not measured"
MINUS = "−"

_LABELS = {
    "balanced_accuracy": "balanced accuracy",
    "recall": "recall (sensitivity)",
    "f1": "F1",
    "mcc": "MCC",
    "auc": "ROC-AUC",
    "average_precision": "PR-AUC",
    "brier": "Brier score",
    "tp": "true positives",
    "fp": "false positives",
    "fn": "false negatives",
    "tn": "true negatives",
    "fp_per_output": "false positives, counted per output as in the thesis",
    "fn_per_output": "false negatives, counted per output as in the thesis",
    "iou": "IoU",
    "dice": "Dice",
    "iou_pooled": "IoU, pooled pixels",
    "dice_pooled": "Dice, pooled pixels",
    "miou": "mean IoU with background",
    "fp_pixels": "false positive pixels",
    "fn_pixels": "false negative pixels",
    "fp_share": "false positive area",
    "fn_share": "false negative area",
}
_GENERATIVE = {"fid": "FID", "kid": "KID", "cid": "CID", "lpips": "LPIPS", "ms_ssim": "MS-SSIM"}
_COUNTS = {"tp", "fp", "fn", "tn", "errors", "fp_pixels", "fn_pixels"}
_COUNTS |= {"fp_per_output", "fn_per_output"}
_PLAIN = {"mcc", "brier"}  # neither a share of anything nor a count
_LOWER = {"brier", "fp", "fn", "errors", "fp_pixels", "fn_pixels", "fp_share", "fn_share"}
_LOWER |= {"fp_per_output", "fn_per_output"}


# Names --------------------------------------------------------------------------------------------


def label(metric: str) -> str:
    """What a reader calls a downstream metric."""
    score, _, of = metric.partition(" ")
    if of and score in ("iou", "dice"):
        return f"{_LABELS[score]} of {of}"
    return _LABELS.get(metric, metric.replace("_", " "))


def generative_label(metric: str) -> str:
    """What a reader calls a metric of generated pictures."""
    return _GENERATIVE.get(metric, metric.replace("_", " "))


def lower_is_better(metric: str) -> bool:
    """Whether a downstream metric counts mistakes."""
    return metric in _LOWER


def is_share(metric: str) -> bool:
    """Whether values lie in 0..1 and are written in percent."""
    return metric not in _COUNTS | _PLAIN


def slug(name: str) -> str:
    """A name that a file, an anchor and a LaTeX label can bear."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower() or "unnamed"


# Numbers ------------------------------------------------------------------------------------------


def scale(metric: str) -> float:
    """Factor from a stored value to the one shown."""
    return 100.0 if is_share(metric) else 1.0


def value(metric: str, number: float | None) -> str:
    """`81.1 %`, or a plain number for what is no share."""
    if number is None:
        return MISSING
    return _digits(metric, number) + (" %" if is_share(metric) else "")


def estimate(metric: str, mean: float | None, low: float | None, high: float | None) -> str:
    """`81.1 % (76.0 to 85.9)`; without an interval the value alone."""
    if mean is None or low is None or high is None:
        return value(metric, mean)
    return f"{value(metric, mean)} ({_digits(metric, low)} to {_digits(metric, high)})"


def difference(
    metric: str, number: float | None, low: float | None = None, high: float | None = None
) -> str:
    """`+2.3 points (−1.1 to +5.8)`, points being percentage points."""
    if number is None:
        return MISSING
    text = _signed(_digits(metric, number)) + (" points" if is_share(metric) else "")
    if low is None or high is None:
        return text
    return f"{text} ({_signed(_digits(metric, low))} to {_signed(_digits(metric, high))})"


def points(metric: str, number: float | None) -> str:
    """The size of a difference: `8.0 points`."""
    if number is None:
        return MISSING
    return _digits(metric, number) + (" points" if is_share(metric) else "")


def p_value(number: float | None) -> str:
    """Three decimals; smaller ones as `< 0.001`."""
    if number is None:
        return MISSING
    return "< 0.001" if number < 0.001 else f"{number:.3f}"


def significant(number: float | None) -> str:
    """Four significant digits, for metrics of any scale."""
    if number is None:
        return MISSING
    text = f"{number:.0f}" if abs(number) >= 1000 else f"{number:#.4g}".rstrip(".")
    return text.replace("-", MINUS)


def signed(number: float | None) -> str:
    """`significant` with its sign: `+2.300`."""
    if number is None:
        return MISSING
    text = significant(number)
    return f"+{text}" if number > 0 else text


def interval(number: float | None, low: float | None, high: float | None) -> str:
    """`significant` with its interval."""
    if number is None or low is None or high is None:
        return significant(number)
    return f"{significant(number)} ({significant(low)} to {significant(high)})"


def percent(share: float | None) -> str:
    """A share of time in whole percent."""
    return MISSING if share is None else f"{100 * share:.0f} %"


def minutes(number: float | None) -> str:
    """`18 s`, `12.3 min` or `1 h 12 min`."""
    if number is None:
        return MISSING
    if round(number * 60) < 60:
        return f"{number * 60:.0f} s"
    if round(number, 1) < 60:
        return f"{number:.1f} min"
    hours, rest = divmod(round(number), 60)
    return f"{hours} h {rest} min"


def memory(megabytes: float | None) -> str:
    """`900 MB` or `1.2 GB`."""
    if megabytes is None:
        return MISSING
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:.1f} GB"


def thousands(number: float | None) -> str:
    """`14 717 249`."""
    return MISSING if number is None else f"{number:,}".replace(",", "\N{NO-BREAK SPACE}")


def counts(of_classes: Mapping[str, int] | None) -> str:
    """`138 normal, 138 pneumonia`; one number where classes do not matter."""
    if not of_classes or not any(of_classes.values()):
        return "none"
    if set(of_classes) == {"all"}:
        return thousands(of_classes["all"])
    return ", ".join(f"{thousands(number)} {name}" for name, number in of_classes.items())


def setting(value: Any) -> str:
    """A setting's value: numbers short, lists joined, nothing as `none`."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(setting(entry) for entry in value)
    return str(value)


def _digits(metric: str, number: float) -> str:
    decimals = 3 if metric in _PLAIN else 1
    text = f"{number * scale(metric):.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", MINUS)


def _signed(digits: str) -> str:
    nothing = float(digits.replace(MINUS, "-")) == 0
    return digits if nothing or digits.startswith(MINUS) else f"+{digits}"
