"""What a chart shows can be read, in both themes."""

import re

import numpy as np
import pytest

from tests.support import ROOT, contrast
from training import charts

READABLE = 4.5  # least contrast of small text, WCAG 2.2, 1.4.3


def themes():
    """Return the colours of the light and of the dark theme."""
    css = (ROOT / "training" / "templates" / "colours.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    light, dark = (dict(re.findall(r"--([\w-]+): (#\w+)", part)) for part in (light, dark))
    return {"light": light, "dark": light | dark}


def channels(colour):
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    return np.array([int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_number_in_a_square_can_be_read(theme):
    colours = themes()[theme]
    values = np.linspace(0, 1, 21).reshape(3, 7)
    drawn = charts.grid("Numbers", values.tolist(), rows=list("abc"), columns=list("ABCDEFG"), x="x", y="y").__html__()

    opacities = [float(one) for one in re.findall(r'fill-opacity="([\d.]+)"', drawn)]
    styles = re.findall(r'class="number ?([\w-]*)"', drawn)
    assert len(opacities) == len(styles) == 21
    for opacity, style in zip(opacities, styles, strict=True):
        square = (1 - opacity) * channels(colours["paper"]) + opacity * channels(colours["first"])
        assert contrast(square, channels(colours[style or "on-faint"])) >= READABLE, opacity
