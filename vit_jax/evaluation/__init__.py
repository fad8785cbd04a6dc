"""Measuring a model on data. `PROTOCOLS` maps an evaluation's `protocol` to its class.

protocol.py says what a protocol is; passes.py goes through the data, once for all of them;
runner.py evaluates during training and after it. All other files are one protocol, or one measure,
each.
"""

from vit_jax.evaluation.calibration import Calibration
from vit_jax.evaluation.classification import Classification
from vit_jax.evaluation.few_shot import FewShot
from vit_jax.evaluation.knn import NearestNeighbours
from vit_jax.evaluation.linear_probe import LinearProbe
from vit_jax.evaluation.ood import OutOfDistribution
from vit_jax.evaluation.protocol import Protocol
from vit_jax.evaluation.reconstruction import Reconstruction
from vit_jax.evaluation.retrieval import Retrieval
from vit_jax.evaluation.robustness import Robustness
from vit_jax.evaluation.transfer import Transfer

PROTOCOLS: dict[str, type[Protocol]] = {
    "classification": Classification,
    "calibration": Calibration,
    "few_shot": FewShot,
    "knn": NearestNeighbours,
    "linear_probe": LinearProbe,
    "ood": OutOfDistribution,
    "reconstruction": Reconstruction,
    "retrieval": Retrieval,
    "robustness": Robustness,
    "transfer": Transfer,
}
