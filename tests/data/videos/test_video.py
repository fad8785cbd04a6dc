"""Videos: each frame by its number, the same from every kind of file, and none that is made up."""

import io
import pickle
import sys

import numpy as np
import pytest
from PIL import Image

from vit_jax.data.examples import UnreadableExample
from vit_jax.data.videos import video
from vit_jax.data.videos.video import EncodedVideo, read_video
from vit_jax.data.videos.video_files import VideoFile
from vit_jax.errors import InputError

N, SIZE = 30, (48, 64)


def film(n=N):
    """Frame k says its number in stripes, one a bit, dark for 0."""
    frames = np.empty((n, *SIZE, 3), np.uint8)
    for k in range(n):
        for bit in range(8):
            frames[k, :, 8 * bit : 8 * bit + 8] = 220 if k >> bit & 1 else 40
    return frames


def numbers(frames):
    """What `film` says, also after lossy compression."""
    stripes = frames.reshape(len(frames), SIZE[0], 8, 8, 3).mean(axis=(1, 3, 4)) > 130
    return (stripes * 2 ** np.arange(8)).sum(axis=1).tolist()


def animation(frames, form, **settings):
    images, file = [Image.fromarray(frame) for frame in frames], io.BytesIO()
    images[0].save(file, form, save_all=True, append_images=images[1:], duration=40, **settings)
    return file.getvalue()


ANIMATIONS = {"GIF": {}, "WEBP": dict(lossless=True), "PNG": {}}
# Codec and format: with an index and without, with frames stored in another order than shown.
FILES = [("mpeg4", "mp4"), ("mpeg4", "matroska"), ("mpeg4", "avi"), ("mpeg4", "mpegts")]


def load_av():
    return pytest.importorskip("av", reason="needs PyAV: pip install vit_jax[video]")


def encoded(frames, codec, form):
    file = io.BytesIO()
    with load_av().open(file, "w", format=form) as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = 6, 2
        for frame in frames:
            picture = load_av().VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return file.getvalue()


def in_order(data):
    """Every frame, without any seeking."""
    with load_av().open(io.BytesIO(data)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def assert_random_access(found, expected):
    assert found.num_frames == len(expected) and found.size == expected.shape[1:3]
    assert np.array_equal(found.decode(range(len(expected))), expected)
    rng = np.random.default_rng(0)
    for _ in range(20):
        indices = rng.integers(len(expected), size=rng.integers(1, 9))  # unsorted, repeated
        assert np.array_equal(found.decode(indices), expected[indices])


@pytest.mark.parametrize("form", ANIMATIONS)
def test_animations(form, tmp_path):
    data = animation(film(), form, **ANIMATIONS[form])
    # The palette of a GIF holds the two greys of each frame exactly.
    for found in (EncodedVideo(data, "x"), pickle.loads(pickle.dumps(EncodedVideo(data, "x")))):
        assert_random_access(found, film())
        assert found.frames_per_second == 25
    (tmp_path / "a").write_bytes(data)
    assert_random_access(read_video(tmp_path / "a"), film())


def test_folders_of_frames(tmp_path):
    for k, frame in enumerate(film()):
        Image.fromarray(frame).save(tmp_path / f"{k:03d}.png")
    (tmp_path / "notes.txt").write_text("no frame")
    found = read_video(tmp_path)
    assert_random_access(found, film())
    assert found.frames_per_second is None
    Image.fromarray(film()[0, :, :5]).save(tmp_path / "005.png")
    with pytest.raises(UnreadableExample, match="frames differ in size"):
        found.decode([4, 5])
    (tmp_path / "006.png").write_bytes(b"")
    with pytest.raises(UnreadableExample, match="006.png"):
        found.decode([6])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnreadableExample, match="no frames"):
        read_video(tmp_path / "empty").decode([0])


@pytest.mark.parametrize("codec, form", FILES)
def test_video_files(codec, form, tmp_path):
    data = encoded(film(), codec, form)
    expected = in_order(data)
    assert expected.shape == film().shape
    assert_random_access(EncodedVideo(data, "x"), expected)
    (tmp_path / "a").write_bytes(data)
    assert_random_access(read_video(tmp_path / "a"), expected)
    assert EncodedVideo(data, "x").frames_per_second == 25
    assert numbers(expected) == list(range(N))


@pytest.mark.parametrize("codec, form", FILES)
def test_damaged_video_files_are_never_filled_up(codec, form):
    """As many frames as counted, or none; of a truncated file all that it promises, or none."""
    data, rng, counts = encoded(film(), codec, form), np.random.default_rng(1), [0, 0]
    promises = form != "mpegts"  # of its length
    for k in range(60):
        changed = data[: len(data) * (k + 1) // 31]
        if k >= 30:
            at = int(rng.integers(len(data)))
            changed = data[:at] + rng.bytes(4) + data[at + 4 :]
        found = EncodedVideo(changed, "broken")
        try:
            frames = found.decode(range(found.num_frames))
            assert len(frames) == found.num_frames
            # Matroska promises an end, not a number; frames in between may be stored last.
            assert k >= 30 or not promises or found.num_frames >= N - 2 * (form == "matroska")
            counts[0] += 1
        except UnreadableExample as error:
            assert error.place == "broken"
            counts[1] += 1
    assert min(counts) > 3  # both outcomes were met


def test_a_frame_that_is_not_at_its_time_is_missing_not_its_neighbour(monkeypatch):
    index_of = VideoFile._index

    def moved(self, container):
        index = index_of(self, container)
        return index._replace(times=[*index.times[:7], index.times[7] - 1, *index.times[8:]])

    found = EncodedVideo(encoded(film(), "mpeg4", "mp4"), "x")
    monkeypatch.setattr(VideoFile, "_index", moved)
    assert numbers(found.decode([6, 8])) == [6, 8]
    with pytest.raises(UnreadableExample, match=r"frames \[7\] are missing"):
        found.decode([6, 7, 8])


@pytest.mark.parametrize("form", ANIMATIONS)
def test_truncated_animations_are_refused(form):
    data = animation(film(), form, **ANIMATIONS[form])
    for end in range(12, len(data) - 20, len(data) // 30):  # 12 tell the format
        found = EncodedVideo(data[:end], "broken")
        with pytest.raises(UnreadableExample, match="broken"):
            if len(found.decode(range(found.num_frames))) < N and form == "GIF":
                # It promises no number: what came before the end was read in whole.
                raise UnreadableExample("broken", "it is counted")


def test_wrong_numbers_are_refused():
    found = EncodedVideo(animation(film(3), "GIF"), "clip")
    for indices in ([3], [-1], []):
        with pytest.raises(InputError, match="clip.*0 to 2"):
            found.decode(indices)


def test_what_is_no_video(tmp_path):
    with pytest.raises(UnreadableExample, match="missing"):
        read_video(tmp_path / "missing")
    load_av()
    for data in (b"", b"no video", bytes(1000)):
        with pytest.raises(UnreadableExample, match="Cannot read image x"):
            EncodedVideo(data, "x").decode([0])


def test_without_pyav_the_message_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match="the extra 'video'") as caught:
        EncodedVideo(b"....ftypisom", "x").decode([0])
    assert not isinstance(caught.value, UnreadableExample)  # or each would be skipped


def test_arrays_are_videos_too():
    frames = film(4)
    assert video.num_frames_of(frames) == 4
    assert np.array_equal(video.frames_of(frames, [2, 2, 0]), frames[[2, 2, 0]])
    found = EncodedVideo(animation(frames, "PNG"), "x")
    assert video.num_frames_of(found) == 4
    assert np.array_equal(video.frames_of(found, [2, 2, 0]), frames[[2, 2, 0]])
