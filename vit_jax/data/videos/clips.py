"""Which frames of a video make a clip.

Two laws. 'uniform' is that of TSN (arXiv:1608.00859, section 3.1): the video in t segments of
equal length, one random frame of each in training, its centre in evaluation; a clip sees the
whole video. 'dense' takes every stride-th frame from a random start, as I3D and SlowFast
(arXiv:1812.03982) do; in evaluation several clips, from the first possible start to the last,
whose predictions are averaged. TimeSformer (arXiv:2102.05095) takes 8 frames, 32 apart.

Letters: n frames of a video; t frames of a clip; k clips; h, w, c = height, width, channels.
"""

from dataclasses import dataclass

import numpy as np

from vit_jax import sections
from vit_jax.data.examples import Example
from vit_jax.data.videos.video import frames_of, num_frames_of
from vit_jax.errors import InputError

LAWS = ("uniform", "dense")


def _looped(frames: np.ndarray, num_frames: int) -> np.ndarray:
    return frames % num_frames


def _last_repeated(frames: np.ndarray, num_frames: int) -> np.ndarray:
    return np.minimum(frames, num_frames - 1)


# What follows the end of a video that is shorter than a dense clip.
ENDINGS = {"loop": _looped, "last": _last_repeated}


@dataclass(frozen=True, kw_only=True)
class FrameSampling:
    """Settings of a clip, see the top of this file.

    Attributes:
      clip_length: t.
      law: 'uniform' or 'dense'.
      stride: for 'dense', and needed there: from one frame to the next.
      num_clips: for 'dense': k of evaluation; training takes one.
      ending: for 'dense': what follows the end of a short video, 'loop' its beginning (the
        default), 'last' its last frame.
    """

    clip_length: int
    law: str = "uniform"
    stride: int | None = None
    num_clips: int | None = None
    ending: str | None = None

    def __post_init__(self):
        sections.positive_int(self.clip_length, "clip_length")
        sections.choose(dict.fromkeys(LAWS), self.law, where="law")
        given = [n for n in ("stride", "num_clips", "ending") if getattr(self, n) is not None]
        if self.law == "uniform" and given:
            raise InputError(f"{given[0]} has no effect with law='uniform'; leave it out.")
        if self.law == "dense":
            sections.positive_int(self.stride, "stride")
            sections.positive_int(1 if self.num_clips is None else self.num_clips, "num_clips")
            sections.choose(ENDINGS, self.ending or "loop", where="ending")

    def train(self, num_frames: int, rng: np.random.Generator) -> np.ndarray:
        """int64[t], in order: a random clip of a video of n frames."""
        _check_frames(num_frames)
        if self.law == "uniform":
            return _segments(num_frames, rng.random(self.clip_length))
        return self._dense(num_frames, rng.integers(self._room(num_frames) + 1, size=1))[0]

    def evaluate(self, num_frames: int) -> np.ndarray:
        """int64[k,t]: the same clips each time; k is 1 for 'uniform'."""
        _check_frames(num_frames)
        if self.law == "uniform":
            return _segments(num_frames, np.full(self.clip_length, 0.5))[None]
        room, k = self._room(num_frames), self.num_clips or 1
        starts = np.array([room / 2]) if k == 1 else np.arange(k) * room / (k - 1)
        return self._dense(num_frames, starts.astype(int))

    def _room(self, num_frames: int) -> int:
        """The last start from which a clip ends within the video."""
        return max(num_frames - 1 - (self.clip_length - 1) * self.stride, 0)

    def _dense(self, num_frames: int, starts: np.ndarray) -> np.ndarray:
        frames = starts[:, None] + self.stride * np.arange(self.clip_length)
        return ENDINGS[self.ending or "loop"](frames, num_frames)


def _segments(num_frames: int, within: np.ndarray) -> np.ndarray:
    """One frame a segment, `within` it from 0 to 1; short videos repeat frames, in order."""
    length = num_frames / len(within)
    frames = ((np.arange(len(within)) + within) * length).astype(int)
    return np.minimum(frames, num_frames - 1)  # the product may round up to n


def _check_frames(num_frames: int):
    if num_frames < 1:
        raise InputError("A video without frames has no clips.")


@dataclass(frozen=True)
class Clip:
    """Puts the frames of a clip in the place of a video: a transform to begin others with.

    With a generator it is a random clip, uint8[t,h,w,c]; without one those of evaluation one after
    the other, uint8[k*t,h,w,c].
    """

    sampling: FrameSampling

    def __call__(self, example: Example, rng: np.random.Generator | None) -> Example:
        if "video" not in example:
            raise InputError("data.frames is set, but an example has no video; leave it out.")
        n = num_frames_of(example["video"])
        frames = self.sampling.evaluate(n).ravel() if rng is None else self.sampling.train(n, rng)
        return {**example, "video": frames_of(example["video"], frames)}
