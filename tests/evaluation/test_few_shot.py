"""Few-shot least squares: exactly ridge regression, on exactly the images that were asked for."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from vit_jax.errors import InputError
from vit_jax.evaluation import few_shot

K = 4


def clusters(n, d, *, seed=0, spread=1.0):
    """Features around one centre a class, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % K)
    centres = np.random.default_rng(99).normal(size=(K, d))
    return (centres[labels] + spread * rng.normal(size=(n, d))).astype(np.float32), labels


@pytest.mark.parametrize("n, d", [(40, 7), (12, 30)])
@pytest.mark.parametrize("l2", [1e-2, 2.0**10])
def test_weights_are_those_of_ridge_regression(n, d, l2):
    features, labels = clusters(n, d)
    found = few_shot.fit(features, labels, num_classes=K, l2=l2)
    x = (features.astype(np.float64) - features.mean(0, np.float64)) / (
        features.std(0, dtype=np.float64) + 1e-5
    )
    x = np.concatenate([x, np.full((n, 1), 100.0)], axis=1)
    targets = np.where(labels[:, None] == np.arange(K), 1.0, -1.0)
    reference = Ridge(alpha=l2, fit_intercept=False, solver="svd").fit(x, targets)
    *weights, bias = reference.coef_.T
    np.testing.assert_allclose(found.weights, weights, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.bias, 100 * bias, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found(features), reference.predict(x), rtol=1e-6, atol=1e-9)


def test_bias_is_hardly_penalised():
    """The mean output is the mean target, k - 1 times -1 and once 1, to the share l2 / (n·100²)."""
    features, labels = clusters(40, 7)
    outputs = few_shot.fit(features, labels, num_classes=K, l2=2.0**10)(features)
    np.testing.assert_allclose(outputs.mean(0), (2 - K) / K, rtol=2**10 / (40 * 100**2))


@pytest.mark.parametrize("shots", [1, 5])
def test_so_many_images_of_each_class_are_taken_and_seeds_take_others(shots):
    _, labels = clusters(100, 2)
    chosen = few_shot.choose_shots(labels, shots=shots, seed=0)
    assert len(set(chosen)) == K * shots
    np.testing.assert_array_equal(np.bincount(labels[chosen]), [shots] * K)
    again, other = (few_shot.choose_shots(labels, shots=shots, seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(chosen, again)
    assert set(chosen) != set(other)


def test_accuracy_reads_the_chosen_images_alone_and_grows_with_them():
    train, test = clusters(400, 8, spread=1.5), clusters(400, 8, seed=1, spread=1.5)
    chosen = few_shot.choose_shots(train[1], shots=2, seed=3)
    spoilt = np.full_like(train[0], np.nan)
    spoilt[chosen] = train[0][chosen]
    one, other = (
        few_shot.few_shot_accuracy(x, train[1], *test, shots=2, seed=3) for x in (train[0], spoilt)
    )
    assert one == other
    means = [
        np.mean([few_shot.few_shot_accuracy(*train, *test, shots=s, seed=i) for i in range(5)])
        for s in (1, 5, 25)
    ]
    assert 1 / K < means[0] < means[1] < means[2] < 1


def test_labels_need_not_begin_at_zero():
    (x, y), (x_test, y_test) = clusters(80, 6), clusters(80, 6, seed=1)
    expected = few_shot.few_shot_accuracy(x, y, x_test, y_test, shots=5)
    moved = few_shot.few_shot_accuracy(x, 3 * y + 7, x_test, 3 * y_test + 7, shots=5)
    assert moved == expected


def test_mistakes_are_told():
    features, labels = clusters(8, 3)
    with pytest.raises(InputError, match="class 0 has 2 training images; allowed: 3 or more"):
        few_shot.few_shot_accuracy(features, labels, features, labels, shots=3)
    with pytest.raises(InputError, match="shots is 0; allowed"):
        few_shot.few_shot_accuracy(features, labels, features, labels, shots=0)
    with pytest.raises(InputError, match="l2 is 0.0; allowed"):
        few_shot.few_shot_accuracy(features, labels, features, labels, shots=1, l2=0.0)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(test_labels=np.array([0, 1, 7])), "class 7 of test images has no training image"),
        (dict(test_features=np.full((3, 4), np.nan)), "test features are not all finite"),
        (dict(train_features=np.full((6, 4), np.inf)), "training features are not all finite"),
        (dict(l2=float("nan")), "l2 is nan; allowed: a finite"),
        (
            dict(test_features=np.zeros((0, 4)), test_labels=np.zeros(0, int)),
            "3 training and 0 test",
        ),
    ],
)
def test_what_would_be_an_accuracy_of_nothing_is_refused(change, message):
    given = dict(
        train_features=np.ones((6, 4)),
        train_labels=np.arange(6) % 3,
        test_features=np.ones((3, 4)),
        test_labels=np.arange(3),
        l2=1.0,
    )
    assert 0 <= few_shot.few_shot_accuracy(**given, shots=1) <= 1
    with pytest.raises(InputError, match=message):
        few_shot.few_shot_accuracy(**(given | change), shots=1)
