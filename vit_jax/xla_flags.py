"""XLA's flags for batches on a CPU: the one place where this project sets any.

They change how fast a CPU computes, and the order in which it sums; never what it computes. They
are reported to help batches of 32 images in float32 on CPUs with AVX-512; here they were not
measured one by one (experiments/throughput has both):

- vectors of 512 bits instead of 256;
- matrix products and sums by Eigen instead of YNNPACK, which is reported to be slower for a single
  image, so that `predict` is left alone.

XLA reads the variable XLA_FLAGS once, when JAX starts, and ends the process at a flag that it does
not know; so flags are only given to versions of jaxlib that these were tried with.
"""

import logging
import os
from collections.abc import MutableMapping
from importlib import metadata

logger = logging.getLogger(__name__)

CPU_FLAGS = {
    "--xla_cpu_prefer_vector_width": "512",
    "--xla_cpu_experimental_ynn_fusion_type": "-individual_dot,-dot,-reduce",
}
TRIED = ("0.10.2",)  # versions of jaxlib


def prefer_batches(
    environment: MutableMapping[str, str] = os.environ, *, jaxlib: str | None = None
) -> None:
    """Adds `CPU_FLAGS` to XLA_FLAGS, for commands to call before JAX starts.

    A flag that is there already stays as it is: XLA_FLAGS of the user's go first.

    Args:
      environment: of this process, and of those that it starts.
      jaxlib: its version; by default that installed.
    """
    jaxlib = jaxlib or metadata.version("jaxlib")
    if jaxlib not in TRIED:
        logger.info("no flags for XLA on a CPU: they were not tried with jaxlib %s", jaxlib)
        return
    given = environment.get("XLA_FLAGS", "").split()
    names = {flag.partition("=")[0] for flag in given}
    added = [f"{name}={value}" for name, value in CPU_FLAGS.items() if name not in names]
    environment["XLA_FLAGS"] = " ".join([*given, *added])
    logger.info("XLA_FLAGS for batches on a CPU: %s", " ".join(added) or "all given already")
