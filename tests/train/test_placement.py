"""Rules of one's own, and what is said of arrays that stay whole."""

import jax
import jax.numpy as jnp
import optax
import pytest
from toys import classification, image_batch, new_state

from vit_jax.errors import InputError
from vit_jax.train import placement, sharding

SHAPES = {
    "head": {"kernel": (64, 512), "bias": (512,)},
    "encoder": {
        "blocks": {
            "attention": {"query": {"kernel": (2, 64, 3, 128), "bias": (2, 3, 128)}},
            "mlp": {"up": {"kernel": (2, 64, 256), "bias": (2, 256)}},
        }
    },
}
PARAMS = jax.tree.map(
    lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32),
    SHAPES,
    is_leaf=lambda node: isinstance(node, tuple),
)
HEADS = "does not divide the 3 of axis 2, which stays whole"


def described(*own, tree=PARAMS, **axes):
    rules = sharding.read_rules(own)
    rows = placement.describe(tree, sharding.make_mesh(**{"data": -1, **axes}), rules)
    return {row.path: row for row in rows}


def axes_of(path, *own, **axes):
    return described(*own, **axes)[path].axes


@pytest.mark.parametrize(
    "rule, axes, found",
    [
        (("head/kernel", [None, "tensor"]), dict(tensor=2), (None, "tensor")),
        (("head/kernel", ("tensor",)), dict(tensor=2), ("tensor", None)),
        # fsdp is added where it is free, along the largest axis,
        (("head/kernel", [None, "tensor"]), dict(fsdp=2, tensor=2), ("fsdp", "tensor")),
        (("head/kernel", []), dict(fsdp=2, tensor=2), (None, "fsdp")),
        # but not twice,
        (("head/kernel", ["fsdp", None]), dict(fsdp=2, tensor=2), ("fsdp", None)),
        (("head/.*", [["fsdp", "tensor"]]), dict(fsdp=2, tensor=2), (("fsdp", "tensor"), None)),
        # nor at all where the parameter is to stay whole.
        (("head/kernel", None), dict(fsdp=2, tensor=2), (None, None)),
    ],
)
def test_rules_of_ones_own_come_first(rule, axes, found):
    assert axes_of("head/kernel", rule, **axes) == found
    assert axes_of("encoder/blocks/mlp/up/bias", rule, **axes) == (None, "tensor")


def test_a_rule_places_moments_and_averages_like_their_parameter():
    task, rule = classification(), ("Dense_0/kernel", ["tensor", None])
    state = jax.eval_shape(lambda: new_state(task, optax.adamw(1e-3), image_batch(2), ema=True))
    rows = described(rule, tree=state, tensor=2)
    found = [row for path, row in rows.items() if path.endswith("Dense_0/kernel")]
    assert len(found) == 4 and {row.axes for row in found} == {("tensor", None)}


def test_a_pattern_begins_with_a_whole_name():
    assert axes_of("head/kernel", ("ead/kernel", None), fsdp=2) == (None, "fsdp")


@pytest.mark.parametrize(
    "own, message",
    [
        ("head", "allowed: a list of"),
        ([("head/kernel",)], "allowed: a list of"),
        ([("(", ["tensor"])], r"allowed: a list of \(regular expression, value\)"),
        ([("head/kernel", "tensor")], "has 'tensor' for 'head/kernel'; allowed: None, or a list"),
        ([("head/kernel", ["model"])], "one or several of data, fsdp, tensor"),
        ([("head/kernel", ["tensor", "tensor"])], "none of them twice"),
        ([("head/kernel", [["fsdp", "tensor"], "fsdp"])], "none of them twice"),
        ([("head/kernel", [1])], "one or several of data, fsdp, tensor"),
        ([("head/kernel", 1)], "one or several of data, fsdp, tensor"),
    ],
)
@pytest.mark.parametrize(
    "make",
    [sharding.make_mesh, lambda rules: sharding.make_abstract_mesh(num_devices=8, rules=rules)],
)
def test_malformed_rules_are_refused(own, message, make):
    with pytest.raises(InputError, match=message):
        make(rules=own)


@pytest.mark.parametrize(
    "own, message",
    [
        (("encodr/.*", None), "'encodr/.*', which matches no parameter.*such as 'encoder/blocks"),
        (("head/bias", [None, "tensor"]), r"'head/bias' is \(512,\); allowed: no more axes"),
        (
            (".*query/bias", [None, "tensor"]),
            r"\[1, 2\] parts.*is \(2, 3, 128\).*parts that divide",
        ),
    ],
)
def test_rules_that_cannot_be_followed_are_refused(own, message):
    mesh = sharding.make_mesh(data=4, tensor=2)
    with pytest.raises(InputError, match=message):
        placement.check(PARAMS, mesh, sharding.read_rules([own]))


def test_good_rules_pass():
    rules = sharding.read_rules([("head/kernel", [None, ["fsdp", "tensor"]]), (".*bias", None)])
    placement.check(PARAMS, sharding.make_mesh(data=2, fsdp=2, tensor=2), rules)


# the tensor axis


def test_a_tensor_axis_that_splits_nothing_is_refused():
    params = jax.eval_shape(
        lambda: new_state(classification(), optax.sgd(1), image_batch(2)).params
    )
    with pytest.raises(InputError, match="config.mesh.tensor is 2, but splits no parameter"):
        placement.check(params, sharding.make_mesh(tensor=2), sharding.TENSOR_RULES)
    placement.check(params, sharding.make_mesh(), sharding.TENSOR_RULES)


def test_odd_heads_stay_whole_and_that_is_said():
    rows = described(tensor=2)
    attention = "encoder/blocks/attention/query"
    assert rows[f"{attention}/kernel"].axes == (None,) * 4
    assert rows[f"{attention}/kernel"].note == f"tensor=2 {HEADS}"
    assert rows[f"{attention}/bias"].note.endswith("the 3 of axis 1, which stays whole")
    assert rows["encoder/blocks/mlp/up/kernel"] == placement.Placed(
        "encoder/blocks/mlp/up/kernel", (2, 64, 256), (None, None, "tensor"), 2 * 64 * 128 * 4, ""
    )
    mesh = sharding.make_mesh(tensor=2)
    assert f"{attention}/kernel: tensor=2 {HEADS}" in placement.notes(
        PARAMS, mesh, sharding.TENSOR_RULES
    )
    assert placement.notes(PARAMS, sharding.make_mesh(), sharding.TENSOR_RULES) == []


def test_bytes_are_those_that_a_device_holds():
    mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
    state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), PARAMS)
    state = jax.device_put(state, sharding.state_sharding(state, mesh))
    leaves = jax.tree.leaves(state)
    for row, leaf in zip(placement.describe(state, mesh), leaves, strict=True):
        assert row.device_bytes == leaf.addressable_shards[0].data.nbytes, row
