"""What the files and the pieces of a checkpoint are called that several processes write; knows no torch."""


def part_name(name: str, process: int) -> str:
    """The file of one process's pieces of the tensors `name`, without its suffix."""
    return f"{name}.part_{process:04d}"


def is_part_of(file: str, name: str) -> bool:
    """Whether a file's name is that of somebody's pieces of the tensors `name`."""
    return file.startswith(f"{name}.part_")


def piece_name(tensor: str, offset: int) -> str:
    """What the elements of `tensor` from number `offset` on are called."""
    return f"{tensor}@{offset}"
