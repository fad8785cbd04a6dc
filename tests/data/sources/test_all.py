"""Every kind of source: the same pictures, the same examples, in every process and thread."""

import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from picture_sources import CLASSES, LABELS, WRITERS, images, open_kind

from vit_jax.data.examples import ExampleOutOfRange
from vit_jax.data.images.decode import Encoded, pixels
from vit_jax.data.sources import OPENERS, open_source
from vit_jax.errors import InputError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(params=WRITERS)
def opened(request, root):
    """split -> source, of every kind."""
    if request.param == "hf":
        pytest.importorskip("datasets", reason="needs datasets, an optional package")
    return lambda split: open_kind(request.param, root, split)


def read_all(source):
    return [(pixels(example["image"]).tobytes(), example["label"]) for example in source]


@pytest.mark.parametrize("split", LABELS)
def test_all_kinds_hold_the_same_examples(opened, split):
    source = opened(split)
    assert source.class_names == CLASSES and source.fields == ("image", "label")
    assert [label for _, label in read_all(source)] == list(LABELS[split])
    for i, expected in enumerate(images(split)):
        example = source[i]
        assert example.keys() == set(source.fields) and type(example["label"]) is int
        found = pixels(example["image"])
        assert found.dtype == np.uint8 and np.array_equal(found, expected)


def test_slices_partition_and_name_their_examples(opened):
    whole = opened("train")
    parts = opened("train[:30%]"), opened("train[30%:]")
    assert read_all(parts[0]) + read_all(parts[1]) == read_all(whole)
    assert read_all(opened("test+train[:1]")) == read_all(opened("test")) + read_all(whole)[:1]
    places = [part.describe(i) for part in parts for i in range(len(part))]
    assert places == [whole.describe(i) for i in range(len(whole))]
    assert len(set(places)) == len(whole)


def test_what_is_not_there_is_out_of_range(opened):
    source = opened("train")
    for i in (-1, len(source), 10**9):
        with pytest.raises(ExampleOutOfRange, match=f"no example {i}: it holds 4"):
            source[i]
    with pytest.raises(InputError, match="available: (train, test|test, train)"):
        opened("val")


def test_sources_travel_between_processes(opened):
    """Pickled before and after use; a reader that was open stays behind."""
    source = opened("train[1:]")
    expected = read_all(opened("train"))[1:]
    fresh = pickle.loads(pickle.dumps(source))
    assert read_all(source) == expected == read_all(fresh)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_first_image, (source,)) == expected[0][0]
    buffers = []
    state = pickle.dumps(source, protocol=5, buffer_callback=buffers.append)
    frozen = [bytes(buffer) for buffer in buffers]  # read-only, as memory that is shared
    assert read_all(pickle.loads(state, buffers=frozen)) == expected


def _first_image(source):
    return pixels(source[0]["image"]).tobytes()


def test_threads_share_a_source(opened):
    source = opened("train+test")
    expected = read_all(source)
    with ThreadPoolExecutor(8) as pool:
        fresh = pickle.loads(pickle.dumps(source))
        found = list(pool.map(lambda i: read_all([fresh[i % len(fresh)]])[0], range(96)))
    assert found == expected * 16


def test_images_in_files_stay_encoded_and_know_the_files_name(root):
    for kind in ("folder", "manifest", "csv", "array_record"):
        source = open_kind(kind, root, "test[1:]")
        assert isinstance(source[0]["image"], Encoded)
        assert source.file_name(0) == "picture_1.png"
        assert "picture_1.png" in source[0]["image"].place


@pytest.mark.parametrize("kind", OPENERS)
def test_without_a_place_every_kind_says_what_it_needs(kind):
    if kind == "digits":
        assert len(open_source(kind, "test")) == 360
        return
    if kind == "hf":
        pytest.importorskip("datasets", reason="needs datasets, an optional package")
    with pytest.raises(InputError, match=f"{kind}:"):
        open_source(f"{kind}:", "train")


@pytest.mark.parametrize("kind", [kind for kind in OPENERS if kind not in ("tfds", "hf")])
@pytest.mark.parametrize("setting", ["image_key", "label_key", "data_dir"])
def test_settings_of_other_kinds_are_refused(kind, setting):
    allowed = "tfds:NAME alone" if setting == "data_dir" else "tfds:NAME and hf:NAME alone"
    with pytest.raises(InputError, match=f"data.{setting} is 'x', but it concerns {allowed}"):
        open_source(f"{kind}:", "train", **{setting: "x"})
