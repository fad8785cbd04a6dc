"""Tests that need an NVIDIA GPU say so when they are skipped: `@on_gpu`.

Run them by `TEST_PLATFORM=cuda python -m pytest -n 0 -m gpu`.
"""

import jax
import pytest


def on_gpu(test):
    found = jax.default_backend()
    reason = f"needs an NVIDIA GPU, and the backend is {found!r}"
    return pytest.mark.gpu(pytest.mark.skipif(found != "gpu", reason=reason)(test))
