"""What the server of `tests.ranks` does once before it forks ranks, a second of each otherwise."""

import torch._dynamo  # every optimizer does, at its first use
import torch.nn.parallel  # noqa: F401

import addertrain.data.decoding.picture
import addertrain.train.callbacks.tensorboard
import addertrain.train.run  # noqa: F401
from addertrain.data import load_data
from tests.train.small_runs import short_recipe

load_data(short_recipe().data)
