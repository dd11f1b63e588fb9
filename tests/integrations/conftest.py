"""What tests of hosts share."""

import pytest

from gcpo.semantics import policy


@pytest.fixture
def passes(monkeypatch):
    """Rows of each pass of ours."""
    found = []
    forward = policy.forward
    monkeypatch.setattr(policy, "forward", lambda *a: found.append(len(a[2])) or forward(*a))
    return found
