"""Image files with one folder per class, as in torchvision's ImageFolder."""

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
# The first bytes of image files without a suffix.
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
        """The image in RGB; raises a PictureError that names the file."""
        # Here: torchvision takes seconds to import, and a list of files does not need it.
        from addertrain.data.decoding.picture import read_picture

        return read_picture(self.root / self.paths[sample], self.rendering)

    def size(self, sample: int) -> tuple[int, int] | None:
        """The image's width and height from its header; None if it cannot be read, which decoding will
        report.
        """
        from addertrain.data.decoding.picture import picture_size

        return picture_size(self.root / self.paths[sample])

    def encoded(self, sample: int) -> bytes | None:
        """The bytes of the file."""
        return (self.root / self.paths[sample]).read_bytes()

    def some(self, samples: Sequence[int]) -> "PictureFiles":
        """A source of only these files."""
        chosen = tuple(self.paths[sample] for sample in samples)
        return replace(self, paths=chosen, labels=self.labels[list(samples)], remarks=())


def folder_of_classes(
    root: Path, *, allow_empty: bool = False, rendering: Rendering = AS_IT_IS
) -> PictureFiles:
    """Every image below ROOT/CLASS/, numbered as by torchvision's ImageFolder. Each folder is read once, even
    if links lead to it; names that begin with a dot are skipped. `remarks` count what was skipped.

    Args:
        allow_empty: whether a class may have no images, as in a small validation set.

    Raises:
        DataError: there is no folder, there are no classes in it, a class has no images, or splits (train,
            val) are in the place of classes.
    """
    if not root.is_dir():
        raise DataError(
            f"{root}: expected a folder with one folder of images per class, got no folder; check the path"
        )
    walk = _Walk(root)
    classes = walk.classes()
    if not classes:
        raise DataError(
            f"{root}: expected one folder of images per class in it, got none; put the images of each class "
            "into a folder of its own"
        )
    walk.refuse_other_levels(classes)
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = walk.pictures(name)
        if not found and not allow_empty:
            raise DataError(
                f"{root / name}: expected images ({', '.join(sorted(SUFFIXES))}), got "
                f"none{walk.passed_over_in(name)}; remove the folder, or pass --allow-empty if classes may "
                "be empty"
            )
        paths += found
        labels += [label] * len(found)
    if not paths:
        raise DataError(
            f"{root}: expected images in the folders of the classes, got none; put each class's images "
            "directly into its folder"
        )
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
    """Walks through the folders of classes and counts what it skips."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._passed: Counter[str] = Counter()
        self._passed_in: dict[str, Counter[str]] = {}
        self._seen: dict[tuple[int, int], str] = {}
        self._only_folders: list[str] = []

    def classes(self) -> tuple[str, ...]:
        """The names of the class folders; two names for the same folder would give its images two labels."""
        names = []
        for entry in self._entries(self.root):
            if entry.name.startswith("."):
                self._passed[_HIDDEN] += 1
            elif _holds(entry.is_dir):
                names.append(entry.name)
            else:
                self._passed["files next to the class folders"] += 1
        self._is_new(str(self.root))
        for name in names:
            path = os.path.join(self.root, name)
            if not self._is_new(path):
                raise DataError(
                    f"{path}: expected different folders for the classes, got one that is also "
                    f"{self._seen[self._key(path)]}; remove the link"
                )
        return tuple(names)

    def refuse_other_levels(self, classes: tuple[str, ...]) -> None:
        """Raises a DataError if the classes are one level deeper, which would otherwise be noticed hours
        later.
        """
        if len(classes) == 1 and self._holds_only_folders(classes[0]):
            raise DataError(
                f"{self.root}: expected one folder of images per class, got only {classes[0]}, which "
                f"contains folders; name {self.root / classes[0]} instead"
            )
        parts = [
            sorted(name for name in classes if name.lower() in words and self._holds_only_folders(name))
            for words in _PARTS
        ]
        if all(parts):
            first, other = parts[0][0], parts[1][0]
            raise DataError(
                f"{self.root}: expected one folder of images per class, got the splits of a data set "
                f"({first}, {other}); write each split by itself: {self.root / first}, then "
                f"{self.root / other}"
            )

    def pictures(self, name: str) -> list[str]:
        """The paths of a class's images below the root, in torchvision's order."""
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
        """What was skipped in one class, in parentheses."""
        return f" ({_counted(self._passed_in[name])} skipped)" if self._passed_in[name] else ""

    def remarks(self, classes: tuple[str, ...], counts: NDArray[np.int64]) -> tuple[str, ...]:
        """One line each for what was skipped and what looks like a mistake."""
        lines = [f"skipped: {_counted(self._passed)}"] if self._passed else []
        empty = [name for name, count in zip(classes, counts, strict=True) if not count]
        if empty:
            lines.append(f"classes without images: {len(empty)} ({', '.join(empty[:3])})")
        if len(self._only_folders) == len(classes) - len(empty):
            lines.append(
                f"all images of the classes are in subfolders, as in {self._only_folders[0]}/; if the "
                f"subfolders are the classes, name {self.root / self._only_folders[0]} instead"
            )
        return tuple(lines)

    def _holds_only_folders(self, name: str) -> bool:
        entries = [entry for entry in self._entries(self.root / name) if not entry.name.startswith(".")]
        return any(_holds(entry.is_dir) for entry in entries) and not any(
            _suffix(entry.name) in SUFFIXES for entry in entries if not _holds(entry.is_dir)
        )

    def _is_picture(self, entry: "os.DirEntry[str]", passed: Counter[str]) -> bool:
        """Decides by the suffix, or by the first bytes if there is none; a broken link counts and is
        reported when read.
        """
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
        """Whether the folder, by device and inode, has not been seen before under any name."""
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
    """The answer of `question`; False for a circular link, for which the system raises an error."""
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
