"""Paths are resolved as the target would, and what is held is what they mean."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from looking import Target

from rampart_seccomp.calls.pins import real_name
from rampart_seccomp.calls.shim import lib


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    target = Target(tmp_path.resolve())
    yield target
    target.close()


def _errno(target: Target, path: bytes, **options: bool) -> int:
    with pytest.raises(OSError, match=".") as caught:
        target.pin(path, **options).close()
    assert caught.value.errno is not None
    return caught.value.errno


def test_relative_to_the_targets_directory(target: Target, tmp_path: Path) -> None:
    """A relative path counts from the target's working directory, not from ours."""
    (tmp_path / "file").write_text("x")

    pin = target.pin(b"file")

    assert pin.path == os.fsencode(tmp_path.resolve() / "file")
    assert (pin.dev, pin.ino) == (os.stat(tmp_path / "file").st_dev, os.stat(tmp_path / "file").st_ino)
    pin.close()


def test_links_are_followed_to_the_real_name(target: Target, tmp_path: Path) -> None:
    """The name judged is that of the object: behind links in the middle, at the end, and absolute."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text("x")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "absolute").symlink_to(tmp_path / "link" / "file")
    wanted = os.fsencode(tmp_path.resolve() / "real" / "file")

    for path in (b"link/file", b"absolute", b"real/../link/./file", b"./link//file"):
        pin = target.pin(path)
        assert pin.path == wanted, path
        pin.close()


def test_a_missing_name_is_its_parent_and_itself(target: Target, tmp_path: Path) -> None:
    """What does not exist yet is judged by its real parent, also behind a dangling link."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dangling").symlink_to("real/new")

    for path in (b"link/new", b"dangling"):
        pin = target.pin(path)
        assert pin.missing
        assert pin.path == os.fsencode(tmp_path.resolve() / "real" / "new"), path
        pin.close()


def test_errors_are_those_of_path_resolution(target: Target, tmp_path: Path) -> None:
    """ENOENT, ENOTDIR, ELOOP and ENAMETOOLONG as path_resolution(7) has them."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to("loop")

    assert _errno(target, b"none/file") == errno.ENOENT
    assert _errno(target, b"file/x") == errno.ENOTDIR
    assert _errno(target, b"file/") == errno.ENOTDIR
    assert _errno(target, b"loop") == errno.ELOOP
    assert _errno(target, b"loop/x") == errno.ELOOP
    assert _errno(target, b"") == errno.ENOENT
    assert _errno(target, b"n" * 256) == errno.ENAMETOOLONG
    assert _errno(target, b"x/" * 3000) == errno.ENAMETOOLONG


def test_self_in_procfs_is_the_target(target: Target) -> None:
    """/proc/self and /proc/thread-self mean the process that asks, not the one that resolves for it."""
    for path in (b"/proc/self/status", b"/proc/thread-self/status", b"/proc/mounts"):
        pin = target.pin(path)
        assert pin.process == target.pid, path
        pin.close()


def test_magic_links_only_within_the_tree(target: Target) -> None:
    """cwd, root, exe and fd/N are followed for processes of the tree, and for nobody else."""
    inside = target.pin(b"/proc/self/cwd/")
    outside = f"/proc/{os.getppid()}".encode()

    assert inside.is_directory
    inside.close()
    for name in (b"/root", b"/cwd", b"/exe", b"/fd/0", b"/root/etc/passwd"):
        assert _errno(target, outside + name) == errno.EACCES
    environ = target.pin(outside + b"/environ")
    assert environ.outside
    environ.close()


def test_not_followed_link_is_the_link(target: Target, tmp_path: Path) -> None:
    """Without following, a symbolic link at the end is the object."""
    (tmp_path / "link").symlink_to("nowhere")

    pin = target.pin(b"link", follow=False)

    assert stat.S_ISLNK(pin.mode)
    assert pin.still_there()
    (tmp_path / "link").unlink()
    assert not pin.still_there()
    pin.close()


def test_name_of_a_deleted_file(target: Target, tmp_path: Path) -> None:
    """The kernel's remark on a deleted file is no part of its name, and a real name that looks so is."""
    doomed, lookalike = tmp_path / "doomed", tmp_path / "x (deleted)"
    doomed.write_text("x")
    lookalike.write_text("x")

    gone, real = target.pin(b"doomed"), target.pin(b"x (deleted)")
    doomed.unlink()

    assert gone.deleted
    assert gone.path == os.fsencode(tmp_path.resolve() / "doomed")
    assert not real.deleted
    assert real.path == os.fsencode(lookalike.resolve())
    gone.close()
    real.close()


def test_memfds_and_pipes_have_no_name() -> None:
    """What never had a name is told apart from files."""
    reader, writer = os.pipe()
    memory = os.memfd_create("x")
    try:
        for fd in (reader, memory):
            assert real_name(fd)[1] & lib.RS_PIN_NAMELESS
    finally:
        for fd in (reader, writer, memory):
            os.close(fd)


def test_restricted_resolution(target: Target, tmp_path: Path) -> None:
    """RESOLVE_BENEATH and RESOLVE_IN_ROOT of openat2(2) hold."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "out").symlink_to("/etc/passwd")
    beneath, in_root = 0x08, 0x10

    inside = target.pin(b"file", resolve=beneath)
    rooted = target.pin(b"/file", resolve=in_root)

    assert inside.path == rooted.path == os.fsencode(tmp_path.resolve() / "file")
    inside.close()
    rooted.close()
    with pytest.raises(OSError, match=".") as caught:
        target.pin(b"out", resolve=beneath)
    assert caught.value.errno == errno.EXDEV
