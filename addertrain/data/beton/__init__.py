"""FFCV's file format, a .beton: written by several processes, verified, and read without FFCV's own Loader.

`format` says what lies where; `write`, `encode`, `pages`, `journal` and `repage` make a file that an
interruption does not spoil; `side_file` records what it holds; `reader` and `decode_kernel` read it.
"""
