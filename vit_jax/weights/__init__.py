"""Published weights <-> ours: files, downloads, resizing, and one mapping table a family.

source -> remote.fetch -> files.read_arrays -> mapping.to_ours(table) -> parameters and a report
"""

from vit_jax.weights.formats import Source, read
from vit_jax.weights.loading import Network, Pretrained, load, load_into
from vit_jax.weights.pretraining import TASK_SECTIONS
from vit_jax.weights.remote import fetch
from vit_jax.weights.report import Report
from vit_jax.weights.saving import save

__all__ = [
    "TASK_SECTIONS",
    "Network",
    "Pretrained",
    "Report",
    "Source",
    "fetch",
    "load",
    "load_into",
    "read",
    "save",
]
