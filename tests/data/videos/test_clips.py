"""Which frames make a clip: within the video, in order, and spread as the laws say."""

import numpy as np
import pytest

from vit_jax.data.videos.clips import FrameSampling
from vit_jax.errors import InputError

UNIFORM = FrameSampling(clip_length=8)
DENSE = FrameSampling(clip_length=8, law="dense", stride=4, num_clips=3)


@pytest.mark.parametrize("ending", ["loop", "last"])
@pytest.mark.parametrize("num_frames", [1, 2, 7, 8, 9, 28, 29, 30, 300])
def test_clips_lie_within_the_video(num_frames, ending):
    dense = FrameSampling(clip_length=8, law="dense", stride=4, num_clips=3, ending=ending)
    for sampling, clips in ((UNIFORM, 1), (dense, 3)):
        draws = [sampling.train(num_frames, np.random.default_rng(s)) for s in range(20)]
        for frames in (*draws, *sampling.evaluate(num_frames)):
            assert frames.shape == (8,) and frames.dtype == np.int64
            assert frames.min() >= 0 and frames.max() < num_frames
            if sampling is UNIFORM or ending == "last":
                assert np.all(np.diff(frames) >= 0)
        assert sampling.evaluate(num_frames).shape == (clips, 8)


@pytest.mark.parametrize("num_frames", [8, 20, 37])
def test_uniform_takes_each_frame_of_a_segment_equally_often(num_frames):
    """As the loop: cut the video in t equal parts, take a random point of each, round down."""
    rng = np.random.default_rng(0)
    drawn = np.array([UNIFORM.train(num_frames, rng) for _ in range(20_000)])
    edges = np.arange(9) * num_frames / 8
    for k in range(8):
        for frame in range(num_frames):
            share = max(min(frame + 1, edges[k + 1]) - max(frame, edges[k]), 0)
            expected = share / (edges[k + 1] - edges[k])
            # Four standard deviations of a share of 20,000 draws are 0.014 at most.
            assert abs(np.mean(drawn[:, k] == frame) - expected) < 0.015


def test_uniform_evaluation_takes_the_centres():
    assert UNIFORM.evaluate(80).tolist() == [[5, 15, 25, 35, 45, 55, 65, 75]]
    assert UNIFORM.evaluate(8).tolist() == [[0, 1, 2, 3, 4, 5, 6, 7]]
    assert UNIFORM.evaluate(4).tolist() == [[0, 0, 1, 1, 2, 2, 3, 3]]


def test_dense_clips_are_strided_and_every_start_is_met():
    rng = np.random.default_rng(0)
    drawn = np.array([DENSE.train(40, rng) for _ in range(1000)])
    assert np.all(np.diff(drawn) == 4)
    assert set(drawn[:, 0]) == set(range(12)) and drawn.max() == 39


def test_dense_evaluation_spreads_its_clips_from_the_first_to_the_last_frame():
    clips = DENSE.evaluate(49)
    assert clips[:, 0].tolist() == [0, 10, 20] and clips[-1, -1] == 48
    one = FrameSampling(clip_length=8, law="dense", stride=4)
    assert one.evaluate(49)[:, 0].tolist() == [10]


def test_short_videos_are_continued():
    dense = dict(clip_length=5, law="dense", stride=2)
    assert FrameSampling(**dense).evaluate(6).tolist() == [[0, 2, 4, 0, 2]]
    assert FrameSampling(**dense, ending="last").evaluate(6).tolist() == [[0, 2, 4, 5, 5]]


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(clip_length=0), "clip_length is 0"),
        (dict(law="sparse"), "sparse"),
        (dict(stride=2), "stride has no effect with law='uniform'"),
        (dict(num_clips=2), "num_clips has no effect"),
        (dict(ending="loop"), "ending has no effect"),
        (dict(law="dense"), "stride is None"),
        (dict(law="dense", stride=2, num_clips=0), "num_clips is 0"),
        (dict(law="dense", stride=2, ending="mirror"), "mirror"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        FrameSampling(**{"clip_length": 8, **settings})
    with pytest.raises(InputError, match="without frames"):
        UNIFORM.evaluate(0)
