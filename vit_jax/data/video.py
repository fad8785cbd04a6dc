"""Videos: their frames by number, decoding no more than what leads to them.

Video files are read by PyAV, the extra 'video'; animations (GIF, WebP, APNG) and folders of
frames by Pillow. A frame is never replaced by another: a file with fewer frames than it promises,
or with damaged ones among those asked for, is unreadable.

Letters: n frames of a video; t frames asked for; h, w, c = height, width, channels.
"""

import bisect
import contextlib
import functools
import io
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from vit_jax.data.decode import EXTENSIONS, read_image
from vit_jax.data.examples import UnreadableExample
from vit_jax.data.image import to_channels
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


class EncodedVideo:
    """A video that is still in its file. Rotation by a phone's tag is not applied.

    Attributes:
      content: a file's bytes, or the path of a file or of a folder of images, which are its
        frames in the order of their names.
      place: where it is from, for messages.
    """

    def __init__(self, content: bytes | Path, place: str):
        self.content, self.place = content, place

    @property
    def num_frames(self) -> int:
        """n; UnreadableExample as `decode`."""
        return self._properties.num_frames

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) in pixels."""
        return self._properties.size

    @property
    def frames_per_second(self) -> float | None:
        """On average; None where it is not told, as of a folder."""
        return self._properties.frames_per_second

    def decode(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """uint8[t,h,w,3]: the frames of these numbers, in this order, repeated where repeated.

        Raises:
          InputError: for a number outside 0 to n - 1, and where PyAV is needed and missing.
          UnreadableExample: where a frame is damaged, missing or of another size.
        """
        wanted = [int(i) for i in indices]
        if not wanted or min(wanted) < 0 or max(wanted) >= self.num_frames:
            raise InputError(
                f"Frames {wanted} of {self.place} were asked for; it has 0 to "
                f"{self.num_frames - 1}, and one at least must be."
            )
        with _naming(self.place):
            frames = self._reader.frames(sorted(set(wanted)))
            missing = sorted(set(wanted) - set(frames))
            if missing:
                raise ValueError(f"frames {missing} are missing")
            if any(frame.shape != (*self.size, 3) for frame in frames.values()):
                raise ValueError("frames differ in size")
            return np.stack([frames[i] for i in wanted])

    @functools.cached_property
    def _properties(self) -> Properties:
        with _naming(self.place):
            found = self._reader.properties()
            if found.num_frames < 1:
                raise ValueError("it has no frames")
            return found

    @property
    def _reader(self) -> "_Folder | _Animation | _File":
        if isinstance(self.content, bytes):
            start = self.content[:12]
        elif self.content.is_dir():
            return _Folder(self.content)
        else:
            with self.content.open("rb") as file:
                start = file.read(12)
        is_animation = start[:4] == b"GIF8" or start[8:] == b"WEBP" or start[1:4] == b"PNG"
        return _Animation(self.content) if is_animation else _File(self.content)


def read_video(path: str | Path) -> EncodedVideo:
    """A file or a folder of frames, not yet decoded nor read; UnreadableExample if missing."""
    if not Path(path).exists():
        raise UnreadableExample(str(path), "No such file or directory")
    return EncodedVideo(Path(path), str(path))


def num_frames_of(video: np.ndarray | EncodedVideo) -> int:
    """n."""
    return video.num_frames if isinstance(video, EncodedVideo) else len(video)


def frames_of(video: np.ndarray | EncodedVideo, indices: Sequence[int] | np.ndarray) -> np.ndarray:
    """uint8[t,h,w,c]: the frames of these numbers."""
    return video.decode(indices) if isinstance(video, EncodedVideo) else video[np.asarray(indices)]


class _Folder:
    def __init__(self, path: Path):
        names = (p for p in path.iterdir() if p.name.lower().endswith(EXTENSIONS))
        self.paths = sorted(p for p in names if not p.name.startswith("."))

    def properties(self) -> Properties:
        size = read_image(self.paths[0]).shape[:2] if self.paths else (0, 0)
        return Properties(len(self.paths), size, None)

    def frames(self, wanted: list[int]) -> dict[int, np.ndarray]:
        return {i: to_channels(read_image(self.paths[i]), 3) for i in wanted}


class _Animation:
    def __init__(self, content: bytes | Path):
        self.content = content

    def properties(self) -> Properties:
        with Image.open(_stream(self.content)) as image:
            number, size = getattr(image, "n_frames", 1), (image.height, image.width)
            image.seek(0)
            image.load()
            duration = image.info.get("duration")  # milliseconds, of the first frame
            return Properties(number, size, 1000 / duration if duration else None)

    def frames(self, wanted: list[int]) -> dict[int, np.ndarray]:
        found = {}
        with Image.open(_stream(self.content)) as image:
            for i in wanted:
                image.seek(i)
                found[i] = np.asarray(image.convert("RGB"))
        return found


class _Index(NamedTuple):
    """Attributes:
    times: of the frames as they are shown, in the stream's units.
    keys: of those that can be decoded without others; empty where only a decode from the
      beginning finds a frame for certain.
    """

    times: list[int]
    keys: list[int]


class _File:
    """What FFmpeg reads. Frames are told apart by their times, so that seeking stays exact."""

    def __init__(self, content: bytes | Path):
        self.content = content

    def properties(self) -> Properties:
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


def _stream(content: bytes | Path) -> io.BytesIO | Path:
    return io.BytesIO(content) if isinstance(content, bytes) else content


@contextlib.contextmanager
def _naming(place: str) -> Iterator[None]:
    try:
        yield
    except InputError:  # unreadable frames of a folder among them, named better there
        raise
    except Exception as error:  # decoders of broken files raise nearly anything
        reason = str(error).rstrip(".") or "damaged file"
        raise UnreadableExample(place, f"{type(error).__name__}: {reason}") from error
