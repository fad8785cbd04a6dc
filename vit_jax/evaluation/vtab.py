"""The nineteen tasks of VTAB-1k: where their 1,000 training images and their test images are.

arXiv:1910.04867, and google-research/task_adaptation, whose files define the splits: of each task
the first 800 training images are learned from, the first 200 of its validation split choose what
is to be chosen, and the whole test split is scored. Where TFDS has no validation split, it is the
part of another one that begins where task_adaptation cuts it (after 90 % of Caltech101's 3,060
training images, for instance), told here by position.

Labels must be a feature of the data set. Those of `UNREADABLE` are computed from other features, or
their images are; such a task can be prepared and given as an entry of its name.
"""

import dataclasses

GROUPS = ("natural", "specialized", "structured")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransferTask:
    """A data set to be learned.

    Attributes:
      name: of its metric.
      group: over which a mean is taken; of VTAB one of `GROUPS`.
      source: see `data.sources.open_source`.
      train: split to learn from.
      validation: split to choose the strength on; None is a part of `train`.
      test: split to be scored.
      label_key: see `data.sources.open_source`.
      data_dir: likewise; None is the evaluation's.
    """

    name: str
    group: str
    source: str
    train: str
    test: str
    validation: str | None = None
    label_key: str | None = None
    data_dir: str | None = None


def _task(
    name: str,
    group: str,
    dataset: str,
    *,
    validation: str = "validation[:200]",
    test: str = "test",
    label_key: str | None = None,
) -> TransferTask:
    return TransferTask(
        name=name,
        group=group,
        source=f"tfds:{dataset}",
        train="train[:800]",
        validation=validation,
        test=test,
        label_key=label_key,
    )


_NORB = dict(validation="test[:200]", test="test[50%:]")  # the test split's first half validates
TASKS = (
    _task("caltech101", "natural", "caltech101", validation="train[2754:2954]"),
    _task("cifar100", "natural", "cifar100", validation="train[45000:45200]"),
    _task("dtd", "natural", "dtd"),
    _task("oxford_flowers102", "natural", "oxford_flowers102"),
    _task("oxford_iiit_pet", "natural", "oxford_iiit_pet", validation="train[2944:3144]"),
    _task("sun397", "natural", "sun397/tfds"),
    _task("svhn", "natural", "svhn_cropped", validation="train[65931:66131]"),
    _task("patch_camelyon", "specialized", "patch_camelyon"),
    _task(
        "eurosat",
        "specialized",
        "eurosat/rgb",
        validation="train[16200:16400]",
        test="train[21600:]",
    ),
    _task(
        "resisc45",
        "specialized",
        "resisc45",
        validation="train[18900:19100]",
        test="train[25200:]",
    ),
    _task(
        "diabetic_retinopathy",
        "specialized",
        "diabetic_retinopathy_detection/btgraham-300",
    ),
    _task("dmlab", "structured", "dmlab"),
    _task("smallnorb_azimuth", "structured", "smallnorb", label_key="label_azimuth", **_NORB),
    _task("smallnorb_elevation", "structured", "smallnorb", label_key="label_elevation", **_NORB),
)
READABLE = {task.name: task for task in TASKS}

_DARK = "the images of tfds:dsprites are 0 and 1, and would have to be scaled before they resize"
UNREADABLE = {
    "clevr_count_all": "the label is how many objects tfds:clevr lists, less 3",
    "clevr_closest_object_distance": "the label is a bin of a minimum over tfds:clevr's objects",
    "kitti_closest_vehicle_distance": "the label is a bin of a minimum over tfds:kitti's objects",
    "dsprites_x_position": f"{_DARK}, and 32 positions are 16 classes",
    "dsprites_orientation": f"{_DARK}, and 40 orientations are 16 classes",
}
NAMES = (*READABLE, *UNREADABLE)
