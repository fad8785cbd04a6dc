"""Multi-crop: shapes, areas of each kind of view, and each view's own colours."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from vit_jax.data.augment.build import build_augment
from vit_jax.data.images.decode import Encoded
from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.errors import InputError

PREPROCESSING = Preprocessing(image_size=(32, 32), channels=3, interpolation="bicubic")
PLAIN = {"blur": (0, 0, 0), "solarize": (0, 0, 0)}


def build(multi_crop, **settings):
    return build_augment(
        preprocessing=PREPROCESSING, multi_crop=multi_crop, **{"crop": "inception", **settings}
    )


def noise(h, w, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), np.uint8)


@pytest.mark.parametrize("local_size, found_size", [(16, (16, 16)), ((12, 20), (12, 20))])
def test_shapes_and_reproducibility(local_size, found_size):
    settings = dict(num_local=5, local_size=local_size)
    transform = pickle.loads(pickle.dumps(build(settings, flip_probability=0.5, grayscale={})))
    example = {"image": noise(50, 60), "label": 7, "boxes": np.zeros((1, 4), np.float32)}
    first, again, other = (transform(example, np.random.default_rng(k)) for k in (0, 0, 1))
    assert first.keys() == {"label", "global_images", "local_images"} and first["label"] == 7
    assert first["global_images"].shape == (2, 32, 32, 3)
    assert first["local_images"].shape == (5, *found_size, 3)
    for name in ("global_images", "local_images"):
        assert first[name].dtype == np.uint8 and np.array_equal(first[name], again[name])
        assert not np.array_equal(first[name], other[name])
        assert len({view.tobytes() for view in first[name]}) == len(first[name])


def test_without_local_views_there_is_no_field():
    found = build({"num_local": 0})({"image": noise(50, 60)}, np.random.default_rng(0))
    assert found.keys() == {"global_images"}


def test_encoded_images_give_the_same():
    image, stream = noise(50, 60), io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    found, expected = (
        build({})({"image": given}, np.random.default_rng(0))
        for given in (Encoded(stream.getvalue(), "memory"), image)
    )
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_areas_of_the_views():
    """On a plane whose slopes are known, the range of values of a view tells its sides."""
    rows, columns = np.indices((256, 256), np.uint8)
    image = np.stack([rows, columns, columns], axis=-1)
    transform = build({**PLAIN, "num_local": 2, "global_area": (0.4, 0.6)})
    drawn = {"global_images": [], "local_images": []}
    for seed in range(400):
        found = transform({"image": image}, np.random.default_rng(seed))
        for name, values in drawn.items():
            for view in found[name].astype(float):
                # The outer rows of a view of n show the centres of the outer n-ths.
                stretch = view.shape[0] / (view.shape[0] - 1)
                height = (view[..., 0].max() - view[..., 0].min()) * stretch
                width = (view[..., 1].max() - view[..., 1].min()) * stretch
                values.append(height * width / 256**2)
    for name, low, high in (("global_images", 0.4, 0.6), ("local_images", 0.05, 0.4)):
        # Whole levels and bicubic overshoot blur a side by a pixel of some hundred.
        assert min(drawn[name]) > low * 0.93 and max(drawn[name]) < high * 1.07
        assert stats.kstest(drawn[name], stats.uniform(low, high - low).cdf).statistic < 0.08


def shares(transform, image, is_so, draws=300):
    """Of each view: in how many draws it is so. f64[views]."""
    counts = []
    for seed in range(draws):
        found = transform({"image": image}, np.random.default_rng(seed))
        counts.append([is_so(v) for v in (*found["global_images"], *found["local_images"])])
    return np.mean(counts, axis=0)


def test_each_view_has_its_own_solarisation():
    bright = np.full((40, 40, 3), 250, np.uint8)
    transform = build({**PLAIN, "num_local": 1, "solarize": (0.0, 0.2, 1.0)})
    first, second, local = shares(transform, bright, lambda view: view.max() < 128)
    assert first == 0 and local == 1
    assert stats.binomtest(round(second * 300), 300, 0.2).pvalue > 0.01


def test_each_view_has_its_own_blur():
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, 64:128] = stripes[:, 192:] = 255
    whole = {"global_area": (1, 1), "local_area": (1, 1)}
    # 'nearest' leaves edges sharp, so a value between the two is the blur's.
    transform = build(
        {**PLAIN, **whole, "num_local": 1, "blur": (1.0, 0.0, 0.5)}, interpolation="nearest"
    )
    first, second, local = shares(transform, stripes, lambda view: len(np.unique(view)) > 2)
    # A radius below 0.2 pixels, one draw in twenty, changes no value by a whole level.
    assert first > 0.85 and second == 0 and 0.38 < local < 0.57


def test_settings_of_all_views_hold_for_each():
    transform = build({**PLAIN, "num_local": 3}, grayscale={"probability": 1.0})
    found = transform({"image": noise(50, 60)}, np.random.default_rng(0))
    for view in (*found["global_images"], *found["local_images"]):
        assert np.array_equal(view[..., 0], view[..., 1]) and view.std() > 1


@pytest.mark.parametrize(
    "multi_crop, settings, message",
    [
        ({}, {"crop": "none"}, "needs crop='inception'"),
        ({}, {"min_area": 0.1}, "min_area has no effect.*global_area"),
        ({}, {"solarize": {}}, "solarize has no effect.*multi_crop.solarize"),
        ({}, {"gaussian_blur": {}}, "gaussian_blur has no effect.*multi_crop.blur"),
        ({}, {"scaled_decode": True}, "scaled_decode has no effect"),
        ({"num_local": -1}, {}, "num_local is -1"),
        ({"local_size": 0}, {}, "local_size"),
        ({"global_area": (0.5, 0.4)}, {}, "global_area"),
        ({"local_area": (0.0, 0.4)}, {}, "local_area"),
        ({"blur": (2, 0, 0)}, {}, "blur"),
        ({"crop": None}, {}, "unknown key 'crop'"),
    ],
)
def test_refuses(multi_crop, settings, message):
    with pytest.raises(InputError, match=message):
        build(multi_crop, **settings)
