from collections.abc import Iterator
from unittest.mock import patch

import pytest


@pytest.fixture
def light() -> Iterator[None]:
    """Pages without plotly's five megabytes, so that what is left is our own."""
    with patch("plotly.offline.get_plotlyjs", return_value="/* plotly */"):
        yield
