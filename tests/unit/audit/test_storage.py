import os
import stat
from pathlib import Path
from random import Random

import pytest

from holdfast.audit.storage import LocalStorage
from holdfast.core.errors import AuditError
from holdfast.testing.storage import SECTOR, FaultyStorage, SimulatedStorage


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_directories_and_files_are_private(tmp_path):
    """A log directory is created 0700 and its files 0600, whatever the umask."""
    before = os.umask(0)
    try:
        directory = LocalStorage().directory(tmp_path / "a" / "log", create=True)
        directory.create("x").close()
        directory.subdirectory("sub").close()
    finally:
        os.umask(before)
    directory.close()
    assert mode(tmp_path / "a" / "log") == mode(tmp_path / "a" / "log" / "sub") == 0o700
    assert mode(tmp_path / "a" / "log" / "x") == 0o600


@pytest.mark.parametrize(("found", "left"), [(0o755, 0o700), (0o770, 0o700), (0o750, 0o750), (0o700, 0o700)])
def test_mode_wider_than_a_reading_group_is_narrowed(tmp_path, found, left):
    """An existing directory keeps at most a group that may read."""
    (tmp_path / "log").mkdir()
    (tmp_path / "log").chmod(found)
    LocalStorage().directory(tmp_path / "log", create=True).close()
    assert mode(tmp_path / "log") == left


@pytest.mark.parametrize(
    ("above", "group", "refused"),
    [
        (0o777, None, True),
        (0o1777, None, False),
        (0o775, None, False),
        (0o775, 54321, True),
        (0o755, 54321, False),
    ],
)
def test_directory_above_that_others_may_write_is_refused(tmp_path, above, group, refused):
    """A world-writable directory above passes with the sticky bit only, a group-writable one for the own group."""
    parent = tmp_path / "parent"
    parent.mkdir()
    if group is not None:
        if os.getuid() != 0:
            pytest.skip("ONLY ROOT MAY GIVE A DIRECTORY TO A FOREIGN GROUP: not tested")
        os.chown(parent, -1, group)
    parent.chmod(above)
    if refused:
        with pytest.raises(AuditError, match="above it is unsafe"):
            LocalStorage().directory(parent / "log", create=True)
        assert not (parent / "log").exists()
    else:
        LocalStorage().directory(parent / "log", create=True).close()


def test_links_are_never_followed(tmp_path):
    """A link in place of the directory or of a file is refused."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(AuditError, match="is a link"):
        LocalStorage().directory(tmp_path / "link", create=True)
    directory = LocalStorage().directory(tmp_path / "real", create=True)
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "real" / "file").symlink_to(tmp_path / "secret")
    for attempt in (
        lambda: directory.open("file"),
        lambda: directory.create("file"),
        lambda: directory.map_page("file"),
    ):
        with pytest.raises(OSError, match=r"symbolic links|File exists"):
            attempt()
    directory.close()


def test_pipe_and_path_are_refused(tmp_path):
    """A pipe is refused without waiting for its other end, and a name with a slash is none."""
    directory = LocalStorage().directory(tmp_path / "log", create=True)
    os.mkfifo(tmp_path / "log" / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        directory.open("pipe")
    with pytest.raises(ValueError, match="not a file name"):
        directory.open("../x")
    directory.close()


def test_lock_excludes_a_second_holder_until_it_is_closed(tmp_path):
    """One lock per directory: a second try fails, and succeeds once the first holder closed."""
    first = LocalStorage().directory(tmp_path / "log", create=True)
    second = LocalStorage().directory(tmp_path / "log", create=True)
    assert first.try_lock()
    assert not second.try_lock()
    first.close()
    assert second.try_lock()
    second.close()


def test_directory_that_is_only_read_is_not_created(tmp_path):
    """Reading a log that does not exist creates nothing."""
    with pytest.raises(FileNotFoundError):
        LocalStorage().directory(tmp_path / "log", create=False)
    assert not (tmp_path / "log").exists()


def simulated_file(disk):
    directory = disk.directory(Path("/log"), create=True)
    file = directory.create("f")
    directory.sync()
    return file


def contents_after_power_cuts(disk) -> set[bytes]:
    return {bytes(disk.after_power_cut(Random(seed)).content(Path("/log"))["f"]) for seed in range(200)}


def test_simulated_disk_may_keep_any_version_of_each_unsynced_sector():
    """After a power cut each sector holds its synced content or any later one, independently of the others."""
    disk = SimulatedStorage()
    file = simulated_file(disk)
    file.pwrite(b"a" * 2 * SECTOR, 0)
    file.fdatasync()
    file.pwrite(b"b" * 2 * SECTOR, 0)
    file.pwrite(b"c" * SECTOR, 0)
    seen = {(content[:1], content[-1:]) for content in contents_after_power_cuts(disk)}
    assert seen == {(first, second) for first in (b"a", b"b", b"c") for second in (b"a", b"b")}


def test_simulated_disk_loses_what_a_failed_sync_was_to_write():
    """After a failed sync reads still show the data, the next sync succeeds, and a power cut loses it."""
    disk = SimulatedStorage()
    file = simulated_file(disk)
    faulty = FaultyStorage(disk, fail_at=2).directory(Path("/log"), create=False).open("f", writable=True)
    file.pwrite(b"new", 0)
    with pytest.raises(OSError, match="Input/output error"):
        faulty.fdatasync()
    faulty.fdatasync()
    assert file.pread(3, 0) == b"new"
    assert contents_after_power_cuts(disk) == {bytes(3)}


def test_simulated_disk_does_not_count_a_write_that_overlaps_a_sync():
    """What is written while a sync runs may be lost although the sync succeeded."""
    disk = SimulatedStorage()
    file = simulated_file(disk)
    file.pwrite(b"a", 0)
    disk.during_sync = lambda: file.pwrite(b"b", 0)
    file.fdatasync()
    assert contents_after_power_cuts(disk) == {b"a", b"b"}
    file.fdatasync()
    assert contents_after_power_cuts(disk) == {b"b"}
