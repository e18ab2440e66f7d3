"""One step of the operating system: a file gets another name, and none is ever replaced."""

from __future__ import annotations

import ctypes
import errno
import functools
import os
from collections.abc import Callable


@functools.cache
def _renameat2() -> Callable[..., int] | None:
    try:
        function: Callable[..., int] = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    return function


def rename_new(source: bytes, target: bytes) -> None:
    """Rename a file in one step; raises `FileExistsError` where the new name is taken, which `os.rename` would replace.

    Where the system or the disk knows no such step (`RENAME_NOREPLACE` of Linux's renameat2), it looks first.
    """
    at_cwd, no_replace = -100, 1
    function = _renameat2()
    if function is not None:
        if function(at_cwd, source, at_cwd, target, no_replace) == 0:
            return
        code = ctypes.get_errno()
        if code not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(code, os.strerror(code), source, None, target)
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), source, None, target)
    os.rename(source, target)
