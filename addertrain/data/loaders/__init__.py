"""Batches of an epoch for one rank: `order` and `ordered` decide which, `in_memory` and `pictures` deliver.

`choice` builds the loader that a recipe asks for, `device` is the last stage of it.
"""
