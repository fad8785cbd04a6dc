"""The frames of video files, by PyAV: the extra 'video'.

Frames are told apart by their times, so that seeking stays exact.
"""

import bisect
import contextlib
import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vit_jax.errors import InputError

_STRICT = {"err_detect": "explode"}  # FFmpeg conceals damage otherwise
# FFmpeg's names of the formats that have an index. In AVI and MPEG-TS a seek missed frames.
_SEEKABLE = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")


class Properties(NamedTuple):
    """Attributes:
    num_frames: n, counted.
    size: (h, w) in pixels.
    frames_per_second: on average; None where the file does not tell.
    """

    num_frames: int
    size: tuple[int, int]
    frames_per_second: float | None


class _Index(NamedTuple):
    """Attributes:
    times: of the frames as they are shown, in the stream's units.
    keys: of those that can be decoded without others; empty where only a decode from the
      beginning finds a frame for certain.
    """

    times: list[int]
    keys: list[int]


class VideoFile:
    """Whatever FFmpeg reads, from its bytes or its path."""

    def __init__(self, content: bytes | Path):
        self.content = content

    def properties(self) -> Properties:
        """Raises ValueError where the file promises more frames than it has."""
        with self._opened() as container:
            stream = container.streams.video[0]
            size, rate = (stream.height, stream.width), stream.average_rate or stream.guessed_rate
            index = self._index(container)
            self._check_length(stream, index)
        return Properties(len(index.times), size, float(rate) if rate else None)

    def _check_length(self, stream: Any, index: _Index):
        """Against the number or the seconds that the file promises, if it does."""
        if len(index.times) < stream.frames:  # 0 where the format does not say
            raise ValueError(f"it has {len(index.times)} of {stream.frames} frames")
        seconds, rate = _tagged_seconds(stream), stream.average_rate
        is_constant = rate and rate == stream.base_rate  # else the last frame may last long
        if seconds and is_constant and index.keys:
            end = float(index.times[-1] * stream.time_base + 1 / rate)
            if end < seconds - 1 / (2 * rate):
                raise ValueError(f"it has {end:.2f} of {seconds:.2f} seconds")

    def frames(self, wanted: list[int]) -> dict[int, np.ndarray]:
        """Number -> uint8[h,w,3], for sorted numbers; those that are damaged are missing."""
        with self._opened() as container:
            index = self._index(container)
        with self._opened() as container:
            find = self._by_time if index.keys else self._by_order
            found = find(container, index, wanted)
            return {i: f.to_ndarray(format="rgb24") for i, f in found if not f.is_corrupt}

    def _by_order(
        self, container: Any, index: _Index, wanted: list[int]
    ) -> Iterator[tuple[int, Any]]:
        decoded = itertools.islice(container.decode(video=0), wanted[-1] + 1)
        yield from ((i, frame) for i, frame in enumerate(decoded) if i in wanted)

    def _by_time(
        self, container: Any, index: _Index, wanted: list[int]
    ) -> Iterator[tuple[int, Any]]:
        stream, reached, decoded = container.streams.video[0], None, iter(())
        for i in wanted:
            time = index.times[i]
            key = index.keys[max(bisect.bisect_right(index.keys, time) - 1, 0)]
            if reached is None or key > reached:
                container.seek(key, stream=stream)
                decoded = container.decode(stream)
            for frame in decoded:
                reached = frame.pts
                if reached >= time:
                    break
            if reached == time:
                yield i, frame

    def _index(self, container: Any) -> _Index:
        """From the packets, without decoding."""
        packets = [p for p in container.demux(container.streams.video[0]) if p.size]
        if any(p.is_corrupt for p in packets):
            raise ValueError("it has damaged packets")
        # What stands before the first key frame cannot be decoded.
        packets = list(itertools.dropwhile(lambda p: not p.is_keyframe, packets))
        shown = [p.pts for p in packets if not p.is_discard]
        if container.format.name not in _SEEKABLE or None in shown:
            return _Index(list(range(len(shown))), [])
        if len(set(shown)) < len(shown):
            raise ValueError("it has two frames at one time")
        return _Index(sorted(shown), sorted(p.pts for p in packets if p.is_keyframe))

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Any]:
        av = _av()
        source = str(self.content) if isinstance(self.content, Path) else io.BytesIO(self.content)
        with av.open(source) as container:
            if not container.streams.video:
                raise ValueError("it holds no video")
            context = container.streams.video[0].codec_context
            context.options, context.thread_count = _STRICT, 1  # workers are parallel already
            yield container


def _tagged_seconds(stream: Any) -> float | None:
    """What Matroska notes of a stream as DURATION, 'hours:minutes:seconds'; None elsewhere."""
    parts = stream.metadata.get("DURATION", "").split(":")
    try:
        hours, minutes, seconds = map(float, parts)
    except ValueError:
        return None
    return 3600 * hours + 60 * minutes + seconds


def _av() -> Any:
    try:
        import av
    except ImportError:
        raise InputError(
            "Video files need PyAV, the extra 'video'; without it, GIF, WebP, APNG and folders of "
            "images are read."
        ) from None
    return av
