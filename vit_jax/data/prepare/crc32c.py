"""CRC-32C (Castagnoli, RFC 3720 appendix B.4) of bytes, in NumPy.

A byte at a time in Python would take longer than decoding the image. The checksum is linear over
GF(2), so the bytes are cut into lanes that advance together, a table look-up for a column of
bytes, and neighbouring lanes are joined afterwards: appending m zero bytes to the left one is a
32 by 32 matrix over GF(2).

Letters: k = lanes; m = bytes of a lane; both are powers of two.
"""

import functools

import numpy as np

_POLYNOMIAL = 0x82F63B78  # bit-reversed
_ONES = 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    """The checksum, as e.g. `google_crc32c.value` gives it."""
    if len(data) < 4:  # the register's initial ones need four bytes to fall on
        return functools.reduce(_step, data, _ONES) ^ _ONES
    m = 1 << ((len(data).bit_length() - 1) // 2)
    k = 1 << (-(-len(data) // m) - 1).bit_length()
    lanes = np.zeros(k * m, np.uint8)  # zeros in front leave a register of zeros as it is
    message = lanes[len(lanes) - len(data) :]
    message[:] = np.frombuffer(data, np.uint8)
    message[:4] ^= 0xFF
    register = np.zeros(k, np.uint32)
    table = _table()
    for column in np.ascontiguousarray(lanes.reshape(k, m).T):
        register = table[(register & 0xFF) ^ column] ^ (register >> 8)
    while len(register) > 1:
        register = _times(_append_zeros(m), register[0::2]) ^ register[1::2]
        m *= 2
    return int(register[0]) ^ _ONES


def _step(register: int, byte: int) -> int:
    return int(_table()[(register ^ byte) & 0xFF]) ^ (register >> 8)


@functools.cache
def _table() -> np.ndarray:
    """uint32[256]: what eight shifts make of each byte."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table


@functools.cache
def _append_zeros(m: int) -> np.ndarray:
    """uint32[32]: what m zero bytes make of each bit of the register."""
    if m == 1:
        bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
        return _table()[bits & 0xFF] ^ (bits >> 8)
    half = _append_zeros(m // 2)
    return _times(half, half)


def _times(matrix: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """The product over GF(2) of a matrix, uint32[32], and each of some vectors, uint32[k]."""
    bits = (vectors >> np.arange(32, dtype=np.uint32)[:, None]) & np.uint32(1)
    return np.bitwise_xor.reduce(bits * matrix[:, None], axis=0)
