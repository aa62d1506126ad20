"""How findings are shown."""

import dataclasses

import torch

from ldm.doctor.file import nearest_model
from ldm.doctor.report import Finding, render, verdict


def test_the_report_fits_the_terminal(toyworld, known):
    finding = nearest_model({**toyworld, **{f"unet.{i}.surplus": torch.zeros(1) for i in range(5)}}, known)[1]
    text = render([finding, Finding("precision", "ok", "short", table=["a", "b"])], 80)
    assert max(map(len, text.splitlines())) <= 80
    assert text.splitlines()[-1] == " " * 21 + "b"


def test_the_verdict_names_what_is_wrong():
    good, bad = Finding("model", "ok", "", "ToyWorld"), Finding("weights", "PROBLEM", "", "NaN in 1 tensors")
    assert verdict([good]) == ("verdict: fine: ToyWorld", True)
    assert verdict([good, bad, dataclasses.replace(bad, short="b")]) == ("verdict: broken: NaN in 1 tensors; b", False)
