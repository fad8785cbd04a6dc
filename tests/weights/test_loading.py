"""`weights.load`: any source becomes the model that it was, or one sentence says why not."""

import json
import logging
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import NUM_STEPS, tiny_config
from pretrained import CLASSES, SIZE, images, logits, preprocessing, vit
from toys import assert_trees_equal

from vit_jax import experiment, models, restoring, weights
from vit_jax.errors import InputError
from vit_jax.layers import resize
from vit_jax.train.checkpoint import Checkpointer
from vit_jax.weights import files, remote

SETTINGS = {
    "google": dict(representation_dim=6),
    "big_vision": dict(pool="map"),
}


@pytest.fixture(autouse=True)
def nothing_is_fetched(monkeypatch):
    def fetched(*arguments, **settings):
        raise AssertionError(f"fetched {arguments}")

    for name in ("_fetch_url", "_fetch_repository"):
        monkeypatch.setattr(remote, name, fetched)


@pytest.fixture(scope="module", params=SETTINGS)
def stored(request, tmp_path_factory):
    """(file, model, variables) of a layout that is read without torch."""
    model, variables = vit(**SETTINGS[request.param])
    path = tmp_path_factory.mktemp("weights") / f"{request.param}.npz"
    weights.save(path, model, variables, layout=request.param, preprocessing=preprocessing())
    return path, model, variables


@pytest.fixture(scope="module")
def google(tmp_path_factory):
    model, variables = vit()
    path = tmp_path_factory.mktemp("google") / "a.npz"
    weights.save(path, model, variables, layout="google", preprocessing=preprocessing())
    return path, model, variables


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("load") / "run"
    experiment.run(tiny_config(), folder)
    return folder


# outputs


def test_a_file_is_the_model_that_it_was(stored):
    path, model, variables = stored
    loaded = weights.load(path)
    assert_trees_equal(loaded.variables, variables)
    np.testing.assert_array_equal(
        logits(loaded.model, loaded.variables, images()), logits(model, variables, images())
    )
    assert loaded.preprocessing == preprocessing()
    assert loaded.class_names == ("0", "1", "2", "3", "4")
    assert models.build(**loaded.settings) == loaded.model
    assert {leaf.status for leaf in loaded.report.leaves} == {"loaded"}


def restored(folder):
    learner, state, _ = restoring.restore(folder)
    return learner, state


def test_a_run_gives_its_averaged_weights_classes_and_preprocessing(run):
    learner, state = restored(run)
    loaded = weights.load(run)
    assert_trees_equal(loaded.variables["params"], state.ema_params)
    assert any(
        (a != b).any()
        for a, b in zip(
            jax.tree.leaves(state.params), jax.tree.leaves(state.ema_params), strict=True
        )
    )
    assert loaded.preprocessing == learner.info.preprocessing
    assert loaded.class_names == tuple("0123456789")
    assert loaded.model == learner.task.model
    image = images((8, 8), 1)
    expected = learner.task.model.apply(state.variables(averaged=True), image).logits
    # One is compiled and the other is not: sums in another order.
    np.testing.assert_allclose(
        logits(loaded.model, loaded.variables, image), expected, rtol=0, atol=1e-5
    )


def test_a_run_without_averages_gives_its_last_weights(tmp_path):
    config = tiny_config(train__ema_decay=None, train__num_steps=2)
    experiment.run(config, tmp_path / "run")
    _, state = restored(tmp_path / "run")
    assert state.ema_params is None
    assert_trees_equal(weights.load(tmp_path / "run").variables["params"], state.params)


def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(run, tmp_path, caplog):
    shutil.copytree(run, tmp_path / "run")
    checkpoints = tmp_path / "run" / "checkpoints"
    before = sorted(p.name for p in checkpoints.iterdir())
    newest = checkpoints / str(NUM_STEPS) / "state"
    victim = max(newest.rglob("*"), key=lambda p: p.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-1])
    loaded = weights.load(tmp_path / "run")
    assert f"checkpoint of step {NUM_STEPS} is damaged" in caplog.text
    expected = Checkpointer(checkpoints, read_only=True).read_weights(NUM_STEPS - 6, "ema_params")
    assert_trees_equal(loaded.variables["params"], expected["ema_params"])
    assert sorted(p.name for p in checkpoints.iterdir()) == before  # reading moves nothing


def test_running_statistics_arrive(tmp_path):
    config = tiny_config(
        data__image_size=(32, 32),
        task__model__stem="conv_1gf",
        task__model__patch_size=1,
        train__num_steps=2,
        train__ema_decay=None,
    )
    experiment.run(config, tmp_path / "run")
    _, state = restored(tmp_path / "run")
    loaded = weights.load(tmp_path / "run")
    assert set(loaded.variables) == {"params", "batch_stats"}
    assert_trees_equal(loaded.variables["batch_stats"], state.model_state["batch_stats"])
    means = loaded.variables["batch_stats"]["stem"]["norm1"]["mean"]
    assert np.abs(means).max() > 0  # as they are not at the start
    assert logits(loaded.model, loaded.variables, images((32, 32), 1)).shape == (2, 10)


# images of another kind


@pytest.mark.parametrize("method", ["bicubic", "bilinear", "zoom"])
@pytest.mark.parametrize("size", [(12, 20), (16, 8), (4, 4)], ids=str)
def test_positions_are_resized_to_any_grid_and_the_class_token_keeps_its_own(google, size, method):
    path, _, variables = google
    loaded = weights.load(path, image_size=size, positions=method)
    assert loaded.preprocessing.image_size == size
    old = np.asarray(variables["params"]["position_embedding"])
    found = np.asarray(loaded.variables["params"]["position_embedding"])
    new_grid = (size[0] // 4, size[1] // 4)
    assert found.shape == (1, 1 + new_grid[0] * new_grid[1], old.shape[-1])
    np.testing.assert_array_equal(found[:, :1], old[:, :1])
    expected = resize.resize_positions(
        old,
        old_grid=(2, 2),
        new_grid=new_grid,
        num_prefix=1,
        method=method,
        antialias=method != "zoom",
    )
    np.testing.assert_array_equal(found, expected)
    assert [leaf.name for leaf in loaded.report.of("resized")] == ["position_embedding"]
    assert "resized" in str(loaded.report)
    assert logits(loaded.model, loaded.variables, images(size)).shape == (2, 5)


def test_one_number_is_a_square(google):
    assert weights.load(google[0], image_size=12).preprocessing.image_size == (12, 12)


@pytest.mark.parametrize("layout", SETTINGS)
def test_positions_of_a_rectangle_need_its_grid(layout, tmp_path):
    model, variables = vit((8, 16), **SETTINGS[layout])
    path = tmp_path / "a.npz"
    wide = preprocessing(image_size=(8, 16))
    weights.save(path, model, variables, layout=layout, preprocessing=wide)
    loaded = weights.load(path, old_grid=(2, 4))
    assert loaded.preprocessing == wide
    assert_trees_equal(loaded.variables, variables)
    again = weights.load(path, image_size=(8, 8), old_grid=(2, 4))
    assert [leaf.name for leaf in again.report.of("resized")] == ["position_embedding"]
    for size in (None, (8, 16)):
        with pytest.raises(InputError, match="[89] positions; allowed with the grid 2x2 .*: [45]"):
            weights.load(path, image_size=size)


def test_another_patch_size_keeps_the_tokens_of_images_enlarged_alike(google):
    """FlexiViT's law: of an upsampled image the larger patches see what the small ones saw."""
    path, model, variables = google
    loaded = weights.load(path, patch_size=8, image_size=16)
    assert loaded.model.patch_size == (8, 8) and loaded.settings["patch_size"] == 8
    assert [leaf.name for leaf in loaded.report.of("resized")] == ["patch_embedding/kernel"]
    image = images()
    matrix = resize.resample_matrix(4, 8, method="bilinear", antialias=False)
    patches = np.asarray(image).reshape(2, 2, 4, 2, 4, 3)  # b, rows, p, columns, q, C
    large = np.einsum("Pp,brpcqC,Qq->brPcQC", matrix, patches, matrix).reshape(2, 16, 16, 3)
    # The new kernel is solved for in float64 and stored in float32.
    np.testing.assert_allclose(
        logits(loaded.model, loaded.variables, jnp.asarray(large, jnp.float32)),
        logits(model, variables, image),
        rtol=0,
        atol=1e-4,
    )


def test_grey_images_have_the_logits_of_grey_rgb(google):
    path, model, variables = google
    loaded = weights.load(path, channels=1)
    assert loaded.preprocessing.channels == 1
    grey = images(channels=1)
    np.testing.assert_allclose(
        logits(loaded.model, loaded.variables, grey),
        logits(model, variables, jnp.repeat(grey, 3, axis=-1)),
        rtol=0,
        atol=1e-5,  # three products are summed before or after rounding
    )


def test_a_grey_model_reads_rgb(tmp_path):
    model, variables = vit(channels=1)
    grey = preprocessing(channels=1)
    weights.save(tmp_path / "a.npz", model, variables, layout="google", preprocessing=grey)
    assert weights.load(tmp_path / "a.npz").preprocessing.channels == 1
    loaded = weights.load(tmp_path / "a.npz", channels=3)
    assert loaded.preprocessing.image_shape == (*SIZE, 3)
    image = images(channels=1)
    np.testing.assert_allclose(
        logits(loaded.model, loaded.variables, jnp.repeat(image, 3, axis=-1)),
        logits(model, variables, image),
        rtol=0,
        atol=1e-5,  # as above
    )


# heads


def test_the_same_classes_keep_the_head_bit_for_bit(run, caplog):
    before = weights.load(run)
    again = weights.load(run, class_names=tuple("0123456789"))
    assert_trees_equal(again.variables, before.variables)
    assert not again.report.of("initialised") and "anew" not in caplog.text


# In another order they are other classes: row 0 would answer to another name.
@pytest.mark.parametrize("names", [("yes", "no"), tuple("9876543210")], ids=["few", "permuted"])
def test_other_classes_get_a_new_head_and_a_warning(run, names, caplog):
    before = weights.load(run)
    with caplog.at_level(logging.WARNING):
        loaded = weights.load(run, class_names=names)
    assert "initialised anew instead of loaded: head/bias, head/kernel" in caplog.text
    assert loaded.class_names == names
    params, old = dict(loaded.variables["params"]), dict(before.variables["params"])
    head = params.pop("head")
    assert head["kernel"].shape[-1] == len(names) and not np.any(head["kernel"])
    old.pop("head")
    assert_trees_equal(params, old)
    reasons = {leaf.reason for leaf in loaded.report.of("initialised")}
    assert reasons == {"a new head for other classes"}


def test_no_classes_leave_the_head_out(stored):
    path, model, variables = stored
    loaded = weights.load(path, class_names=())
    assert "head" not in loaded.variables["params"] and loaded.model.num_classes == 0
    output = loaded.model.apply(loaded.variables, images())
    expected = model.apply(variables, images())
    assert output.logits is None
    np.testing.assert_array_equal(output.representation, expected.representation)
    unused = {leaf.name: leaf.reason for leaf in loaded.report.of("unused")}
    assert set(unused) == {"head/kernel", "head/bias"}
    assert set(unused.values()) == {"the head is left out, as asked"}


def test_a_file_without_a_head_gets_one(tmp_path):
    model, variables = vit(num_classes=0)
    path = tmp_path / "a.npz"
    weights.save(path, model, variables, layout="google", preprocessing=preprocessing())
    assert weights.load(path).class_names == ()
    loaded = weights.load(path, class_names=CLASSES)
    assert logits(loaded.model, loaded.variables, images()).shape == (2, 5)


# settings in place of the stored ones


def test_settings_override_the_stored_ones(google):
    path, model, variables = google
    loaded = weights.load(path, drop_path_rate=0.3, dtype="bfloat16", unroll=1)
    assert loaded.model.drop_path_rate == 0.3 and loaded.model.block.dtype == jnp.bfloat16
    assert loaded.settings["dtype"] == "bfloat16" and loaded.settings["drop_path_rate"] == 0.3
    assert models.build(**loaded.settings) == loaded.model
    assert_trees_equal(loaded.variables, variables)  # still float32
    found, exact = (logits(m, variables, images()) for m in (loaded.model, model))
    assert 0 < np.abs(found - exact).max() < 0.1 * np.abs(exact).max()


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(drop_path=0.1), "settings has unknown key 'drop_path' .*'drop_path_rate'"),
        (dict(positions="nearest"), "method is 'nearest'; allowed: bicubic, bilinear, zoom"),
        (dict(image_size=(9, 8)), "9x8.*4x4"),
        (dict(image_size=0), "image_size"),
        (dict(old_grid=(1, 4), image_size=8), None),
        (dict(old_grid=(3, 4)), "5 positions.*3x4"),
        (dict(part="model"), "part is 'model'"),
        (dict(width=24), "class_token 1x1x24 from cls 1x1x12"),
        (dict(depth=3), "attention/out/kernel 3x3x4x12 from .*lacks Transformer/encoderblock_2"),
        (dict(mlp_dim=24), "mlp/up/kernel 2x12x24 .*2x12x20"),
        (dict(num_heads=2), "query/kernel 2x12x2x6 .*2x12x3x4"),
        (dict(layer_scale=0.1), "missing encoder/blocks/attention_scale 2x12"),
        (dict(num_registers=2), "missing registers 1x2x12: no rule names it"),
        (dict(representation_dim=3), "pre_logits"),
        (
            dict(pool="gap", class_token=False),
            "5 positions; allowed with the grid 2x2 and 0 prefix",
        ),
    ],
    ids=str,
)
def test_what_does_not_fit_is_named_with_both_shapes(google, settings, message):
    if message is None:
        assert weights.load(google[0], **settings).report.of("loaded")
        return
    with pytest.raises(InputError, match=message) as told:
        weights.load(google[0], **settings)
    assert len(str(told.value).splitlines()) == 1


def changed(path, target, change):
    arrays = files.read_arrays(path)
    change(arrays)
    files.write_npz(target, arrays)
    return target


def remove(name):
    return lambda arrays: arrays.pop(name)


def put(name, *shape):
    return lambda arrays: arrays.update({name: np.zeros(shape, np.float32)})


BLOCK = "Transformer/encoderblock_1"


@pytest.mark.parametrize(
    "change, message",
    [
        (remove("Transformer/encoder_norm/bias"), "missing encoder/norm/bias 12"),
        (remove(f"{BLOCK}/LayerNorm_0/bias"), f"attention_norm/bias 2x12 .*lacks {BLOCK}/Layer"),
        (put("extra/kernel", 3, 2), "unused extra/kernel 3x2"),
        (put("head/bias", 7), "mismatched head/kernel 12x7 from head/kernel 12x5"),
        (put(f"{BLOCK}/LayerNorm_0/scale", 5), f"{BLOCK}/LayerNorm_0/scale 5 is unlike"),
        (put("embedding/bias", 3), "mismatched patch_embedding/bias 12 from embedding/bias 3"),
    ],
)
def test_files_that_lack_or_exceed_are_told(google, change, message, tmp_path):
    with pytest.raises(InputError, match=message) as told:
        weights.load(changed(google[0], tmp_path / "a.npz", change))
    assert len(str(told.value).splitlines()) == 1


# what is no source


def no_known_layout(folder):
    files.write_npz(folder / "a.npz", {"a/b": np.zeros(2), "c": np.ones(1)})
    return folder / "a.npz"


def bare_timm(folder):
    files.write_npz(folder / "a.npz", {"patch_embed.proj.weight": np.zeros((12, 3, 4, 4))})
    return folder / "a.npz"


def folder_of(name, text):
    def make(folder):
        (folder / name).write_text(text)
        return folder

    return make


SOURCES = {
    "unknown layout": (no_known_layout, "holds arrays named a/b, c.*no known layout; allowed"),
    "bare timm file": (bare_timm, "number of heads; allowed: with architecture=NAME"),
    "empty folder": (lambda folder: folder, "holds none of these; allowed: model.safetensors"),
    "broken JSON": (folder_of("config.json", "{"), "config.json is no JSON"),
    "JSON of a list": (folder_of("config.json", "[]"), "holds a list; allowed: an object"),
    "config alone": (folder_of("config.json", "{}"), "holds none of these"),
    "unknown model type": (
        folder_of("config.json", json.dumps({"model_type": "swin"})),
        "model_type is 'swin'.*allowed: vit, deit",
    ),
    "another format": (lambda folder: folder / "a.txt", "no.*a.txt"),
    "missing path": (lambda folder: folder / "none.npz", "There is no .*none.npz.* here; allowed"),
    "run without checkpoint": (
        folder_of("config.json", json.dumps({"task": {}, "data": {}})),
        "there is no checkpoint in",
    ),
}


@pytest.mark.parametrize("name", SOURCES)
def test_what_is_no_source_is_told_in_one_sentence(name, tmp_path):
    make, message = SOURCES[name]
    path = make(tmp_path)
    with pytest.raises(InputError, match=message) as told:
        weights.load(path)
    assert len(str(told.value).splitlines()) == 1
    assert re.search(r"\.$", str(told.value))


def test_head_whose_file_states_no_names_is_kept_for_as_many_classes(google):
    """ImageNet's checkpoints have no names, and its folders have theirs: the head must stay."""
    path, _, variables = google
    loaded = weights.load(path, class_names=CLASSES)
    assert loaded.class_names == CLASSES and not loaded.report.of("initialised")
    assert_trees_equal(loaded.variables["params"]["head"], variables["params"]["head"])
    assert weights.load(path, class_names=CLASSES[1:]).report.of("initialised")
