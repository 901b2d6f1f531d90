"""What belongs to the whole machine: devices and kernel files that no policy opens.

Two kinds of file are more than files. A node of a disk or of memory is all of that disk or memory, whatever
rules say about the names on it. And some files of the kernel's own file systems start programs outside of
the tree (``core_pattern``, ``uevent_helper``, ``release_agent``, ``binfmt_misc``) or reach every process
(``sysrq-trigger``, ``cgroup.kill``, the switches beneath ``/proc/sys``). They are refused whatever the
policy.

Neither is known by its path: a device by its number, a kernel file by the type of its file system and its
name within that, so that a node of another name and a second or partial mount count as well.
"""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterator

from rampart_seccomp.calls.call import Refusal
from rampart_seccomp.calls.notification import Notification
from rampart_seccomp.calls.pins import Pin
from rampart_seccomp.calls.shim import checked, lib

__all__ = ["change_refusal", "machine_is_closed", "open_refusal"]

_DISK = Refusal("a disk, whole: rules about the files on it would mean nothing")
_MEMORY = Refusal("memory or the kernel's log, past all that processes may see")
_KERNEL = Refusal("a kernel file that concerns the whole machine")

# Fixed numbers (Documentation/admin-guide/devices.txt); memory and disks behind character devices.
_MEMORY_DEVICES = frozenset(
    [
        (1, 1),  # mem
        (1, 2),  # kmem
        (1, 4),  # port
        (1, 6),  # core
        (1, 11),  # kmsg: syslog(2) is refused as well
        (10, 144),  # nvram
        (10, 231),  # snapshot: a whole hibernation image
    ]
)
_DISK_CONTROLS = frozenset(
    [
        (10, 220),  # mptctl: commands to a controller
        (10, 236),  # mapper/control
        (10, 237),  # loop-control
    ]
)
_MEMORY_MAJORS = frozenset([202])  # cpu/*/msr
_DISK_MAJORS = frozenset([9, 21, 90, 162])  # tapes, SCSI generic, flash (mtd), raw
# The rest get their numbers when they are registered: /proc/devices has them by name (proc_devices(5)).
_DYNAMIC_FROM, _DYNAMIC_FROM_EXTENDED = 234, 384
_DYNAMIC_DISKS = re.compile(rb"nvme|nvme-generic|bsg|ubi\d+|megaraid_sas_ioctl|aac")
_DYNAMIC_MEMORY = re.compile(rb"dax|uio|cpu/msr")

# statfs(2); linux/magic.h
_PROCFS, _SYSFS = 0x9FA0, 0x62656572
_CLOSED = {
    0x0027E0EB: "cgroup",  # cgroup.procs, cgroup.freeze and cgroup.kill act on processes outside
    0x63677270: "cgroup2",
    0x42494E4D: "binfmt_misc",
    0x64626720: "debugfs",
    0x74726163: "tracefs",
    0x73636673: "securityfs",
    0xDE5E81E4: "efivarfs",
    0x62656570: "configfs",
    0x6165676C: "pstore",
    0x07655821: "resctrl",
}
"""File systems in which every change concerns more than the tree."""

_QUERIES = frozenset([b"/apparmor/.access"])
"""Files of those that answer what was written to them, and change nothing."""

_PROC_OPEN = re.compile(rb"/pressure/\w+")
"""Files of procfs outside of any process that are written to watch, and change nothing."""

_PROC_MEMORY = frozenset([b"/kcore", b"/vmcore", b"/kmsg"])

_SYS_CLOSED = re.compile(
    rb"/(kernel|module|power|firmware|fs|hypervisor|bus)/"
    rb"|.*/(uevent|config|rom|reset|remove|rescan|delete|scan|driver_override|bind|unbind|new_id|remove_id)$"
)
"""Files of sysfs that start programs, reach memory, or make devices come and go; the rest sets devices."""

_SYS_MEMORY = re.compile(rb".*/resource\d+(_wc)?$")


def open_refusal(notification: Notification, pin: Pin, *, writing: bool) -> Refusal | None:
    """Say why an object is not opened in here, whatever the policy; None if nothing speaks against it.

    Args:
        notification: The held call.
        pin: The object, or the place where one would be created.
        writing: Whether it would be opened for writing, truncated or created.
    """
    if not pin.missing:
        if stat.S_ISBLK(pin.mode):
            return _DISK
        if stat.S_ISCHR(pin.mode):
            return _device(os.major(pin.rdev), os.minor(pin.rdev))
    return _kernel_file(notification, pin, writing)


def change_refusal(notification: Notification, pin: Pin) -> Refusal | None:
    """Say why a name or an attribute is not changed in here, whatever the policy; None if nothing does."""
    return _kernel_file(notification, pin, True)


_CAPABILITIES = (b"CapPrm:", b"CapInh:")  # proc_pid_status(5)


def machine_is_closed() -> bool:
    """Say whether the kernel itself keeps this process, and what it starts, from reading what is refused.

    That is so for a user without capabilities who may read none of it. (CAP_PERFMON, say, reads the memory of
    processes outside past Landlock.) A device that is plugged in later counts as closed, since the rules that
    give it to its group gave it those that are there. Unknown is no.
    """
    try:
        with open("/proc/self/status", "rb") as file:
            capable = any(
                int(line.split()[1], 16) for line in file if line.startswith((b"CapPrm:", b"CapInh:"))
            )
        return not capable and os.geteuid() != 0 and os.getuid() != 0 and not any(map(_readable, _refused()))
    except (OSError, ValueError):
        return False


def _refused() -> Iterator[str]:
    """Give the names beneath /dev, /proc and /sys of what is not opened for reading."""
    yield from (os.fsdecode(b"/proc" + name) for name in _PROC_MEMORY)
    yield from glob.iglob("/sys/bus/pci/devices/*/resource[0-9]*")
    for directory, _, names in os.walk("/dev"):
        for name in names:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            if stat.S_ISBLK(status.st_mode) or (
                stat.S_ISCHR(status.st_mode) and _device(os.major(status.st_rdev), os.minor(status.st_rdev))
            ):
                yield path


def _readable(path: str) -> bool:
    if not os.access(path, os.R_OK):
        return False
    if path != "/dev/kmsg":
        return True
    # Open to all by its mode, and by kernel.dmesg_restrict (syslog(2)) perhaps not.
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except PermissionError:
        return False
    return True


def _device(major: int, minor: int) -> Refusal | None:
    if (major, minor) in _MEMORY_DEVICES or major in _MEMORY_MAJORS:
        return _MEMORY
    if (major, minor) in _DISK_CONTROLS or major in _DISK_MAJORS:
        return _DISK
    if _DYNAMIC_FROM <= major < 256 or major >= _DYNAMIC_FROM_EXTENDED:
        return _dynamic_device(major)
    return None


def _dynamic_device(major: int) -> Refusal | None:
    # Read each time: a driver that is loaded later gets a number then. Unreadable: the call fails.
    with open("/proc/devices", "rb") as file:
        characters = file.read().partition(b"Block devices:")[0]
    for line in characters.splitlines():
        number, _, name = line.strip().partition(b" ")
        if number == b"%d" % major:
            if _DYNAMIC_MEMORY.fullmatch(name):
                return _MEMORY
            if _DYNAMIC_DISKS.fullmatch(name):
                return _DISK
    return None


def _kernel_file(notification: Notification, pin: Pin, writing: bool) -> Refusal | None:
    if pin.object >= 0 and not (stat.S_ISREG(pin.mode) or stat.S_ISDIR(pin.mode) or stat.S_ISLNK(pin.mode)):
        return None
    kind = checked(lib.rs_file_system(pin.object if pin.object >= 0 else pin.parent), "fstatfs")
    if kind in _CLOSED:
        return _KERNEL if writing and _inner_name(notification, pin) not in _QUERIES else None
    if kind == _PROCFS and not pin.process:
        name = _inner_name(notification, pin)
        if name is None or name in _PROC_MEMORY:
            return _MEMORY
        return _KERNEL if writing and not _PROC_OPEN.fullmatch(name) else None
    if kind == _SYSFS:
        name = _inner_name(notification, pin)
        if name is None or _SYS_MEMORY.match(name):
            return _MEMORY
        return _KERNEL if writing and _SYS_CLOSED.match(name) else None
    return None


def _inner_name(notification: Notification, pin: Pin) -> bytes | None:
    """Return the object's name within its file system, wherever and however partly that is mounted.

    None if the mount cannot be found, as when it belongs to another mount namespace than target and broker.
    """
    fd = pin.object if pin.object >= 0 else pin.parent
    with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
        mount = next(line.split()[1] for line in file if line.startswith(b"mnt_id:"))
    for place in (f"/proc/{notification.tid}/mountinfo", "/proc/self/mountinfo"):
        with open(place, "rb") as file:
            for line in file:
                fields = line.split(b" ", 5)
                if fields[0] != mount:
                    continue
                root, point = (_unescaped(field).rstrip(b"/") for field in fields[3:5])
                if pin.path == point or pin.path.startswith(point + b"/"):
                    return root + pin.path[len(point) :]
    return None


def _unescaped(field: bytes) -> bytes:
    """Undo the octal escapes of /proc/<pid>/mountinfo (proc_pid_mountinfo(5))."""
    return re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), field)
