"""A device's microbatch: what the axes of the mesh share of its computing."""

from plans import TINY, TOLD, make_config

from vit_jax.experiment import build_learner, plain
from vit_jax.planning import describe_data
from vit_jax.planning.work import Work
from vit_jax.train.sharding import make_abstract_mesh


def work(**axes):
    config = plain(make_config(model=TINY | dict(width=256, mlp_dim=512, num_heads=4)))
    mesh = make_abstract_mesh(num_devices=8, **axes)
    return Work(build_learner(config, mesh, describe_data(config, 0, TOLD, []), 100), 64)


def test_computing_is_shared_along_tensor_and_not_along_fsdp():
    """Devices of `fsdp` compute for their own examples, and those of `tensor` together."""
    data, fsdp, tensor = work(data=8), work(data=2, fsdp=4), work(data=2, tensor=4)
    assert (data.rows, fsdp.rows, tensor.rows) == (8, 8, 32)
    assert data.kernels(8) == fsdp.kernels(8)
    flops = [sum(k.flops for k in w.kernels(w.rows)) for w in (data, tensor)]
    # Four times the examples in four parts; but patches and classes are not split.
    assert 1 < flops[1] / flops[0] < 1.5
    sums = [sum(k.summed_bytes for k in w.kernels(w.rows)) for w in (data, fsdp, tensor)]
    assert sums[:2] == [0, 0]
    # Behind attention and the MLP of each of three layers, there and back: 16 tokens of f32[256].
    assert sums[2] >= 4 * 3 * 32 * 16 * 256 * 4
