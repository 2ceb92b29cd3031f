"""The files of the datastores: images, and the folders of the VMs."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path


class Store:
    """Makes, copies, links and removes files; all belong to `owner` where this process may give them away."""

    def __init__(self, owner: str | None) -> None:
        entry = pwd.getpwnam(owner) if owner else None
        self._ids = (entry.pw_uid, entry.pw_gid) if entry and os.geteuid() == 0 else None

    def folder(self, path: Path) -> None:
        """A folder that others can pass through, as a datastore's is."""
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o755)
        self._give(path)

    def create(self, path: Path, size_bytes: int) -> None:
        """A sparse file of that size, mode 0644."""
        with path.open("xb") as file:
            file.truncate(size_bytes)
        path.chmod(0o644)
        self._give(path)

    def text(self, path: Path, text: str) -> None:
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
        self._give(path)

    def copy(self, source: Path, target: Path) -> None:
        """A full copy that keeps holes.

        Raises:
            OSError: the source can't be read or the target not written.
        """
        command = ["cp", "--sparse=always", "--reflink=auto", "--", str(source), str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(done.stderr.strip())
        target.chmod(0o644)
        self._give(target)

    def link(self, source: Path, target: Path) -> None:
        target.symlink_to(source)
        self._give(target)

    def remove(self, path: Path) -> None:
        """Removes a file or a folder; one that isn't there is fine."""
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def used_mib(self, folder: Path) -> int:
        """What the files below really take, links not followed."""
        blocks = sum(_blocks(path) for path in folder.rglob("*"))
        return (blocks * 512 + (1 << 20) - 1) >> 20

    def files(self, folder: Path) -> dict[str, str | int]:
        """Path below the folder to its size in bytes, or to where it links."""
        found: dict[str, str | int] = {}
        for path in sorted(folder.rglob("*")):
            if path.is_symlink():
                found[str(path.relative_to(folder))] = f"-> {path.readlink()}"
            elif path.is_file():
                found[str(path.relative_to(folder))] = path.stat().st_size
        return found

    def _give(self, path: Path) -> None:
        if self._ids:
            os.chown(path, *self._ids, follow_symlinks=False)


def _blocks(path: Path) -> int:
    try:
        return path.lstat().st_blocks
    except FileNotFoundError:
        return 0  # removed while we looked
