"""The callbacks of training: weight average, evaluation, guard, checkpoints, curves; one file each."""
