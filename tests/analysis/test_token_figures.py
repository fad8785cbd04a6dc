"""Pictures show the norms that they are given."""

import numpy as np
import pytest
from figure_checks import check

from vit_jax.analysis import token_figures


@pytest.mark.parametrize("cut", [None, 2.0])
def test_norms_of_the_last_layer_are_counted_and_all_layers_summarised(figures, tmp_path, cut):
    norms = np.exp(np.random.default_rng(0).normal(size=(3, 4, 9)))
    token_figures.draw_token_norms(norms, tmp_path / "a.png", cut=cut, title="norms")
    (figure,) = figures
    assert figure.get_figwidth() < 6.5  # inches: its letters can be read on a telephone
    check(figure)
    upper, lower = figure.axes
    assert sum(bar.get_height() for bar in upper.patches) == 4 * 9
    assert [line.get_xdata()[0] for line in upper.lines] == ([] if cut is None else [cut])
    flat = norms.reshape(3, -1)
    lines = {line.get_label(): line.get_ydata() for line in lower.lines}
    np.testing.assert_allclose(lines["median"], np.median(flat, axis=1))
    np.testing.assert_allclose(lines["largest"], flat.max(axis=1))
