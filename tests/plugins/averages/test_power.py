import pytest

from plugins.averages.power import Power
from registry import UserError


@pytest.mark.parametrize("widths", [[], [0.1, 0.1], [0.05, 0.1, 0.1002]])
def test_widths_that_are_none_or_alike_are_refused(widths):
    with pytest.raises(UserError, match="needs widths that differ"):
        Power(widths)
