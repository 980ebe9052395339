"""Batches of an epoch for one rank: `order` and `ordered` decide which, `in_memory` and `pictures` deliver.

`choice` builds the loader of a recipe, and `device` is its last stage.
"""
