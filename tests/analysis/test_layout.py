"""How an axis splits a program's arrays: by hand for single operations, and as XLA does it.

Letters: b examples, n tokens, c width, h heads, d channels of a head, f MLP width.
"""

import jax
import jax.numpy as jnp
import pytest

from vit_jax.analysis.layout import EXAMPLES, Split, follow
from vit_jax.analysis.memory import saved_bytes
from vit_jax.models import vit
from vit_jax.train.sharding import make_abstract_mesh, state_sharding


def results(function, *arguments):
    """Dimensions of a function's results, from (shape, split dimension) of each argument."""
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape, _ in arguments]
    jaxpr = jax.make_jaxpr(function)(*shapes).jaxpr
    found = follow(jaxpr, Split(2, tuple(dimension for _, dimension in arguments)))
    return [found[v] for v in jaxpr.outvars]


@pytest.mark.parametrize(
    "function, arguments, expected",
    [
        (jnp.exp, [((4, 6), 1)], 1),
        (lambda x, y: x * y, [((4, 6), None), ((1, 6), 1)], 1),
        (lambda x, y: x * y[None], [((4, 6), None), ((6,), 0)], 1),
        (lambda x: x.T, [((4, 6), 1)], 0),
        (lambda x: x.sum(0), [((4, 6), 1)], 0),
        (lambda x: x.sum(1), [((4, 6), 1)], None),
        (lambda x: x.reshape(4, 2, 3), [((4, 6), 1)], 1),
        (lambda x: x.reshape(4, 6), [((4, 2, 3), 1)], 1),
        (lambda x: x.reshape(4, 6), [((4, 2, 3), 2)], None),
        (lambda x: x[:, 2:5], [((4, 6), 0)], 0),
        (lambda x: x[:, 2:5], [((4, 6), 1)], None),
        (lambda x: jnp.stack([x, x], 1), [((4, 6), 1)], 2),
        (lambda x, w: x @ w, [((4, 6), None), ((6, 8), 1)], 1),
        (lambda x, w: x @ w, [((4, 6), 0), ((6, 8), None)], 0),
        (lambda x, w: x @ w, [((4, 6), 1), ((6, 8), 0)], None),  # summed over devices
        (lambda q, k: jnp.einsum("bnhd,bmhd->bhnm", q, k), [((2, 5, 4, 3), 2)] * 2, 1),
        (lambda x, w: x @ w, [((4, 6), EXAMPLES), ((6, 8), 1)], EXAMPLES),
        (jax.jit(lambda x: jnp.tanh(x).T), [((4, 6), 1)], 0),
        (  # of a stack of what is carried, behind the passes
            lambda x, w: jax.lax.scan(lambda c, v: (c @ v, c), x, w)[1],
            [((4, 6), 0), ((3, 6, 6), None)],
            1,
        ),
        (  # made of nothing, and split from the first pass on
            lambda w: jax.lax.scan(lambda c, v: (c + v, None), jnp.zeros(6), w)[0],
            [((3, 6), 1)],
            0,
        ),
    ],
)
def test_where_a_split_goes(function, arguments, expected):
    assert results(function, *arguments) == [expected]


def test_what_a_layer_keeps_is_what_its_shapes_say_when_heads_and_channels_are_split():
    """Under 'dots': b·n·c is whole twice; the rest, 3·c of the projections and f, is split."""
    b, n, c, f, ways = 4, 16, 32, 64, 2
    mesh = make_abstract_mesh(num_devices=ways, tensor=ways)

    def kept(depth, split):
        settings = dict(width=c, mlp_dim=f, num_heads=4, patch_size=4, pool="gap", unroll=1)
        model = vit.build(num_classes=3, depth=depth, remat="dots", **settings)
        image = jax.ShapeDtypeStruct((b, 16, 16, 3), jnp.float32)
        params = jax.eval_shape(model.init, jax.random.key(0), image)
        places = jax.tree.leaves(state_sharding(params, mesh))
        specs = [tuple(place.spec) for place in places]
        dimensions = [s.index("tensor") if "tensor" in s else None for s in specs]
        splits = [Split(ways, (*dimensions, None))] if split else []
        loss = lambda p, x: model.apply(p, x, train=True).logits.var()  # noqa: E731
        return saved_bytes(loss, params, image, splits=splits)

    whole, parts = (kept(5, split) - kept(4, split) for split in (False, True))
    assert whole == b * n * (2 * c + 3 * c + f) * 4
    assert parts == b * n * (2 * c + (3 * c + f) / ways) * 4
