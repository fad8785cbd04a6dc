"""Fine-tuning as in the ViT paper (arXiv:2010.11929, Table 4), or on a folder of one's own.

    python -m vit_jax train --config=configs/finetune.py:B16,cifar100 --workdir=runs/b16-cifar100
    python -m vit_jax train --config=configs/finetune.py:B16,folder:DIR --workdir=runs/mine

ARG is MODEL,DATASET[,dev]. `dev` leaves out the paper's share of the training images and scores
that, to choose the learning rate on; without it all train, and the test images are scored once.
VTAB's tasks are `vtab:NAME` of TFDS. The weights are those of ImageNet-21k, 384 pixels.
Published for B16,cifar100: 91.67 % (Table 5); not run here, for want of a GPU and the weights.
"""

from ml_collections import ConfigDict

BUCKET = "gs://vit_models/imagenet21k"
SOURCES = {
    "B16": f"{BUCKET}/ViT-B_16.npz",
    "B32": f"{BUCKET}/ViT-B_32.npz",
    "L16": f"{BUCKET}/ViT-L_16.npz",
    "L32": f"{BUCKET}/ViT-L_32.npz",
    "H14": f"{BUCKET}/ViT-H_14.npz",
    "R50B16": f"{BUCKET}/R50+ViT-B_16.npz",
}
# name: TFDS's, training part under `dev`, held-out part, split to score, (steps, warm-up, rate).
# The rates of the grid: 0.003 0.01 0.03 0.06 for ImageNet, 0.001 0.003 0.01 0.03 for others.
DATASETS = {
    "imagenet": ("imagenet2012", "[:99%]", "[99%:]", "validation", (20_000, 500, 0.03)),
    "cifar10": ("cifar10", "[:98%]", "[98%:]", "test", (10_000, 500, 0.01)),
    "cifar100": ("cifar100", "[:98%]", "[98%:]", "test", (10_000, 500, 0.01)),
    "pets": ("oxford_iiit_pet", "[:90%]", "[90%:]", "test", (500, 100, 0.01)),
    "flowers": ("oxford_flowers102", "[:90%]", "[90%:]", "test", (500, 100, 0.01)),
}
SETTINGS = ("B16,cifar100", "R50B16,imagenet,dev", "L16,vtab:dtd,dev")  # some of them


def find(dataset: str) -> tuple:
    kind, _, name = dataset.partition(":")
    if kind == "folder":
        return dataset, "[:90%]", "[90%:]", "test", (500, 100, 0.01)
    if kind == "vtab":  # 1,000 images, 200 of which are for choosing
        return f"tfds:{name}", "[:800]", "[800:1000]", "test", (2_500, 200, 0.01)
    if dataset not in DATASETS:
        allowed = ", ".join([*DATASETS, "vtab:NAME", "folder:DIR"])
        raise ValueError(f"there is no data set {dataset!r}; allowed: {allowed}")
    name, *rest = DATASETS[dataset]
    return f"tfds:{name}", *rest


def get_config(arg: str = "") -> ConfigDict:
    model, dataset, *dev = (arg or "B16,cifar100").split(",")
    if model not in SOURCES or dev not in ([], ["dev"]):
        allowed = f"MODEL,DATASET[,dev] with MODEL one of {', '.join(SOURCES)}"
        raise ValueError(f"there is no setting {arg!r}; allowed: {allowed}")
    source, part, rest, test, (num_steps, warmup_steps, learning_rate) = find(dataset)
    whole = "[:1000]" if dataset.startswith("vtab:") else ""
    config = ConfigDict()
    config.init = dict(source=SOURCES[model], positions="zoom", ignore=["pre_logits/.*"])
    config.task = dict(name="classification", model=dict(representation_dim=None))
    config.data = dict(
        source=source,
        train=f"train{part if dev else whole}",
        image_size=384,
        batch_size=512,
        augment=dict(crop="inception", min_area=0.05, flip_probability=0.5),
    )
    config.optimizer = dict(
        name="sgd",
        momentum=0.9,
        learning_rate=learning_rate,
        schedule="cosine",
        warmup_steps=warmup_steps,
        clip_norm=1.0,
    )
    config.train = dict(num_steps=num_steps, checkpoint_every=500)
    config.evals = dict(dev=dict(split=f"train{rest}")) if dev else dict(test=dict(split=test))
    config.mesh = dict(data=-1)
    return config.lock()
