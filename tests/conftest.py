"""Shapes and dtypes are checked while tests run: jaxtyping annotations, enforced by beartype."""

import os
import signal

import hypothesis
import pytest
import torch
from jaxtyping import install_import_hook

# A shell without job control starts what runs in its background with SIGINT ignored, and so would be every
# process that the tests start and interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

install_import_hook(
    ["gcpo.groups", "gcpo.signals", "gcpo.advantages", "gcpo.recipes", "gcpo.semantics", "gcpo.probe"],
    "beartype.beartype",
)

hypothesis.settings.register_profile("default", max_examples=50, deadline=None)
hypothesis.settings.register_profile("ci", max_examples=50, deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(autouse=True)
def _one_thread_one_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)
