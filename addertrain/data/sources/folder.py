"""Pictures in files: a folder for each class, as torchvision's ImageFolder has it."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from addertrain.data.decoding.modes import AS_IT_IS, Decoded, Rendering
from addertrain.errors import DataError

_JPEG = {".jpg", ".jpeg", ".jpe", ".jfif"}
_LOSSLESS = {".png", ".ppm", ".pgm", ".pbm", ".pnm", ".bmp", ".tif", ".tiff", ".gif"}
SUFFIXES = frozenset(_JPEG | _LOSSLESS | {".webp", ".avif", ".jp2", ".j2k"})
# How files without a suffix begin that are pictures.
_HEADS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ")
_PARTS = ({"train", "training"}, {"val", "valid", "validation", "test", "testing"})
_HIDDEN, _SEEN, _SPECIAL, _NO_SUFFIX = "hidden", "folders seen before", "no regular files", "without a suffix"


@dataclass(frozen=True, eq=False)
class PictureFiles:
    """Files below a folder, each with the number of its class."""

    root: Path
    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    description: str
    rendering: Rendering = AS_IT_IS
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, sample: int) -> str:
        """The file's path below the folder."""
        return self.paths[sample]

    def picture(self, sample: int) -> Decoded:
        """The picture in RGB; raises a PictureError that names the file."""
        # Here: torchvision takes seconds to import, and a list of files does not need it.
        from addertrain.data.decoding.picture import read_picture

        return read_picture(self.root / self.paths[sample], self.rendering)

    def size(self, sample: int) -> tuple[int, int] | None:
        """The picture's sides from its head; None where it cannot be read, which decoding will tell."""
        from addertrain.data.decoding.picture import picture_size

        return picture_size(self.root / self.paths[sample])

    def encoded(self, sample: int) -> bytes | None:
        """The bytes of the file."""
        return (self.root / self.paths[sample]).read_bytes()

    def some(self, samples: Sequence[int]) -> "PictureFiles":
        """These files alone."""
        chosen = tuple(self.paths[sample] for sample in samples)
        return replace(self, paths=chosen, labels=self.labels[list(samples)], remarks=())


def folder_of_classes(
    root: Path, *, allow_empty: bool = False, rendering: Rendering = AS_IT_IS
) -> PictureFiles:
    """Every picture below ROOT/CLASS/, numbered as torchvision's ImageFolder does.

    Each folder is read once, whatever links lead to it; what begins with a dot is left out. `remarks` count
    what was passed over.

    Args:
        allow_empty: whether a class may have no pictures, as in a small validation part.

    Raises:
        DataError: no folder, no classes in it, a class without pictures, or parts (train, val) for classes.
    """
    if not root.is_dir():
        raise DataError(f"{root}: expected a folder with a folder of pictures for each class, got none")
    walk = _Walk(root)
    classes = walk.classes()
    if not classes:
        raise DataError(f"{root}: expected a folder of pictures for each class in it, got none")
    walk.refuse_other_levels(classes)
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = walk.pictures(name)
        if not found and not allow_empty:
            raise DataError(
                f"{root / name}: expected pictures ({', '.join(sorted(SUFFIXES))}), got none"
                f"{walk.passed_over_in(name)}; remove the folder, or give --allow-empty where classes may "
                "have no pictures, as in a validation part"
            )
        paths += found
        labels += [label] * len(found)
    if not paths:
        raise DataError(f"{root}: expected pictures in the folders of its classes, got none")
    return PictureFiles(
        root,
        tuple(paths),
        np.array(labels, dtype=np.int64),
        classes,
        f"folder {root}",
        rendering,
        walk.remarks(classes, np.bincount(labels, minlength=len(classes))),
    )


class _Walk:
    """Goes through the folders of classes and keeps count of what it passes over."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._passed: Counter[str] = Counter()
        self._passed_in: dict[str, Counter[str]] = {}
        self._seen: dict[tuple[int, int], str] = {}
        self._only_folders: list[str] = []

    def classes(self) -> tuple[str, ...]:
        """The names of the class folders; two names of one folder would give its pictures two labels."""
        names = []
        for entry in self._entries(self.root):
            if entry.name.startswith("."):
                self._passed[_HIDDEN] += 1
            elif _holds(entry.is_dir):
                names.append(entry.name)
            else:
                self._passed["files beside the class folders"] += 1
        self._is_new(str(self.root))
        for name in names:
            path = os.path.join(self.root, name)
            if not self._is_new(path):
                raise DataError(
                    f"{path}: expected a folder of its own for each class, got one that "
                    f"{self._seen[self._key(path)]} is too; remove the link"
                )
        return tuple(names)

    def refuse_other_levels(self, classes: tuple[str, ...]) -> None:
        """Raises a DataError where the classes lie deeper: that would be found out hours later."""
        if len(classes) == 1 and self._holds_only_folders(classes[0]):
            raise DataError(
                f"{self.root}: expected a folder of pictures for each class, got {classes[0]} alone, with "
                f"folders in it; give {self.root / classes[0]}"
            )
        parts = [
            sorted(name for name in classes if name.lower() in words and self._holds_only_folders(name))
            for words in _PARTS
        ]
        if all(parts):
            first, other = parts[0][0], parts[1][0]
            raise DataError(
                f"{self.root}: expected a folder of pictures for each class, got the parts of a data set "
                f"({first}, {other}) with folders in them; write each by itself: {self.root / first}, then "
                f"{self.root / other}"
            )

    def pictures(self, name: str) -> list[str]:
        """The paths of a class's pictures below the root, in torchvision's order."""
        passed = self._passed_in[name] = Counter()
        found: list[tuple[str, list[str]]] = []
        waiting = [os.path.join(self.root, name)]
        while waiting:
            folder = waiting.pop()
            files = []
            for entry in self._entries(folder):
                if entry.name.startswith("."):
                    passed[_HIDDEN] += 1
                elif _holds(entry.is_dir):
                    if self._is_new(entry.path):
                        waiting.append(entry.path)
                    else:
                        passed[_SEEN] += 1
                elif self._is_picture(entry, passed):
                    files.append(entry.name)
            found.append((folder, files))
        if not found[0][1] and any(files for _, files in found):
            self._only_folders.append(name)
        self._passed += passed
        return [
            os.path.relpath(os.path.join(folder, file), self.root)
            for folder, files in sorted(found)
            for file in files
        ]

    def passed_over_in(self, name: str) -> str:
        """What was passed over in one class, in brackets."""
        return f" ({_counted(self._passed_in[name])} passed over)" if self._passed_in[name] else ""

    def remarks(self, classes: tuple[str, ...], counts: NDArray[np.int64]) -> tuple[str, ...]:
        """What was passed over and what looks unmeant, a line each."""
        lines = [f"passed over: {_counted(self._passed)}"] if self._passed else []
        empty = [name for name, count in zip(classes, counts, strict=True) if not count]
        if empty:
            lines.append(f"classes without pictures: {len(empty)} ({', '.join(empty[:3])})")
        if len(self._only_folders) == len(classes) - len(empty):
            lines.append(
                f"every class holds its pictures in folders below it, as {self._only_folders[0]}/ does: if "
                f"those are the classes, give {self.root / self._only_folders[0]}"
            )
        return tuple(lines)

    def _holds_only_folders(self, name: str) -> bool:
        entries = [entry for entry in self._entries(self.root / name) if not entry.name.startswith(".")]
        return any(_holds(entry.is_dir) for entry in entries) and not any(
            _suffix(entry.name) in SUFFIXES for entry in entries if not _holds(entry.is_dir)
        )

    def _is_picture(self, entry: "os.DirEntry[str]", passed: Counter[str]) -> bool:
        """By its suffix, or how it begins where it has none; a link to nothing is one, named when read."""
        suffix = _suffix(entry.name)
        is_file = _holds(entry.is_file)
        is_link_to_nothing = not is_file and entry.is_symlink() and not os.path.exists(entry.path)
        if suffix in SUFFIXES and (is_file or is_link_to_nothing):
            return True
        if is_file and not suffix and _begins_like_a_picture(entry.path):
            return True
        passed[(suffix or _NO_SUFFIX) if is_file else _SPECIAL] += 1
        return False

    def _is_new(self, folder: str) -> bool:
        """Whether the folder, by device and inode, was not met before under any name."""
        return self._seen.setdefault(self._key(folder), folder) == folder

    def _key(self, folder: str) -> tuple[int, int]:
        try:
            status = os.stat(folder)
        except OSError as error:
            raise _unreadable(folder, error) from None
        return status.st_dev, status.st_ino

    def _entries(self, folder: str | Path) -> list["os.DirEntry[str]"]:
        try:
            with os.scandir(folder) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise _unreadable(folder, error) from None


def _unreadable(folder: str | Path, error: OSError) -> DataError:
    return DataError(
        f"{folder}: expected a folder that can be read, got: {error.strerror}; mend or remove it"
    )


def _holds(question: Callable[[], bool]) -> bool:
    """The answer; no for a link that leads in a circle, of which the system complains."""
    try:
        return question()
    except OSError:
        return False


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _begins_like_a_picture(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError:
        return False  # and counted as a file without a suffix
    is_webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    return head.startswith(_HEADS) or is_webp or head[4:12] in (b"ftypavif", b"ftypavis")


def _counted(passed: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(passed.items()))
