"""Operations are counted on the traced program and equal the closed form of the architecture."""

import functools
import types

import jax
import jax.numpy as jnp
import optax
import pytest
from toys import classification, image_batch

from vit_jax.analysis.cost import (
    TRAINING_FACTOR,
    Parameters,
    count_flops,
    count_parameters,
    count_trained,
    count_training,
    parameter_table,
    peak_flops,
)
from vit_jax.models import vit


def forward_flops(image_size=224, **settings):
    model = vit.build(num_classes=settings.pop("num_classes", 1000), **settings)
    image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    return count_flops(lambda *inputs: model.apply(*inputs).logits, variables, image)


def closed_form_macs(size, patch_size, image_size=224, num_classes=1000):
    """Multiply-adds: d width, f MLP width, n tokens."""
    d, depth, f, _ = vit.SIZES[size]
    patches = (image_size // patch_size) ** 2
    n = patches + 1
    projections, attention, mlp = 4 * n * d * d, 2 * n * n * d, 2 * n * d * f
    return (
        depth * (projections + attention + mlp) + patches * patch_size**2 * 3 * d + d * num_classes
    )


@pytest.mark.parametrize(
    "size, patch_size, giga_macs",
    [
        ("Ti", 16, 1.2537),
        ("S", 16, 4.5989),
        ("B", 16, 17.564),
        ("L", 16, 61.555),
        ("H", 14, 167.295),
    ],
)
def test_named_sizes_cost_what_is_published(size, patch_size, giga_macs):
    macs = closed_form_macs(size, patch_size)
    assert round(macs / 1e9, len(str(giga_macs).split(".")[1])) == giga_macs
    assert forward_flops(size=size, patch_size=patch_size, unroll=1) == 2 * macs


TINY = dict(width=8, depth=4, mlp_dim=12, num_heads=2, patch_size=4, image_size=8, num_classes=3)


@pytest.mark.parametrize(
    "settings",
    [
        dict(unroll=2),
        dict(unroll=4),
        dict(remat="full"),  # what is computed again for memory's sake is no work of the model
        dict(remat="dots"),
        dict(attention_implementation="xla"),
        dict(dtype="bfloat16"),
        dict(drop_path_rate=0.1),
    ],
)
def test_count_is_the_models_not_the_programs(settings):
    assert forward_flops(**TINY, **settings) == forward_flops(**TINY, unroll=1)


def test_each_layer_costs_the_same():
    two, four, six = (forward_flops(**TINY | dict(depth=depth)) for depth in (2, 4, 6))
    assert four - two == six - four > 0


F32 = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)


def test_scan_counts_each_of_its_passes():
    def scanned(x, ws):
        return jax.lax.scan(lambda c, w: (c @ w, None), x, ws)[0]

    def unrolled(x, ws):
        for w in ws:
            x = x @ w
        return x

    arguments = F32((3, 4)), F32((7, 4, 4))
    assert (
        count_flops(scanned, *arguments) == count_flops(unrolled, *arguments) == 7 * 2 * 3 * 4 * 4
    )
    nested = lambda x, ws: jax.lax.scan(lambda c, _: (scanned(c, ws), None), x, None, length=5)[0]  # noqa: E731
    assert count_flops(nested, *arguments) == 5 * 7 * 2 * 3 * 4 * 4


@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions_count(groups):
    def convolve(image, kernel):
        return jax.lax.conv_general_dilated(
            image,
            kernel,
            window_strides=(2, 2),
            padding="SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    image, kernel = F32((2, 8, 6, 4)), F32((3, 5, 4 // groups, 10))
    outputs = 2 * 4 * 3 * 10
    assert count_flops(convolve, image, kernel) == 2 * outputs * 3 * 5 * (4 // groups)


def test_batched_products_count_and_elementwise_work_does_not():
    arguments = F32((5, 3, 4)), F32((5, 4, 6))
    assert count_flops(lambda a, b: jnp.tanh(a) @ b + 1, *arguments) == 2 * 5 * 3 * 4 * 6
    assert count_flops(jnp.exp, F32((100,))) == 0


def test_products_inside_jit_and_custom_derivatives_are_found():
    dot = jax.jit(lambda a, b: jax.nn.relu(a) @ b)
    checkpointed = jax.checkpoint(lambda a, b: dot(a, b))
    assert count_flops(checkpointed, F32((2, 3)), F32((3, 4))) == 2 * 2 * 3 * 4


def test_backward_pass_costs_twice_the_forward():
    def loss(w1, w2, x):
        return (((x @ w1) @ w2) ** 2).sum()

    shapes = F32((4, 4)), F32((4, 4)), F32((6, 4))
    gradient = jax.grad(loss, argnums=(0, 1, 2))
    assert count_flops(gradient, *shapes) == TRAINING_FACTOR * count_flops(loss, *shapes)


def test_what_a_parameter_does_not_reach_is_trained_at_the_price_of_its_forward_pass():
    """A teacher's product is 2 · 6 · 4 · 4 operations, the students' two together twice that."""

    def loss(params, teacher, x):
        dot = jax.jit(lambda a, b: jnp.tanh(a @ b))
        student = jax.checkpoint(dot)(dot(x, params["a"]), params["b"])
        return ((student - dot(x, teacher)) ** 2).sum()

    params = {"a": F32((4, 4)), "b": F32((4, 4))}
    found = count_training(loss, params, F32((4, 4)), F32((6, 4)))
    assert found == (3 * 192, (2 * TRAINING_FACTOR + 1) * 192)


def test_a_scan_is_reached_by_what_it_carries_on():
    """The parameter enters after the first pass; the other product stays apart in each."""

    def loss(bias, w, xs):
        def body(carry, x):
            apart = (x @ w).sum()
            return jnp.tanh(carry @ w) + bias, apart

        return jax.lax.scan(body, jnp.zeros((6, 4)), xs)

    found = count_training(loss, F32((4,)), F32((4, 4)), F32((5, 6, 4)))
    assert found == (5 * 2 * 192, 5 * (TRAINING_FACTOR + 1) * 192)


def test_parameters_are_counted_from_shapes_or_arrays():
    params = {"a": jnp.zeros((3, 4)), "b": {"c": F32((5,)), "d": jnp.zeros(())}}
    assert count_parameters(params) == 18


STACKS = {
    "encoder": {
        "blocks": {"a": {"kernel": F32((4, 2, 3)), "bias": F32((4, 3))}, "scale": F32((4, 5))},
        "norm": F32((4,)),
    },
    "head": F32(()),
}


def test_table_of_parameters_opens_to_a_depth():
    (encoder, head) = parameter_table(STACKS, 1)
    assert encoder == Parameters("encoder", None, 1, 60, 60 / 61)
    assert head == Parameters("head", (), 1, 1, 1 / 61)
    blocks, norm, _ = parameter_table(STACKS, 2)
    assert blocks == Parameters("encoder/blocks (×4)", None, 4, 56, 56 / 61)
    assert norm == Parameters("encoder/norm", (4,), 1, 4, 4 / 61)
    for depth in (4, 9):
        names = [(row.name, row.shape, row.count) for row in parameter_table(STACKS, depth)]
        assert names == [
            ("encoder/blocks (×4)/a/bias", (3,), 12),
            ("encoder/blocks (×4)/a/kernel", (2, 3), 24),
            ("encoder/blocks (×4)/scale", (5,), 20),
            ("encoder/norm", (4,), 4),
            ("head", (), 1),
        ]


@pytest.mark.parametrize("clip", [False, True])
def test_frozen_parameters_are_not_counted_as_trained(clip):
    params = {"a": F32((3,)), "b": F32((20,))}
    rules = {"on": optax.adamw(1e-3, weight_decay=0.1), "off": optax.set_to_zero()}

    def trained(labels):
        transform = optax.partition(rules, labels)
        if clip:  # which lets every gradient reach every update
            transform = optax.chain(optax.clip_by_global_norm(1.0), transform)
        update = lambda g, p: transform.update(g, transform.init(p), p)[0]  # noqa: E731
        return count_trained(update, params)

    assert trained({"a": "on", "b": "on"}) == 23
    assert trained({"a": "off", "b": "on"}) == 20
    assert trained({"a": "off", "b": "off"}) == 0


def test_task_with_uint8_images_is_counted():
    """As the training's utilisation is."""
    task, batch = classification(), image_batch(1)
    variables = jax.eval_shape(task.init, jax.random.key(0), batch)
    predict = functools.partial(task.predict, rng=jax.random.key(0))
    assert count_flops(predict, variables, batch) == 2 * 8 * 8 * 3 * 7


@pytest.mark.parametrize(
    "kind, teraflops",
    [
        ("NVIDIA H200", 989),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA A100-SXM4-40GB", 312),
        ("Tesla V100-SXM2-16GB", 125),
        ("TPU v3", 61.5),
        ("TPU v4", 275),
        ("TPU v5 lite", 197),
        ("TPU v5e", 197),
        ("TPU v5", 459),
        ("TPU v5p", 459),
        ("TPU v6 lite", 918),
        ("cpu", None),
        ("AMD Instinct MI300X", None),
    ],
)
def test_peak_is_looked_up_by_the_name_the_device_gives_itself(kind, teraflops):
    """TPU names as in jax/_src/pallas/mosaic/tpu_info.py."""
    found = peak_flops(types.SimpleNamespace(device_kind=kind))
    assert found == (None if teraflops is None else teraflops * 1e12)


def test_this_machines_cpu_has_no_known_peak():
    assert peak_flops(jax.devices("cpu")[0]) is None
