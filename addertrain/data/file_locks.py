"""Locks on open files, which may be held by another process or unsupported by the file system."""

import errno
import fcntl
from typing import Literal

_HELD = {errno.EAGAIN, errno.EACCES}
# Lustre mounted without -o flock, some FUSE and NFS mounts.
_MISSING = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}


def lock(descriptor: int, *, wait: bool = False) -> Literal["locked", "held", "missing"]:
    """Locks a file until its descriptor is closed; returns "held" if another process has it, "missing" if the
    file system has no locks.

    Raises:
        OSError: anything else that went wrong.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return "held"
        if error.errno in _MISSING:
            return "missing"
        raise
    return "locked"
