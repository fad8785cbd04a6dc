"""The automatic choice is a function of what it is told, and says what decided it."""

import re

import jax
import jax.numpy as jnp
import pytest

from vit_jax.analysis import cost
from vit_jax.layers.attention_choice import (
    RULES,
    Case,
    by_definition,
    choose_attention,
    cudnn_problem,
    recorded_choices,
)
from vit_jax.models import vit

H100 = dict(
    backend="gpu",
    device_kind="NVIDIA H100 80GB HBM3",
    head_size=64,
    num_queries=577,
    num_keys=577,
    dtype="bfloat16",
)


@pytest.mark.parametrize(
    "case, name, reason",
    [
        (dict(), "cudnn", "at 577 keys"),
        (dict(num_queries=197, num_keys=197), "xla", "nothing at 197 keys"),
        (dict(dtype="float32"), "xla", "float32; allowed: bfloat16, float16"),
        (dict(head_size=80), "cudnn", "at 577 keys"),
        (dict(head_size=44), "xla", "head size is 44"),
        (dict(head_size=256), "cudnn", "at 577 keys"),
        (dict(head_size=256, device_kind="NVIDIA A100-SXM4-40GB"), "xla", "up to 128"),
        (dict(has_bias=True), "xla", "learned bias"),
        (dict(head_size=264), "xla", "multiples of 8 up to 256"),
        (dict(has_mask=True), "xla", r"lengths are \(577, 577\); allowed: even"),
        (dict(has_mask=True, train=False), "cudnn", "at 577 keys"),
        (dict(has_mask=True, num_queries=576, num_keys=576), "cudnn", "at 576 keys"),
        (dict(device_kind="Tesla V100-SXM2-16GB"), "xla", "not known.*V100"),
        (dict(device_kind="Quadro RTX 4000"), "xla", "not known"),
        (dict(device_kind="AMD Instinct MI300X"), "xla", "not known.*MI300X"),
        (dict(backend="tpu", device_kind="TPU v5e"), "xla", "tpu"),
        (dict(backend="cpu", device_kind="cpu"), "dense", "CPU"),
    ],
)
def test_choice_and_its_reason(case, name, reason):
    choice = choose_attention(**H100 | case)
    assert choice.name == name
    assert re.search(reason, choice.reason)


def test_no_rule_is_idle():
    """Each decides some case above or here, so none is dead or hidden by those before it."""
    cases = [
        H100 | change
        for change in (
            dict(backend="cpu"),
            dict(backend="tpu"),
            dict(has_bias=True),
            dict(dtype="float32"),
            dict(device_kind="Tesla T4"),
            dict(num_keys=50),
            dict(),
        )
    ]
    deciding = []
    for case in cases:
        full = Case(**{"has_mask": False, "train": True, **case})
        deciding.append(next(i for i, rule in enumerate(RULES) if rule.applies(full)))
    assert deciding == list(range(len(RULES)))


def test_cudnn_is_chosen_only_where_it_can_run():
    for head_size in (16, 60, 64, 128, 136, 264):
        for has_mask in (False, True):
            for num_keys in (256, 257):
                for dtype in ("bfloat16", "float32"):
                    changes = dict(
                        head_size=head_size, has_mask=has_mask, num_keys=num_keys, dtype=dtype
                    )
                    case = H100 | dict(train=True) | changes
                    can = cudnn_problem(Case(**case)) is None
                    assert (choose_attention(**case).name == "cudnn") == can


def model_and_shapes(**settings):
    model = vit.build(
        num_classes=3, patch_size=4, width=16, depth=2, mlp_dim=32, num_heads=2, **settings
    )
    image = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    return model, jax.eval_shape(model.init, jax.random.key(0), image), image


def test_a_models_choice_can_be_read_off_its_trace():
    model, variables, image = model_and_shapes()
    with recorded_choices() as choices:
        jax.eval_shape(model.apply, variables, image)
    (choice,) = choices
    assert str(choice).startswith("dense (on a CPU ")
    model, variables, image = model_and_shapes(attention_implementation="xla")
    with recorded_choices() as choices:
        jax.eval_shape(model.apply, variables, image)
    assert [str(choice) for choice in choices] == ["xla (as configured)"]


def test_flops_are_the_definitions_whatever_kernel_is_chosen():
    counts = {
        name: cost.count_flops(*model_and_shapes_of(name)) for name in ("dense", "xla", "pallas")
    }
    assert counts["dense"] == counts["xla"] == counts["pallas"] > 0


def model_and_shapes_of(name):
    model, variables, image = model_and_shapes(attention_implementation=name)
    return model.apply, variables, image


def test_kernels_are_as_chosen_again_outside_of_the_context():
    model, variables, image = model_and_shapes(attention_implementation="pallas")

    def program():
        return str(jax.make_jaxpr(lambda *inputs: model.apply(*inputs))(variables, image))

    with by_definition():
        assert "pallas_call" not in program()
    assert "pallas_call" in program()
