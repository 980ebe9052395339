"""The precisions of recipes, as torch's autocast has them; knows no Lightning, so that `plan` stays quick."""

import torch

AUTOCAST = {"fp32": None, "bf16-mixed": torch.bfloat16, "fp16-mixed": torch.float16}
"""The dtype of autocast by `train.precision`."""
