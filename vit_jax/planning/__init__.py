"""What a run will be and cost, from its config, before any of it is paid for.

data.py      the data, which need not be at hand
model.py     its tokens and parameters
work.py      one microbatch of one device, as a traced program: its memory and its kernels
search.py    which microbatch and rematerialisation fit a device, and which is the cheapest
speed.py     the time of a step by roofline
compiled.py  the real step, compiled for virtual devices: exact arguments, real collectives
notes.py     what a reader has to know of it
card.py      all of it as plain data, for `commands.plan`, its tables and its picture
"""

from vit_jax.planning.card import plan
from vit_jax.planning.data import Told, describe_data

__all__ = ["Told", "describe_data", "plan"]
