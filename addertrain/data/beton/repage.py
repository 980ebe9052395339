"""Resumes writing a .beton with another page size: existing images are copied, not encoded again."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from addertrain.data.beton.format import image_checksum
from addertrain.data.beton.journal import Journal, earlier_about
from addertrain.data.beton.pages import PageFile


def repage(part: Path, journal_path: Path, about: dict[str, Any], *, capacity: int) -> None:
    """Copies what an earlier start has written if only its page size differs. Pages are compared with their
    checksums, so a crash in between loses at most the work done so far.

    Raises:
        DataError: another process writes the file.
        OSError: there is no space for both.
    """
    earlier = earlier_about(journal_path)
    page_size = about["settings"]["page_size"]
    if earlier is None or not part.exists() or earlier["settings"]["page_size"] == page_size:
        return
    if {**earlier, "settings": {**earlier["settings"], "page_size": page_size}} != about:
        return  # the journal's own error tells what is different
    new_part, new_journal = (path.with_name(f"{path.name}.new") for path in (part, journal_path))
    for path in (new_part, new_journal):
        path.unlink(missing_ok=True)
    with (
        closing(PageFile(part, page_size=earlier["settings"]["page_size"], capacity=capacity)) as old,
        closing(Journal.open(journal_path, earlier, old.has_page)) as old_journal,
        closing(PageFile(new_part, page_size=page_size, capacity=capacity)) as new,
        closing(Journal.open(new_journal, about, new.has_page)) as journal,
    ):
        for row in (row for page in old_journal.pages for row in page.rows):
            stored = old.stored(row)
            is_whole = image_checksum(np.frombuffer(stored.content, dtype=np.uint8)) == stored.checksum
            if is_whole and len(stored.content) <= page_size:
                new.add(row.sample, row.label, stored, journal.add)
        new.flush(journal.add)
    new_part.replace(part)
    new_journal.replace(journal_path)
