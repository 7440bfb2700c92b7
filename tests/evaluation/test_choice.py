"""Metrics by name, and their settings from the command line."""

from __future__ import annotations

import pytest

from tfgan_med.errors import UserError
from tfgan_med.evaluation.choice import choose, names, with_changes
from tfgan_med.metrics.cid import CID
from tfgan_med.metrics.kid import KID
from tfgan_med.metrics.prdc import PRDC


def test_all_means_every_file_that_compares_two_sets() -> None:
    metrics = choose()
    assert {type(m).__module__.rpartition(".")[2] for m in metrics} == set(names())
    assert [m.similarity for m in metrics if isinstance(m, CID)] == ["ssim", "lpips"]
    assert "paired" not in names()


def test_names_may_have_dashes_and_unknown_ones_are_answered_with_the_nearest() -> None:
    assert [type(m).__name__ for m in choose("kid, ms-ssim")] == ["KID", "MSSSIM"]
    with pytest.raises(UserError, match=r"precison: unknown metric\.|prdd: .* prdc"):
        choose("prdd")


def test_settings_change_one_metric_and_keep_what_options_said() -> None:
    (prdc,) = with_changes([PRDC(inclusive=True)], ["k=3"])
    assert isinstance(prdc, PRDC)
    assert (prdc.k, prdc.inclusive) == (3, True)
    kid, prdc = with_changes([KID(), PRDC()], ["prdc.k=4"])
    assert (kid, prdc) == (KID(), PRDC(k=4))


def test_settings_that_cannot_be_are_refused_with_a_pointer() -> None:
    with pytest.raises(UserError, match="describe prdc"):
        with_changes([PRDC()], ["neighbors=3"])
    with pytest.raises(UserError, match="describe prdc"):
        with_changes([PRDC()], ["k=many"])
    with pytest.raises(UserError, match=r"of which metric\?"):
        with_changes([KID(), PRDC()], ["k=3"])
