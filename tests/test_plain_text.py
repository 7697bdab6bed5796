"""Sizes in words."""

import pytest

from multipress.plain_text import megabytes


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0.00 MB"),
        (12, "0.0000120 MB"),
        (43_977, "0.0440 MB"),
        (779_072, "0.779 MB"),
        (994_999, "0.995 MB"),
        (995_000, "0.995 MB"),
        (997_000, "0.997 MB"),
        (999_999, "1.00 MB"),
        (38_240_905, "38.24 MB"),
    ],
)
def test_sizes_below_a_megabyte_have_three_digits_that_count(size, text):
    assert megabytes(size) == text
