"""Heavy reference libraries for parity tests, or a visible reason why they are missing.

And what such tests share: weights that hide nothing, and arrays in PyTorch's layout.
"""

import re
from importlib import metadata

import numpy as np
import pytest


def load_torch():
    return pytest.importorskip("torch", reason="needs torch: see .ci/run for how to install it")


def load_transformers():
    torch = load_torch()
    _allow_foreign_torchvision(torch)
    transformers = pytest.importorskip("transformers", reason="needs transformers: see .ci/run")
    transformers.logging.set_verbosity_error()
    return transformers


def load_timm():
    torch = load_torch()
    _allow_foreign_torchvision(torch)
    return pytest.importorskip("timm", reason="needs timm: see .ci/run")


def load_torchvision():
    torch = load_torch()
    _allow_foreign_torchvision(torch)
    return pytest.importorskip("torchvision", reason="needs torchvision: see .ci/run")


def load_torchmetrics():
    """Without its image metrics' torchvision, or with one for another torch."""
    torch = load_torch()
    _allow_foreign_torchvision(torch)
    return pytest.importorskip("torchmetrics", reason="needs torchmetrics: see .ci/run")


def load_tensorflow():
    return pytest.importorskip("tensorflow", reason="needs tensorflow-cpu: see .ci/run")


def _allow_foreign_torchvision(torch):
    """Lets a torchvision that was built for another torch be imported for its Python parts.

    There is none for the CPU build of torch; timm and transformers import it for transforms. Its
    import fails only where it describes operators that its compiled part would have defined, so
    those are declared here.
    """
    try:
        files = metadata.files("torchvision") or []
    except metadata.PackageNotFoundError:
        return
    (described,) = (f for f in files if f.name == "_meta_registrations.py")
    text = described.locate().read_text()
    names = re.findall(r'register_meta\("(\w+)"', text) + re.findall(r"torchvision::(\w+)", text)
    for name in dict.fromkeys(names):
        try:
            torch.library.define(f"torchvision::{name}", "(Tensor x) -> Tensor")
        except RuntimeError:  # it is there: torchvision fits, or this was done before
            return


def fill(module, scale=0.3):
    """Every parameter Gaussian, around one for the scales of norms; returns them as float32.

    The module itself then computes in float64: on the deeper maps of a ResNet the rounding of
    PyTorch's float32 was found to be 1.0e-5 of the largest value, and that of ours 3.7e-6.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    norms = (torch.nn.GroupNorm, torch.nn.LayerNorm)
    with torch.no_grad():
        for owner in module.modules():
            for name, parameter in owner.named_parameters(recurse=False):
                centre = 1.0 if isinstance(owner, norms) and name == "weight" else 0.0
                deviation = 0.3 if isinstance(owner, norms) else scale
                parameter.normal_(centre, deviation, generator=generator)
    weights = {name: value.numpy() for name, value in module.eval().state_dict().items()}
    module.double()
    return weights


def randomise(model, seed=0):
    """Every parameter random, so that no bias of zero and no scale of one hides a mistake."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        centre = 1.0 if ("norm" in name or "lambda" in name) and "bias" not in name else 0.0
        noise = torch.randn(parameter.shape, generator=generator) * 0.2
        parameter.data = centre + noise
    return model.eval()


def kernel(weights):
    """PyTorch's layout to ours: (out, in, h, w) to (h, w, in, out), (out, in) to (in, out)."""
    return weights.transpose(2, 3, 1, 0) if weights.ndim == 4 else weights.T


def to_torch(image):
    import torch

    return torch.from_numpy(np.float64(image).transpose(0, 3, 1, 2))


def from_torch(features):
    """(b, c, h, w) to (b, h, w, c); other arrays as they are."""
    array = features.detach().numpy()
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def assert_relatively_close(found, expected, tolerance=1e-5):
    """`tolerance` times the largest value."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())
