"""The checksum against the published vectors, and against its definition at every length."""

import numpy as np
import pytest

from vit_jax.data.prepare.crc32c import crc32c


@pytest.mark.parametrize(
    "data, expected",
    [  # RFC 3720, appendix B.4; the last is the check value of catalogues of checksums
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_published_vectors(data, expected):
    assert crc32c(data) == expected


def bit_by_bit(data):
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


@pytest.mark.parametrize("length", [*range(1, 20), 63, 64, 65, 255, 256, 257, 1000, 4096, 5001])
def test_equals_its_definition(length):
    data = np.random.default_rng(length).bytes(length)
    assert crc32c(data) == bit_by_bit(data)
