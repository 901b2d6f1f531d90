"""Control operations of ioctl(2) that go around what is decided elsewhere.

What drivers and terminals offer stays free. The types of the file systems are refused whole, but for what
only reads: they have operations that change attributes through a read-only fd, make and open files without
a name, or stop the file system and with it the broker. The numbers are those of the generic encoding
(asm-generic/ioctl.h), which x86_64 and aarch64 share; the kernel takes 32 bits of them.
"""

from __future__ import annotations

import errno

from rampart_seccomp.kernel.entries import INT, Case, Match, free, refused

__all__ = ["CASES", "OWNER_CASES"]

_WRITE, _READ = 1, 2
_COMMAND = 1  # the argument that names the operation
_TYPE = 0xFF00
_PAIR = 0xFFFFFFF1  # the even or the odd operations of a row of sixteen
_TWO_ROWS = 0xFFFFFFE1
_ROW = 0xFFFFFFF0


def _encoded(direction: int, kind: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | kind << 8 | number


_READS = (
    _encoded(_READ, ord("f"), 1, 8),  # FS_IOC_GETFLAGS
    _encoded(_READ, ord("f"), 1, 4),  # FS_IOC32_GETFLAGS
    _encoded(_READ, ord("f"), 3, 8),  # EXT4_IOC_GETVERSION
    _encoded(_READ | _WRITE, ord("f"), 11, 32),  # FS_IOC_FIEMAP
    _encoded(_READ | _WRITE, ord("f"), 134, 4),  # FS_IOC_MEASURE_VERITY
    _encoded(_READ, ord("v"), 1, 8),  # FS_IOC_GETVERSION
    _encoded(_READ, ord("v"), 1, 4),  # FS_IOC32_GETVERSION
    _encoded(_READ, ord("X"), 31, 28),  # FS_IOC_FSGETXATTR
    _encoded(_WRITE, 0x94, 9, 4),  # FICLONE: from one open file to another
    _encoded(_WRITE, 0x94, 13, 32),  # FICLONERANGE
    _encoded(_READ | _WRITE, 0x94, 54, 24),  # FIDEDUPERANGE: changes no content
    _encoded(_READ, 0x94, 49, 256),  # FS_IOC_GETFSLABEL
    0x8910,  # SIOCGIFNAME, among the changes of its row
    0x8912,  # SIOCGIFCONF, too
    0x89F0,  # SIOCGETTUNNEL
)

# Programs that copy attributes take EOPNOTSUPP for a file system that has none.
_ATTRIBUTE_TYPES = (
    ord("f"),  # ext2 and its heirs, fscrypt, fs-verity: flags, versions, resizing
    ord("v"),  # inode versions
    ord("X"),  # XFS, and FIFREEZE, FITHAW, FS_IOC_SHUTDOWN of all: opening by handle, freezing
    0xF5,  # F2FS
)
_OBJECT_TYPES = (
    ord("o"),  # OCFS2: a reflink makes a file by name; UBI volumes
    0x94,  # Btrfs: subvolumes, snapshots, reading by tree search
    0xBC,  # bcachefs: subvolumes
    0xAA,  # userfaultfd, which /dev/userfaultfd gives without the system call
)

_TERMINAL = (
    0x5412,  # TIOCSTI: types into the terminal that the user's shell will read
    0x541C,  # TIOCLINUX: the same through the console's selection
    0x541D,  # TIOCCONS: takes the console's output
)
_KEYS = 0x4B41  # KDSKBMODE, KDSKBENT, KDSKBSENT, KDSETKEYCODE: what the console's keys mean

_NETWORK = (
    0x890B,  # SIOCADDRT
    0x890C,  # SIOCDELRT
    0x8911,  # SIOCSIFLINK
    0x8923,  # SIOCSIFNAME
    0x8937,  # SIOCSIFHWBROADCAST
    0x8941,  # SIOCSIFBR
    0x8943,  # SIOCSIFTXQLEN
    0x8949,  # SIOCSMIIREG
    0x8953,  # SIOCDARP
    0x8955,  # SIOCSARP
    0x8971,  # SIOCSIFMAP
    0x8983,  # SIOCSIFVLAN
    _encoded(_WRITE, ord("T"), 202, 4),  # TUNSETIFF
)
_NETWORK_ROWS = (
    (_PAIR, 0x8910),  # SIOCSIFFLAGS, SIOCSIFADDR and others that are even
    (_TWO_ROWS, 0x8920),  # SIOCSIFMTU, SIOCSIFHWADDR, SIOCDELMULTI, SIOCDIFADDR and others that are even
    (_ROW, 0x8990),  # SIOCBOND*
    (_ROW, 0x89A0),  # SIOCBR*
    (_ROW, 0x89F0),  # SIOCDEVPRIVATE: tunnels and the like
)

_FAT_SET_ATTRIBUTES = _encoded(_WRITE, ord("r"), 0x11, 4)


def _command(value: int, mask: int = INT) -> Match:
    return Match(_COMMAND, mask, value)


CASES: tuple[Case, ...] = (
    *(free(_command(value)) for value in _READS),
    refused(errno.EOPNOTSUPP, _command(_FAT_SET_ATTRIBUTES)),
    *(refused(errno.EPERM, _command(value)) for value in (*_TERMINAL, *_NETWORK)),
    refused(errno.EPERM, _command(_KEYS, _PAIR)),
    *(refused(errno.EPERM, _command(value, mask)) for mask, value in _NETWORK_ROWS),
    *(refused(errno.EOPNOTSUPP, _command(kind << 8, _TYPE)) for kind in _ATTRIBUTE_TYPES),
    *(refused(errno.EPERM, _command(kind << 8, _TYPE)) for kind in _OBJECT_TYPES),
)

OWNER_CASES: tuple[Case, ...] = tuple(
    refused(errno.EPERM, _command(value))
    for value in (
        0x8901,  # FIOSETOWN
        0x8902,  # SIOCSPGRP
    )
)
"""Who gets SIGIO and SIGURG: to be refused where the kernel does not confine signals."""
