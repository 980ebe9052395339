"""Who holds what of a training: one process, data parallel, or state cut over the ranks.

`choice` makes what `train.strategy` names. All of them save and load the same checkpoints.
"""
