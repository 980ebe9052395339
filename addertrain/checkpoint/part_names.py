"""The names of files and pieces in a checkpoint that several processes write; does not import torch."""


def part_name(name: str, process: int) -> str:
    """The file of one process's pieces of the tensors `name`, without its suffix."""
    return f"{name}.part_{process:04d}"


def is_part_of(file: str, name: str) -> bool:
    """Whether a file's name is that of a process's pieces of the tensors `name`."""
    return file.startswith(f"{name}.part_")


def piece_name(tensor: str, offset: int) -> str:
    """The name of the piece of `tensor` that starts at element `offset`."""
    return f"{tensor}@{offset}"
