"""Each law of resampling against its definition, and against the library it is named after."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from toys import normal

from vit_jax.errors import InputError
from vit_jax.layers import resize
from vit_jax.layers.embed import PatchEmbedding

GRIDS = [(1, 1), (2, 3), (4, 4), (7, 5), (3, 8)]
PAIRS = list(itertools.product(GRIDS, GRIDS))
LAWS = [("bicubic", True), ("bicubic", False), ("bilinear", True), ("bilinear", False)]
LAWS_AND_ZOOM = [*LAWS, ("zoom", False)]


def embedding(grid, *, num_prefix=1, width=3, seed=0):
    return np.asarray(normal(1, num_prefix + grid[0] * grid[1], width, seed=seed))


def resized(x, old, new, *, num_prefix=1, method="bicubic", antialias=True):
    return resize.resize_positions(
        x, old_grid=old, new_grid=new, num_prefix=num_prefix, method=method, antialias=antialias
    )


@pytest.mark.parametrize("method, antialias", LAWS_AND_ZOOM)
@pytest.mark.parametrize("old, new", PAIRS)
def test_every_grid_becomes_every_other(old, new, method, antialias):
    x = embedding(old, num_prefix=2)
    y = resized(x, old, new, num_prefix=2, method=method, antialias=antialias)
    assert y.shape == (1, 2 + new[0] * new[1], 3) and y.dtype == x.dtype
    np.testing.assert_array_equal(y[:, :2], x[:, :2])
    if old == new:
        assert y is x


@pytest.mark.parametrize("method, antialias", LAWS_AND_ZOOM)
def test_what_is_constant_stays_so(method, antialias):
    for old, new in PAIRS:
        y = resized(np.full((1, old[0] * old[1], 2), 0.7), old, new, num_prefix=0,
                    method=method, antialias=antialias)  # fmt: skip
        np.testing.assert_allclose(y, 0.7, rtol=1e-12)


@pytest.mark.parametrize("old, new", PAIRS)
def test_zoom_is_scipys(old, new):
    x = embedding(old, num_prefix=0)
    zoom = (new[0] / old[0], new[1] / old[1], 1)
    expected = ndimage.zoom(x[0].reshape(*old, -1), zoom, order=1)
    found = resized(x, old, new, num_prefix=0, method="zoom", antialias=False)
    np.testing.assert_allclose(found.reshape(*new, -1), expected, atol=1e-6)


@pytest.mark.parametrize("method", ["bicubic", "bilinear"])
@pytest.mark.parametrize("old, new", [((4, 4), (7, 5)), ((7, 5), (3, 8)), ((7, 5), (2, 2))])
def test_antialiased_laws_are_those_of_jax(old, new, method):
    """JAX's own resize has Keys' -1/2, as PyTorch has when it antialiases."""
    x = embedding(old, num_prefix=0)
    name = {"bicubic": "cubic", "bilinear": "linear"}[method]
    expected = jax.image.resize(x.reshape(*old, -1), (*new, 3), name, antialias=True)
    found = resized(x, old, new, num_prefix=0, method=method)
    np.testing.assert_allclose(found.reshape(*new, -1), expected, atol=1e-5)


@pytest.mark.reference
@pytest.mark.parametrize("method, antialias", LAWS)
def test_laws_are_those_of_torch(method, antialias):
    reason = "torch is not installed: the law is not compared with its F.interpolate"
    torch = pytest.importorskip("torch", reason=reason)
    for old, new in PAIRS:
        x = embedding(old, num_prefix=0)
        image = torch.tensor(x).reshape(1, *old, -1).permute(0, 3, 1, 2)
        expected = torch.nn.functional.interpolate(
            image, size=new, mode=method, align_corners=False, antialias=antialias
        )
        found = resized(x, old, new, num_prefix=0, method=method, antialias=antialias)
        expected = expected.permute(0, 2, 3, 1).numpy().reshape(1, -1, 3)
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=f"{old} -> {new}")


def test_arrays_of_jax_stay_there_and_can_be_traced():
    x = embedding((4, 5))
    expected = resized(x, (4, 5), (6, 3))
    found = jax.jit(lambda x: resized(x, (4, 5), (6, 3)))(jnp.asarray(x))
    assert isinstance(found, jax.Array) and isinstance(expected, np.ndarray)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert resized(jnp.asarray(x, jnp.bfloat16), (4, 5), (6, 3)).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: resized(embedding((2, 2)), (2, 3), (4, 4)), "5 positions; .*2x3 and 1 prefix.*7"),
        (lambda: resized(embedding((2, 2)), (2, 2), (4, 4), method="cubic"), "bicubic, bilinear"),
        (lambda: resized(embedding((2, 2)), (2, 2), (4, 4), method="zoom"), "antialias is True"),
        (lambda: resized(embedding((2, 2)), (2, 2), (4, 0)), "from 2 to 0"),
        (lambda: resize.grid_of(12), "12 patches .*pass the grid"),
        (lambda: resize.grid_of(0), "0 patches"),
        (lambda: resize.adapt_channels(np.zeros((2, 2, 3, 4)), 0), "channels is 0"),
    ],
)
def test_mistakes_are_told(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_grid_of_is_the_square():
    assert [resize.grid_of(n) for n in (1, 4, 196)] == [(1, 1), (2, 2), (14, 14)]


def upsampled(images, size):
    """By the law that FlexiViT's resize inverts: bilinear, not antialiased."""
    b, *_, channels = images.shape
    return jax.image.resize(images, (b, *size, channels), "linear", antialias=False)


@pytest.mark.parametrize("old, new", [((2, 3), (5, 3)), ((4, 4), (4, 7)), ((3, 2), (6, 6))])
def test_an_upsampled_patch_has_the_token_of_the_original(old, new):
    kernel, patches = np.asarray(normal(*old, 3, 5)), normal(4, *old, 3, seed=1)
    larger = resize.resize_patch_kernel(kernel, new)
    assert larger.shape == (*new, 3, 5)

    def tokens(images, kernel):
        params = {"kernel": kernel, "bias": jnp.zeros(5)}
        return PatchEmbedding(5, kernel.shape[:2]).apply({"params": params}, images)

    expected = tokens(patches, kernel)
    np.testing.assert_allclose(tokens(upsampled(patches, new), larger), expected, atol=1e-4)


@pytest.mark.parametrize("old, new", [((2, 3), (4, 5)), ((5, 4), (3, 2)), ((4, 3), (2, 6))])
def test_patch_kernels_follow_the_papers_equation(old, new):
    """v = pinv(Bᵀ) w with the whole matrix B, one basis image a column."""
    basis = jnp.eye(old[0] * old[1]).reshape(-1, *old, 1)
    matrix = np.asarray(upsampled(basis, new), np.float64).reshape(len(basis), -1).T
    kernel = np.asarray(normal(*old, 2, 3))
    expected = np.linalg.pinv(matrix.T) @ kernel.reshape(len(basis), -1)
    found = resize.resize_patch_kernel(kernel, new)
    np.testing.assert_allclose(found.reshape(-1, 6), expected.reshape(-1, 6), atol=1e-5)


def test_a_patch_kernel_of_the_right_size_is_left_alone():
    kernel = np.ones((2, 3, 1, 4))
    assert resize.resize_patch_kernel(kernel, (2, 3)) is kernel
    assert resize.adapt_channels(kernel, 1) is kernel


@pytest.mark.parametrize("old, new", list(itertools.permutations([1, 2, 3, 4, 7], 2)))
def test_equal_channels_keep_their_tokens(old, new):
    """A grey image, given as `old` or as `new` equal channels, has the same tokens."""
    kernel = np.asarray(normal(2, 2, old, 5))
    adapted = resize.adapt_channels(kernel, new)
    assert adapted.shape == (2, 2, new, 5)
    grey = np.asarray(normal(6, 2, 2, seed=1))
    tokens = [np.einsum("bpq,pqCc->bc", grey, k) for k in (kernel, adapted)]
    np.testing.assert_allclose(*tokens, atol=1e-5)
    assert (np.abs(adapted).sum(axis=(0, 1, 3)) > 0).all()  # every channel counts


def test_rgb_becomes_four_channels_by_sharing_red():
    kernel = np.asarray(normal(2, 2, 3, 5))
    red, green, blue = kernel[:, :, :1], kernel[:, :, 1:2], kernel[:, :, 2:]
    expected = np.concatenate([red / 2, green, blue, red / 2], axis=2)
    np.testing.assert_allclose(resize.adapt_channels(kernel, 4), expected, rtol=1e-6)


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(5, 9), (16, 20), (8, 3)])
def test_images_are_resized_as_by_pillow_in_floating_point(size, method):
    images = normal(2, 8, 10, 3)
    found = resize.resize_images(images, size, method=method)
    law = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[method]
    for image, expected in zip(found, np.asarray(images), strict=True):
        for channel in range(3):
            plane = Image.fromarray(expected[..., channel]).resize(size[::-1], law)
            # Pillow rounds its weights to float32 and sums in another order.
            np.testing.assert_allclose(image[..., channel], plane, atol=1e-5)


def test_images_of_the_size_asked_for_stay_as_they_are():
    images = normal(2, 8, 10, 3)
    assert resize.resize_images(images, (8, 10)) is images
