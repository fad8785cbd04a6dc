"""MAE, DINO and mask tokens as their authors' and Hugging Face's code have them, in true files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import ARCHITECTURE, HEAD, dino_network, load, published
from pretrained import preprocessing, vit
from references import assert_relatively_close, load_timm, load_torch, load_transformers, randomise
from toys import assert_trees_equal

from vit_jax import weights
from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.learner import Info
from vit_jax.losses.masked_reconstruction import Scale, masked_error
from vit_jax.models.mae import Masking
from vit_jax.tasks import mae
from vit_jax.weights import timm
from vit_jax.weights.mapping import to_theirs

pytestmark = pytest.mark.reference

SMALL = dict(hidden_size=24, num_hidden_layers=3, num_attention_heads=2, intermediate_size=40)
DECODER = dict(
    decoder_hidden_size=16,
    decoder_num_hidden_layers=2,
    decoder_num_attention_heads=4,
    decoder_intermediate_size=20,
)
PIXELS = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)


def to_torch(images):
    return load_torch().from_numpy(images.transpose(0, 3, 1, 2).copy())


@pytest.mark.parametrize("normalise_targets", [False, True])
def test_a_published_mae_has_its_loss_and_its_pixels(tmp_path, normalise_targets):
    """From the file alone: its config tells the decoder's size, and our task takes it."""
    transformers, torch = load_transformers(), load_torch()
    config = transformers.ViTMAEConfig(
        **SMALL, **DECODER, image_size=16, patch_size=4, norm_pix_loss=normalise_targets
    )
    theirs = randomise(transformers.ViTMAEForPreTraining(config))
    theirs.save_pretrained(tmp_path)
    found = weights.read(tmp_path)
    settings = {name: value for name, value in found.settings.items() if name != "num_classes"}
    info = Info(
        class_names=(),
        preprocessing=Preprocessing(image_size=(16, 16), channels=3),
        num_examples=1,
        batch={"image": ((16, 16, 3), "uint8")},
    )
    task = mae.build(
        model=settings,
        info=info,
        decoder=found.task["decoder"],
        normalise_targets=normalise_targets,
    )
    noise = np.random.default_rng(1).random((2, 16)).astype(np.float32)
    masking = Masking.of(jnp.asarray(noise), task.num_visible)
    image = jnp.asarray(PIXELS)
    network = weights.Network(
        ("backbone",), lambda: task.network.init(jax.random.key(0), image, masking)
    )
    loaded, report = load(found, task.model, network, size=(16, 16))
    assert {leaf.status for leaf in report.leaves} == {"loaded"}
    with torch.no_grad():
        expected = theirs(to_torch(PIXELS), noise=torch.from_numpy(noise))
    prediction = jax.jit(task.network.apply)(loaded, image, masking)
    assert_relatively_close(prediction, expected.logits)
    patches = task.patches(image)
    target = patches
    if normalise_targets:
        target = Scale.of(patches).normalise(patches)
    loss = masked_error(prediction, target, masking.masked).mean()
    np.testing.assert_allclose(loss, expected.loss, rtol=1e-5)


DINO = {name: size for name, size in SMALL.items() if name != "intermediate_size"}
REGISTERS = dict(num_register_tokens=4)


@pytest.mark.parametrize(
    "kind, sizes",
    [
        ("Dinov2", DINO),
        ("Dinov2WithRegisters", DINO | REGISTERS),
        ("DINOv3ViT", SMALL | REGISTERS),
    ],
)
def test_masked_patches_are_replaced_as_there(tmp_path, kind, sizes):
    transformers, torch = load_transformers(), load_torch()
    config = getattr(transformers, f"{kind}Config")(**sizes, image_size=16, patch_size=4)
    theirs = randomise(getattr(transformers, f"{kind}Model")(config))
    theirs.save_pretrained(tmp_path / "theirs")
    loaded = weights.load(tmp_path / "theirs", mask_token=True)
    assert {leaf.status for leaf in loaded.report.leaves} == {"loaded"}
    masked = np.random.default_rng(1).random((2, 16)) < 0.4
    with torch.no_grad():
        expected = theirs(to_torch(PIXELS), bool_masked_pos=torch.from_numpy(masked))
    found = jax.jit(loaded.model.apply)(loaded.variables, jnp.asarray(PIXELS), masked=masked)
    assert_relatively_close(found.tokens, expected.last_hidden_state)
    # And back, with the token.
    weights.save(
        tmp_path / "ours",
        loaded.model,
        loaded.variables,
        layout="huggingface",
        preprocessing=loaded.preprocessing,
    )
    again = weights.load(tmp_path / "ours", mask_token=True)
    assert_trees_equal(again.variables["params"], loaded.variables["params"])


def full_checkpoint(path, student, teacher, centre):
    """As main_dino.py saves it: the student within PyTorch's data parallelism."""
    torch = load_torch()

    def named(arrays, prefix):
        heads = ("head.",)
        return {
            prefix + (name if name.startswith(heads) else f"backbone.{name}"): torch.from_numpy(
                np.array(array)
            )
            for name, array in arrays.items()
        }

    stored = dict(
        student=named(student, "module."),
        teacher=named(teacher, ""),
        dino_loss=dict(center=torch.from_numpy(centre)),
        optimizer=dict(state={}, param_groups=[]),
        epoch=3,
    )
    torch.save(stored, path)


def test_a_full_checkpoint_of_dino_is_all_that_learns(tmp_path):
    model, network, student = dino_network(normalise_last=False)
    teacher = jax.tree.map(lambda leaf: leaf + 1, student)
    centre = np.arange(HEAD["num_prototypes"], dtype=np.float32)[None]
    both = [published(variables["params"]) for variables in (student, teacher)]
    full_checkpoint(tmp_path / "full.pth", *both, centre)
    found = weights.read(tmp_path / "full.pth", architecture=ARCHITECTURE)
    for source, expected in ((found, teacher), (found._replace(arrays=found.student), student)):
        loaded, report = load(source, model, network)
        assert_trees_equal(loaded["params"], expected["params"])
        assert {leaf.status for leaf in report.leaves} == {"loaded"}
    np.testing.assert_array_equal(found.task_state["centre"], centre[0])
    # One of them alone, where it is named.
    alone = weights.read(tmp_path / "full.pth", architecture=ARCHITECTURE, part="student")
    assert alone.student is None
    assert_trees_equal(load(alone, model, network)[0]["params"], student["params"])


def test_a_bare_backbone_of_dino_has_no_student(tmp_path):
    torch = load_torch()
    variables = vit(num_classes=0, activation="gelu")[1]
    arrays = to_theirs(timm.TIMM, variables["params"])
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    torch.save(tensors, tmp_path / "a.pth")
    found = weights.read(tmp_path / "a.pth", architecture=ARCHITECTURE)
    assert found.student is None and not found.task_state and not found.task


def test_timm_reads_a_backbone_that_had_a_mask_token(tmp_path):
    timm_ = load_timm()
    model, variables = vit(
        (16, 16), patch_size=16, width=192, num_heads=3, mlp_dim=768, depth=12,
        num_classes=0, activation="gelu", norm_epsilon=1e-6, mask_token=True,
    )  # fmt: skip
    weights.save(
        tmp_path / "a",
        model,
        variables,
        layout="timm",
        preprocessing=preprocessing(image_size=(16, 16)),
        architecture="vit_tiny_patch16_224",
    )
    theirs = timm_.create_model(
        "vit_tiny_patch16_224",
        checkpoint_path=tmp_path / "a" / "model.safetensors",
        num_classes=0,
        img_size=16,
    )
    np.testing.assert_array_equal(
        theirs.state_dict()["cls_token"], variables["params"]["class_token"]
    )
