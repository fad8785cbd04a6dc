"""One example as the bytes of one record: what the project's own ArrayRecord files hold.

    offset  bytes  what
    0       1      the version of this format, 1
    1       4      k, the length of the header, little endian
    5       k      the header: a JSON object in UTF-8
    5 + k   rest   the image, the bytes of its file as they were

The header has "image", the number of image bytes, and any of the fields below. So a record needs
no library to be read, says itself whether it is whole, and its image was never encoded again.
"""

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_jax.errors import InputError

FIELDS = ("label", "labels", "caption", "boxes", "box_label", "name")
VERSION = 1
_PREFIX = struct.Struct("<BI")  # version, length of the header


def pack(example: Mapping[str, Any], image: bytes) -> bytes:
    """One record.

    Args:
      example: any of `FIELDS` as `data/examples.py` has them, NumPy arrays or lists; "name" is
        the name of the image's file.
      image: the bytes of an image file.

    Raises:
      InputError: for any other field, or a value that is not of its field's type.
    """
    unknown = [key for key in example if key not in FIELDS]
    if unknown:
        raise InputError(
            f"A record cannot hold {', '.join(map(repr, unknown))}; allowed: {', '.join(FIELDS)}."
        )
    values = {key: _plain(key, example[key]) for key in FIELDS if key in example}
    text = json.dumps({**values, "image": len(image)}, ensure_ascii=False)
    header = text.encode()
    return _PREFIX.pack(VERSION, len(header)) + header + image


def unpack(record: bytes) -> tuple[dict[str, Any], bytes]:
    """The inverse of `pack`: the fields as plain JSON types, and the bytes of the image.

    Raises:
      InputError: unless the record is whole and of this version.
    """
    if len(record) < _PREFIX.size:
        raise InputError(f"The record has {len(record)} bytes; at least {_PREFIX.size} are needed.")
    version, length = _PREFIX.unpack_from(record)
    if version != VERSION:
        raise InputError(f"The record is of version {version}; version {VERSION} can be read.")
    start = _PREFIX.size + length
    try:
        fields = json.loads(record[_PREFIX.size : start])
        promised = fields.pop("image")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"The header of the record is damaged ({error!r}).") from error
    if len(record) - start != promised:
        raise InputError(
            f"The record promises {promised} bytes of image and holds {len(record) - start}."
        )
    return fields, record[start:]


def _plain(key: str, value: Any) -> Any:
    """A field as JSON types; a float32 survives the way through decimal digits exactly."""
    array = np.asarray(value)
    kinds, rank = {
        "label": ("iu", 0),
        "labels": ("iu", 1),
        "caption": ("U", 0),
        "boxes": ("fiu", 2),
        "box_label": ("iu", 1),
        "name": ("U", 0),
    }[key]
    is_right = not array.size or (array.dtype.kind in kinds and array.ndim == rank)
    if not is_right or (array.dtype.kind == "f" and not np.isfinite(array).all()):
        raise InputError(f"A record cannot hold {value!r} as {key!r}.")
    return array.tolist()
