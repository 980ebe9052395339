"""FFCV's file format, a .beton: written by several processes, verified, and read without FFCV's own Loader.

`format` describes the file; `write`, `encode`, `pages`, `journal` and `repage` write it, and resume after an
interruption; `side_file` records what it holds; `reader` and `decode_kernel` read it.
"""
