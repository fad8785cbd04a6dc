"""Collectives of really compiled programs; notations of other backends from short texts."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

from vit_jax.analysis import collectives
from vit_jax.train import sharding

SHAPE = dict(data=2, fsdp=2, tensor=2)


def compiled_text(function):
    """The program of `function` on each device's f32[4, 3] of an array split by `data`."""
    mesh = sharding.make_mesh(**SHAPE)
    split = dict(in_specs=P("data"), out_specs=P("data"), check_vma=False)
    mapped = jax.shard_map(function, mesh=mesh, **split)
    return jax.jit(mapped).lower(jnp.zeros((8, 3))).compile().as_text()


def only(text):
    (found,) = collectives.find(text)
    return found


RING = [(0, 1), (1, 0)]
# What each device holds is f32[4, 3]: 48 bytes.
PROGRAMS = {
    "all-reduce": (lambda x, axis: lax.psum(x, axis), 48),
    "all-gather": (lambda x, axis: lax.all_gather(x, axis).sum(0), 96),
    "reduce-scatter": (lambda x, axis: lax.psum_scatter(x, axis, tiled=True), 48),
    "all-to-all": (lambda x, axis: lax.all_to_all(x, axis, 0, 1, tiled=True), 48),
    "collective-permute": (lambda x, axis: lax.ppermute(x, axis, RING), 48),
}


@pytest.mark.parametrize("axis", ["data", "fsdp", "tensor"])
@pytest.mark.parametrize("kind", PROGRAMS)
def test_kind_bytes_and_axis_of_one_collective(kind, axis):
    function, size = PROGRAMS[kind]
    found = only(compiled_text(functools.partial(function, axis=axis)))
    assert (found.kind, found.bytes, found.count, found.is_exact) == (kind, size, 1, True)
    assert found.group_size == 2
    assert collectives.axis_of(found, SHAPE) == axis


@pytest.mark.parametrize(
    "axes, name",
    [
        (("data", "fsdp"), "data+fsdp"),
        (("fsdp", "tensor"), "fsdp+tensor"),
        (("tensor", "data"), "data+tensor"),
        (("data", "fsdp", "tensor"), "data+fsdp+tensor"),
    ],
)
def test_several_axes_are_told_together(axes, name):
    found = only(compiled_text(lambda x: lax.all_gather(x, axes).sum(0)))
    assert found.group_size == 2 ** len(axes)
    assert found.bytes == 48 * found.group_size
    assert collectives.axis_of(found, SHAPE) == name


def test_several_arrays_of_one_collective_are_added():
    def function(x):
        y, z = lax.psum((x, x[:2].astype(jnp.int8)), "fsdp")
        return y + z[0]

    found = collectives.find(compiled_text(function))
    assert sum(c.bytes for c in found) == 48 + 6
    assert {a for c in found for a in c.arrays} == {"f32[4,3]", "s8[2,3]"}


# how often


def test_loops_multiply_and_nested_ones_again():
    def inner(x, _):
        return lax.psum(jnp.sin(x), "tensor"), None

    def outer(x, _):
        x, _ = lax.scan(inner, x, length=5)
        return lax.ppermute(x, "data", RING), None

    found = {
        c.kind: (c.count, c.is_exact)
        for c in collectives.find(compiled_text(lambda x: lax.scan(outer, x, length=3)[0]))
    }
    assert found == {"all-reduce": (15, True), "collective-permute": (3, True)}


def test_passes_are_read_off_the_condition_where_they_are_not_noted():
    text = compiled_text(
        lambda x: lax.fori_loop(0, 7, lambda i, x: lax.psum(jnp.sin(x), "fsdp"), x)
    )
    stripped = text.replace("known_trip_count", "unread")
    assert "known_trip_count" not in stripped and " while(" in stripped
    assert (only(stripped).count, only(stripped).is_exact) == (7, False)


def test_loop_of_unknown_length_counts_as_one_pass_and_says_so():
    def function(x):
        steps = x[0, 0].astype(jnp.int32)
        return lax.fori_loop(0, steps, lambda i, x: lax.psum(jnp.sin(x), "data"), x)

    found = [c for c in collectives.find(compiled_text(function)) if c.arrays == ("f32[4,3]",)]
    assert [(c.count, c.is_exact) for c in found] == [(1, False)]


def test_branches_count_as_taken_and_say_so():
    def function(x):
        return lax.cond(
            x[0, 0] > 0,
            lambda x: lax.psum(jnp.sin(x), "data"),
            lambda x: lax.ppermute(x, "fsdp", RING),
            x,
        )

    found = {c.kind: (c.count, c.is_exact) for c in collectives.find(compiled_text(function))}
    assert found == {"all-reduce": (1, False), "collective-permute": (1, False)}


def test_program_that_sends_nothing_has_none():
    assert collectives.find(compiled_text(lambda x: x * 2)) == []


def test_source_names_the_traced_operation():
    assert "psum" in only(compiled_text(lambda x: lax.psum(x, "data"))).source


# notations, as other backends and versions print them


@pytest.mark.parametrize(
    "attributes, groups",
    [
        ("replica_groups={{0,1},{2,3}}, x={1}", ((0, 1), (2, 3))),
        ("replica_groups={}, dimensions={0}", ((0, 1, 2, 3),)),
        ("channel_id=1", ((0, 1, 2, 3),)),
        ("source_target_pairs={{0,1},{1,0}}", ((0, 1), (1, 0))),
        ("replica_groups=[2,2]<=[4], dimensions={0}", ((0, 1), (2, 3))),
        ("replica_groups=[2,2]<=[2,2]T(1,0), x={0}", ((0, 2), (1, 3))),
        ("replica_groups=mesh['a'=2,'b'=2] {'b'}, x={0}", ((0, 1), (2, 3))),
        ("replica_groups=mesh['a'=2,'b'=2] {'a'}", ((0, 2), (1, 3))),
        ("replica_groups=mesh['a'=2,'b'=2] {'b','a'}", ((0, 2, 1, 3),)),
        ("replica_groups=mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'b'}", ((0, 2), (1, 3))),
        ("replica_groups=mesh['a'=4], device_ids=(3,1,2,0) {'a'}", ((3, 1, 2, 0),)),
        ("replica_groups=mesh['a'=4] {'a':(1)2}", ((0, 2), (1, 3))),
        ("replica_groups=mesh['a'=4] {'a':(2)2}", ((0, 1), (2, 3))),
    ],
)
def test_groups_in_every_notation(attributes, groups):
    assert collectives.read_groups(attributes, 4) == groups


ASYNCHRONOUS = """HloModule step, replica_count=1, num_partitions=4

%wrapped (p: f32[8]) -> f32[2] {
  %p = f32[8]{0:T(256)} parameter(0)
  ROOT %reduce-scatter.1 = f32[2]{0} reduce-scatter(%p), replica_groups=[1,4]<=[4], dimensions={0}
}

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

ENTRY %main (a: bf16[2,3], b: f32[8]) -> f32[2] {
  %a = bf16[2,3]{1,0:T(8,128)(2,1)} parameter(0)
  %b = f32[8]{0} parameter(1)
  %start = (bf16[2,3]{1,0:T(8,128)}, bf16[4,3]{1,0:T(8,128)S(1)}) all-gather-start(%a), \
replica_groups={{0,1},{2,3}}, dimensions={0}
  %done = bf16[4,3]{1,0} all-gather-done(%start)
  %alone = f32[8]{0} all-reduce(%b), replica_groups={{0},{1},{2},{3}}, to_apply=%add
  %moving = ((f32[8]), f32[2]{0}, s32[]) async-start(%b), calls=%wrapped
  %moved = ((f32[8]), f32[2]{0}, s32[]) async-update(%moving), calls=%wrapped
  ROOT %arrived = f32[2]{0} async-done(%moved), calls=%wrapped
}
"""


def test_halves_of_asynchronous_collectives_count_once():
    scatter, gather = collectives.find(ASYNCHRONOUS)
    assert (scatter.kind, scatter.bytes, scatter.count) == ("reduce-scatter", 32, 1)
    assert (gather.kind, gather.bytes, gather.count) == ("all-gather", 2 * 12, 1)
    assert collectives.axis_of(gather, dict(data=2, fsdp=2)) == "fsdp"
    assert collectives.axis_of(scatter, dict(data=2, fsdp=2)) == "data+fsdp"
