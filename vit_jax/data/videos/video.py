"""Videos: their frames by number, decoding no more than what leads to them.

Video files are read by PyAV, the extra 'video'; animations (GIF, WebP, APNG) and folders of
frames by Pillow. A frame is never replaced by another: a file with fewer frames than it promises,
or with damaged ones among those asked for, is unreadable.

Letters: n frames of a video; t frames asked for; h, w, c = height, width, channels.
"""

import contextlib
import functools
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from vit_jax.data.examples import UnreadableExample
from vit_jax.data.images.decode import EXTENSIONS, read_image
from vit_jax.data.images.preprocessing import to_channels
from vit_jax.data.videos.video_files import Properties, VideoFile
from vit_jax.errors import InputError


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
    def _reader(self) -> "_Folder | _Animation | VideoFile":
        if isinstance(self.content, bytes):
            start = self.content[:12]
        elif self.content.is_dir():
            return _Folder(self.content)
        else:
            with self.content.open("rb") as file:
                start = file.read(12)
        is_animation = start[:4] == b"GIF8" or start[8:] == b"WEBP" or start[1:4] == b"PNG"
        return _Animation(self.content) if is_animation else VideoFile(self.content)


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
