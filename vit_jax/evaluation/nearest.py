"""The k nearest neighbours by cosine similarity: exact, and in bounded memory.

Queries and bank are cut into chunks. Each chunk of the bank goes to every device of this host once
and meets the queries chunk by chunk, which the devices share; what is nearest so far is merged
with what is nearest in the chunk. A device holds, in float32,

    a chunk of the bank          BANK_AT_ONCE · r · 4 bytes: 201 MB at r = 768
    similarities to it           QUERIES_AT_ONCE / devices · BANK_AT_ONCE · 4 bytes: 268 MB on one
    queries, and their nearest   n / devices · (4 r + 8 k) bytes

so that a bank of 1.28 M images and 50,000 queries need less than 1 GB of a device, and the host
holds the bank itself (3.9 GB at r = 768) and a copy of the chunk at hand.

Of neighbours that are equally similar the one that comes first in the bank is the nearer one.

Letters: n queries; m images of the bank; r channels; k neighbours; q, b queries and bank images at
a time.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from vit_jax import sections
from vit_jax.errors import InputError
from vit_jax.evaluation.features import check_finite

QUERIES_AT_ONCE = 1_024
BANK_AT_ONCE = 2**16
NOBODY = -1  # a position that no image of the bank has
SHARED, WHOLE = PartitionSpec("queries"), PartitionSpec()


class Neighbours(NamedTuple):
    """Of each query, the nearest one first."""

    similarity: Float[np.ndarray, "n k"]
    position: Int[np.ndarray, "n k"]  # in the bank


class _Best(NamedTuple):
    similarity: Float[Array, "q k"]
    position: Int[Array, "q k"]


def nearest(
    queries: Float[np.ndarray, "n r"],
    bank: Float[np.ndarray, "m r"],
    *,
    k: int,
    leave_one_out: bool = False,
    queries_at_once: int = QUERIES_AT_ONCE,
    bank_at_once: int = BANK_AT_ONCE,
    devices: Sequence[Any] | None = None,
) -> Neighbours:
    """The k nearest images of a bank; tested against scikit-learn's NearestNeighbors.

    Args:
      queries, bank: of any length; they are normalised here.
      leave_one_out: the queries are the bank, and no image is its own neighbour.
      devices: that compute; by default all of this host.

    Raises:
      InputError: where the bank has fewer than k images, or what is given is no such rows.
    """
    for name, rows in (("queries", queries), ("bank", bank)):
        if rows.ndim != 2 or not len(rows) or not np.issubdtype(rows.dtype, np.number):
            raise InputError(
                f"{name} has shape {rows.shape} of {rows.dtype}; allowed: numbers, a row an image, "
                "of one image or more."
            )
        check_finite(rows, name)
    if queries.shape[1] != bank.shape[1]:
        raise InputError(
            f"queries have {queries.shape[1]} channels; allowed: {bank.shape[1]}, those of the "
            "bank."
        )
    sections.positive_int(k, "k")
    if leave_one_out and len(queries) != len(bank):
        raise InputError(
            f"there are {len(queries)} queries and a bank of {len(bank)}; allowed: as many, where "
            "one is left out for each."
        )
    if k > (others := len(bank) - leave_one_out):
        raise InputError(f"k is {k}, but there are {others} neighbours; allowed: at most these.")
    mesh = Mesh(np.asarray(devices or jax.local_devices()), ("queries",))
    own = np.arange(len(queries)) if leave_one_out else np.full(len(queries), NOBODY)
    parts = _on_devices(normalised(queries), own.astype(np.int32), queries_at_once, mesh)
    best = [_nothing_yet(len(own), k, mesh) for _, own in parts]
    size = min(bank_at_once, len(bank))
    for start in range(0, len(bank), size):
        chunk = normalised(bank[start : start + size])
        images = jax.device_put(padded(chunk, size), NamedSharding(mesh, WHOLE))
        place = (np.int32(start), np.int32(len(chunk)))
        best = [
            _merge(found, *part, images, *place, mesh=mesh)
            for found, part in zip(best, parts, strict=True)
        ]
        jax.block_until_ready(best)  # or else chunk upon chunk would wait in memory
    whole = (np.concatenate(rows)[: len(queries)] for rows in zip(*best, strict=True))
    return Neighbours(*whole)


def normalised(features: Float[np.ndarray, "n r"]) -> Float[np.ndarray, "n r"]:
    """Of length one, as float32; a zero stays one."""
    features = np.asarray(features, np.float32)
    largest = np.abs(features).max(axis=1, keepdims=True, initial=0)
    # Squares of what is very large or small would be out of range.
    features = features / np.where(largest > 0, largest, 1)
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(norms > 0, norms, 1)


def padded(rows: np.ndarray, size: int) -> np.ndarray:
    return np.pad(rows, [(0, size - len(rows))] + [(0, 0)] * (rows.ndim - 1))


def _on_devices(
    queries: np.ndarray, own: np.ndarray, at_once: int, mesh: Mesh
) -> list[tuple[Array, Array]]:
    """Chunks of one size, which the devices can share."""
    size = -(-min(at_once, len(queries)) // mesh.size) * mesh.size
    put = functools.partial(jax.device_put, device=NamedSharding(mesh, SHARED))
    return [
        (put(padded(queries[i : i + size], size)), put(padded(own[i : i + size], size)))
        for i in range(0, len(queries), size)
    ]


def _nothing_yet(size: int, k: int, mesh: Mesh) -> _Best:
    best = _Best(np.full((size, k), -np.inf, np.float32), np.full((size, k), NOBODY, np.int32))
    return jax.device_put(best, NamedSharding(mesh, SHARED))


@functools.partial(jax.jit, static_argnames="mesh")
def _merge(
    best: _Best,
    queries: Float[Array, "q r"],
    own: Int[Array, " q"],
    bank: Float[Array, "b r"],
    start: Int[Array, ""],
    count: Int[Array, ""],
    *,
    mesh: Mesh,
) -> _Best:
    specs = (SHARED, SHARED, SHARED, WHOLE, WHOLE, WHOLE)
    merge = jax.shard_map(_merge_share, mesh=mesh, in_specs=specs, out_specs=SHARED)
    return merge(best, queries, own, bank, start, count)


def _merge_share(
    best: _Best, queries: Array, own: Array, bank: Array, start: Array, count: Array
) -> _Best:
    """On one device; `top_k` puts the first of equals first, and what was found comes first."""
    # Three products of bfloat16, as accelerators have it by default, confuse near neighbours.
    similarity = jnp.einsum("qr,br->qb", queries, bank, precision=jax.lax.Precision.HIGHEST)
    row = jnp.arange(len(bank), dtype=jnp.int32)
    is_candidate = (row < count) & (start + row != own[:, None])
    similarity = jnp.where(is_candidate, similarity, -jnp.inf)
    k = best.similarity.shape[1]
    found, place = jax.lax.top_k(similarity, min(k, len(bank)))
    both = jnp.concatenate([best.similarity, found], axis=1)
    position = jnp.concatenate([best.position, start + place], axis=1)
    similarity, place = jax.lax.top_k(both, k)
    return _Best(similarity, jnp.take_along_axis(position, place, axis=1))
