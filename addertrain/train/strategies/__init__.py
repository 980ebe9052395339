"""How the training state is distributed: one process, data parallel, or sharded over the ranks.

`choice` builds the strategy that `train.strategy` names. All of them save and load the same checkpoints.
"""
