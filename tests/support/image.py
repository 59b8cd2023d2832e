"""A real disk that loses what was not synced: an ext4 image on a loop device, whose power is cut by copying it.

What ext4 has written to its block device stands in the image file; what only stands in the page cache does not.
A copy of the image file is therefore the disk as it is after the power failed at this moment: its journal is
replayed by the next mount, unsynced data and names are gone. Before each cut some dirty pages, chosen by the seed,
are written back with sync_file_range, as the kernel does whenever it likes: so later data may be there without
earlier data, and a head without its records. The live disk goes on with those pages written.

Needs root, mount and a free loop device; `image_disk` skips loudly elsewhere.

Limits: a page is written whole (4096 bytes, not a sector of 512), and the device itself reorders and loses nothing
that it took: a missing flush of the device's own cache is not seen. The simulated disk has both.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from holdfast.audit.storage import PAGE_BYTES, Directory, File, LocalStorage, Page

IMAGE_BYTES = 6 << 20
_WRITE_AND_WAIT = 1 | 2 | 4
_libc = ctypes.CDLL(None, use_errno=True)


class ImageDisk:
    """A mounted image, driven as `SimulatedStorage` is.

    Attributes:
        on_call: Called before every operation with its name and the file's; it may cut the power.
        during_sync: Called once, behind the next fdatasync and before it returns: what it writes is not covered.
        cuts: How often the power was cut.
        dirty: Files that were written since their last sync.
        lands: Which dirty pages, by the file's name and the page's number, are written back before a cut, where a
            test needs certain ones; None leaves it to the seed.
    """

    def __init__(self, folder: Path, image: Path) -> None:
        self.folder = folder
        self.image = image
        self.on_call: Callable[[str, str], None] | None = None
        self.during_sync: Callable[[], None] | None = None
        self.cuts = 0
        self.dirty: set[Path] = set()
        self.lands: Callable[[str, int], bool] | None = None
        self.mount = Path(tempfile.mkdtemp(dir=folder, prefix="mnt"))
        subprocess.run(
            ["mount", "-t", "ext4", "-o", "loop,noatime", str(image), str(self.mount)],
            check=True,
            capture_output=True,
        )

    def called(self, operation: str, name: str) -> None:
        """Let `on_call` see an operation."""
        if self.on_call is not None:
            self.on_call(operation, name)

    def directory(self, path: Path, *, create: bool) -> Directory:
        self.called("directory", path.name)
        return _Directory(self, LocalStorage().directory(self.mount / path.name, create=create))

    def after_power_cut(self, random: Random) -> ImageDisk:
        """The disk that the next boot finds."""
        self._write_back_some(random)
        self.cuts += 1
        copy = Path(tempfile.mkstemp(dir=self.folder, prefix="cut")[1])
        shutil.copyfile(self.image, copy)
        return ImageDisk(self.folder, copy)

    def _write_back_some(self, random: Random) -> None:
        """What the kernel may do at any moment: write some of the dirty pages, in any order."""
        dirty = sorted(path for path in self.dirty if path.exists())
        how = random.choice(["nothing", "one file", "some pages"])
        if self.lands is not None:
            lands = self.lands
        elif how == "one file" and dirty:
            chosen = random.choice(dirty).name

            def lands(name: str, _: int) -> bool:
                return name == chosen
        else:

            def lands(_: str, __: int) -> bool:
                return how == "some pages" and random.random() < 0.5

        for path in dirty:
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
            try:
                for page in range(-(-os.fstat(fd).st_size // PAGE_BYTES)):
                    if lands(path.name, page):
                        _write_back(fd, page)
            finally:
                os.close(fd)

    def content(self, path: Path) -> dict[str, bytearray]:
        """The files of a directory as reads show them."""
        folder = self.mount / path.relative_to("/")
        return {entry.name: bytearray(entry.read_bytes()) for entry in folder.iterdir() if entry.is_file()}

    def fingerprint(self) -> int:
        """Every cut counts as a state of its own; what the kernel wrote meanwhile is not ours to know."""
        return id(self)

    def release(self) -> None:
        """Unmount, and forget the image."""
        subprocess.run(["umount", "-l", str(self.mount)], check=True, capture_output=True)
        self.mount.rmdir()
        self.image.unlink()


def _write_back(fd: int, page: int) -> None:
    offset, size = ctypes.c_int64(page * PAGE_BYTES), ctypes.c_int64(PAGE_BYTES)
    if _libc.sync_file_range(fd, offset, size, ctypes.c_uint(_WRITE_AND_WAIT)):
        raise OSError(ctypes.get_errno(), "sync_file_range")


class _Directory:
    def __init__(self, disk: ImageDisk, inner: Directory) -> None:
        self._disk = disk
        self._inner = inner
        self.path = inner.path
        self.names = inner.names
        self.try_lock = inner.try_lock
        self.close = inner.close

    def create(self, name: str) -> File:
        self._disk.called("create", name)
        return _File(self._disk, self.path / name, self._inner.create(name))

    def open(self, name: str, *, writable: bool = False) -> File:
        self._disk.called("open", name)
        return _File(self._disk, self.path / name, self._inner.open(name, writable=writable))

    def map_page(self, name: str) -> Page:
        return _Page(self._disk, self.path / name, self._inner.map_page(name))

    def rename(self, old: str, new: str) -> None:
        self._disk.called("rename", old)
        self._inner.rename(old, new)

    def unlink(self, name: str) -> None:
        self._disk.called("unlink", name)
        self._inner.unlink(name)

    def subdirectory(self, name: str) -> Directory:
        self._disk.called("subdirectory", name)
        return _Directory(self._disk, self._inner.subdirectory(name))

    def sync(self) -> None:
        self._disk.called("sync directory", "")
        self._inner.sync()


class _File:
    def __init__(self, disk: ImageDisk, path: Path, inner: File) -> None:
        self._disk = disk
        self._path = path
        self._inner = inner
        self.name = inner.name
        self.pread = inner.pread
        self.size = inner.size
        self.mode = inner.mode
        self.close = inner.close

    def pwrite(self, data: bytes, offset: int) -> int:
        self._disk.called("pwrite", self.name)
        self._disk.dirty.add(self._path)
        # Page by page: what is written in one call shares a large folio, and is written back whole.
        done = 0
        while done < len(data):
            step = PAGE_BYTES - (offset + done) % PAGE_BYTES
            done += self._inner.pwrite(data[done : done + step], offset + done)
        return done

    def truncate(self, size: int) -> None:
        self._disk.called("truncate", self.name)
        self._inner.truncate(size)

    def fdatasync(self) -> None:
        self._sync("fdatasync", self._inner.fdatasync)

    def fsync(self) -> None:
        self._sync("fsync", self._inner.fsync)

    def _sync(self, operation: str, sync: Callable[[], None]) -> None:
        self._disk.called(operation, self.name)
        sync()
        self._disk.dirty.discard(self._path)
        during, self._disk.during_sync = self._disk.during_sync, None
        if during is not None:
            during()


class _Page:
    def __init__(self, disk: ImageDisk, path: Path, inner: Page) -> None:
        self._disk = disk
        self._path = path
        self._inner = inner
        self.read = inner.read
        self.close = inner.close

    def write(self, data: bytes, offset: int) -> None:
        self._disk.dirty.add(self._path)
        self._inner.write(data, offset)

    def flush(self) -> None:
        self._disk.called("flush", self._path.name)
        self._inner.flush()
        self._disk.dirty.discard(self._path)


@contextmanager
def image_folder() -> Iterator[Path]:
    """A place in memory for images and mounts; skips loudly where they cannot be had."""
    if os.geteuid() != 0 or not shutil.which("mkfs.ext4") or not shutil.which("mount"):
        pytest.skip("NO ROOT OR NO mkfs.ext4: power loss was not tested on a real ext4 image")
    shared = Path("/dev/shm")  # noqa: S108  an image in memory; a private folder is made in it
    folder = Path(tempfile.mkdtemp(prefix="holdfast-ext4-", dir=shared if shared.is_dir() else None))
    try:
        yield folder
    finally:
        for mounted in folder.glob("mnt*"):
            subprocess.run(["umount", "-l", str(mounted)], check=False, capture_output=True)
        shutil.rmtree(folder)


def new_image(folder: Path) -> ImageDisk:
    """A fresh, empty ext4 file system; skips loudly where a loop device cannot be had."""
    image = Path(tempfile.mkstemp(dir=folder, prefix="img")[1])
    os.truncate(image, IMAGE_BYTES)
    made = ["mkfs.ext4", "-qF", "-m0", "-b", "1024", "-J", "size=1", "-N", "256", str(image)]
    subprocess.run(made, check=True, capture_output=True)
    try:
        return ImageDisk(folder, image)
    except subprocess.CalledProcessError as why:
        pytest.skip(f"NO LOOP DEVICE: power loss was not tested on ext4 ({why.stderr.decode().strip()})")
