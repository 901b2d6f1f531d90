"""vectors.py FAMILY CONNECT ADDRESS...: one datagram to each address in one sendmmsg(2); print the outcome.

FAMILY is inet, inet6 or unix; CONNECT is "-" or an address to connect to first. "-" as an address is none.
Prints the result, or the error's name, and the length that the call wrote behind each header (99 for none).
"""

import ctypes
import errno
import platform
import socket
import struct
import sys

libc = ctypes.CDLL(None, use_errno=True)
NUMBER = {"x86_64": 307, "aarch64": 269}[platform.machine()]
family = {"inet": socket.AF_INET, "inet6": socket.AF_INET6, "unix": socket.AF_UNIX}[sys.argv[1]]


def plain(word):
    return word if family == socket.AF_UNIX else (word.rpartition("@")[0], int(word.rpartition("@")[2]))


def packed(word):
    if word == "-":
        return b""
    if family == socket.AF_UNIX:
        return struct.pack("=H", family) + word.encode() + b"\0"
    host, number = plain(word)
    if family == socket.AF_INET6:
        return (
            struct.pack("=H", family)
            + struct.pack("!HI", number, 0)
            + socket.inet_pton(family, host)
            + bytes(4)
        )
    return struct.pack("=H", family) + struct.pack("!H", number) + socket.inet_pton(family, host) + bytes(8)


kept, headers = [], b""
for index, word in enumerate(sys.argv[3:]):
    content = f"{index}" * (index + 1)
    data, name = ctypes.create_string_buffer(content.encode()), ctypes.create_string_buffer(packed(word))
    vector = (ctypes.c_void_p * 2)(ctypes.addressof(data), len(content))
    kept += [data, name, vector]
    size = len(packed(word))
    where = ctypes.addressof(name) if size else 0
    headers += struct.pack("=QIxxxxQQQQixxxx", where, size, ctypes.addressof(vector), 1, 0, 0, 0)
    headers += struct.pack("=Ixxxx", 99)
block = ctypes.create_string_buffer(headers, len(headers))
with socket.socket(family, socket.SOCK_DGRAM) as sender:
    if sys.argv[2] != "-":
        sender.connect(plain(sys.argv[2]))
    sent = libc.syscall(NUMBER, sender.fileno(), block, len(sys.argv) - 3, socket.MSG_NOSIGNAL)
    outcome = sent if sent >= 0 else errno.errorcode[ctypes.get_errno()]
    print(
        outcome,
        *(struct.unpack_from("=I", block.raw, 64 * index + 56)[0] for index in range(len(sys.argv) - 3)),
    )
