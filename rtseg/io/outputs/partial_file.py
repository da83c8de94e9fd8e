"""Output files with a temporary name (`create_partial`), which are renamed when they are complete and verified."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from rtseg.core.errors import SinkError, reason
from rtseg.core.files import create_partial, partial_name

_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
"""Errors of `os.link` on file systems without hard links, such as exFAT."""


class PartialFile:
    """Output file with a temporary name until it is complete. The input `source` is not overwritten.

    Raises:
        SinkError: `output` is a folder, is the input, exists and must not be replaced, or its folder can't be written.
    """

    def __init__(self, output: str, *, source: str | None = None, overwrite: bool = True) -> None:
        self.final = Path(output)
        self._overwrite = overwrite
        try:
            self._check(source)
            self.path = create_partial(self.final)
        except (OSError, ValueError) as error:
            raise SinkError(f"can't write {output}: {reason(error)}") from error

    def _check(self, source: str | None) -> None:
        final, folder = self.final, self.final.parent
        if final.is_dir():
            raise SinkError(f"can't write {final}: it is a folder; name a file in it")
        if not folder.exists():
            raise SinkError(f"can't write {final}: no such folder: {folder}")
        if not folder.is_dir():
            raise SinkError(f"can't write {final}: {folder} is not a folder")
        if source is not None and Path(source).exists() and final.exists() and final.samefile(source):
            raise SinkError(f"{final} would overwrite the input {source}; give the output another name")
        if final.exists() and not self._overwrite:
            raise SinkError(f"{final} exists; leave out --no-overwrite to replace it, or give the output another name")
        if final.exists() and not final.is_file():
            raise SinkError(f"can't write {final}: it exists and is not a regular file")

    @property
    def warnings(self) -> tuple[str, ...]:
        """Message about an existing file with the default temporary name, if any."""
        default_path = self.final.with_name(partial_name(self.final))
        if self.path == default_path:
            return ()
        return (f"{default_path} existed before and was not changed; if it is the rest of an earlier run, remove it",)

    def publish(self) -> None:
        """Rename the complete file to its final name.

        Raises:
            SinkError: the file can't be renamed, or the final name exists now and must not be replaced.
        """
        try:
            if self._overwrite:
                self.path.replace(self.final)
            else:
                self._rename_to_free_name()
        except OSError as error:
            raise SinkError(f"{self.path} is complete but can't be renamed to {self.final}: {reason(error)}") from error

    def _rename_to_free_name(self) -> None:
        try:
            os.link(self.path, self.final)  # unlike a rename, this fails if the name exists now
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            if os.path.lexists(self.final):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
            self.path.rename(self.final)
            return
        self.path.unlink()

    def discard(self) -> None:
        """Remove the temporary file. Does not raise."""
        with contextlib.suppress(OSError):  # the folder was removed
            self.path.unlink(missing_ok=True)
