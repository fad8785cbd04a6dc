"""Sums and probabilities are SciPy's; classes that may not be chosen have none."""

import numpy as np
import scipy.special
from evaluation_checks import split

from vit_jax.evaluation import logits

VALUES = np.random.default_rng(0).normal(0, 30, size=(20, 4)).astype(np.float32)
EXAMPLES = (np.zeros((20, 2), np.float32), np.zeros(20, int))


def test_sums_and_probabilities_are_those_of_scipy():
    doubles = VALUES.astype(np.float64)
    found = logits.log_softmax(VALUES)
    np.testing.assert_allclose(found, scipy.special.log_softmax(doubles, axis=1), atol=1e-12)
    found = logits.log_sum_exp(VALUES)
    np.testing.assert_allclose(found, scipy.special.logsumexp(doubles, axis=1), rtol=1e-12)


def test_only_classes_that_can_occur_are_chosen_from():
    outputs = split(EXAMPLES, 4, logits=VALUES, present=(1, 3))
    among, number = logits.chosen(outputs)
    p = np.exp(logits.log_softmax(among))
    assert number == 2 and (p[:, [0, 2]] == 0).all()
    doubles = VALUES[:, [1, 3]].astype(np.float64)
    np.testing.assert_allclose(p[:, [1, 3]], scipy.special.softmax(doubles, axis=1))
    assert logits.chosen(outputs, "all").logits is VALUES
    everything = logits.chosen(split(EXAMPLES, 4, logits=VALUES))
    assert everything.logits is VALUES and everything.number == 4
