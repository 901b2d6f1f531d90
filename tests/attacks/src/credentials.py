"""credentials.py SOCKET UID|- HARNESS: claim to be somebody else, and reach for descriptors.

Prints "CASE<tab>RESULT". With a UID, that is who the claims are made by: the process becomes it first.
"""

import array
import ctypes
import errno
import os
import platform
import signal
import socket
import struct
import sys

libc = ctypes.CDLL(None, use_errno=True)
PIDFD_GETFD = 438
path, uid, harness = sys.argv[1], sys.argv[2], int(sys.argv[3])
if uid != "-":
    os.setgroups([])
    os.setresgid(int(uid), int(uid), int(uid))
    os.setresuid(int(uid), int(uid), int(uid))


def show(name, action):
    try:
        answer = action()
    except OSError as problem:
        answer = errno.errorcode[problem.errno]
    print(f"{name}\t{'ok' if answer is None else answer}")


def claim(pid, user, group):
    def send():
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(path)
            claimed = struct.pack("=iII", pid, user, group)
            sender.sendmsg([b"claimed"], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, claimed)])

    return send


def connected():
    """Who the peer of a stream takes us for."""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.connect(path + ".stream")
        return stream.recv(100).decode()


def pass_number(number):
    """Send a descriptor that this process does not have; what arrives would be another's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        rights = array.array("i", [number])
        ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        _, ancillary, _, _ = theirs.recvmsg(1, 1000)
        return f"got {len(ancillary)}"


def pass_all():
    with_none = [number for number in range(20, 300) if not os.path.exists(f"/proc/self/fd/{number}")]
    answers = set()
    for number in with_none:
        try:
            answers.add(pass_number(number))
        except OSError as problem:
            answers.add(errno.errorcode[problem.errno])
    return ",".join(sorted(answers))


def crafted(control):
    """Send ancillary data byte by byte as given; only a raw call does that."""

    def send():
        ours, theirs = socket.socketpair()
        with ours, theirs:
            data = ctypes.create_string_buffer(b"x")
            vector = (ctypes.c_void_p * 2)(ctypes.addressof(data), 1)
            body = ctypes.create_string_buffer(control, len(control))
            header = struct.pack(
                "=QIxxxxQQQQixxxx", 0, 0, ctypes.addressof(vector), 1, ctypes.addressof(body), len(control), 0
            )
            number = {"x86_64": 46, "aarch64": 211}[platform.machine()]
            if libc.syscall(number, ours.fileno(), ctypes.create_string_buffer(header, len(header)), 0) < 0:
                raise OSError(ctypes.get_errno(), "sendmsg")
            _, ancillary, _, _ = theirs.recvmsg(1, 1000)
            return f"got {len(ancillary)}"

    return send


def message(length, kind, content):
    made = struct.pack("=Qii", length, socket.SOL_SOCKET, kind) + content
    return made + bytes(-len(made) % 8)


def getfd(pid):
    def copy():
        pidfd = os.pidfd_open(pid)
        found = libc.syscall(PIDFD_GETFD, pidfd, 3, 0)
        if found < 0:
            raise OSError(ctypes.get_errno(), "pidfd_getfd")

    return copy


def received_pidfd():
    """The pidfd that comes with a message is of whoever performed the sending: it must be of no use."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, 76, 1)  # SO_PASSPIDFD
        ours.sendmsg([b"x"])
        _, ancillary, _, _ = theirs.recvmsg(1, 1000)
        pidfds = [struct.unpack("i", data[:4])[0] for _, kind, data in ancillary if kind == 4]
        answers = []
        for pidfd in pidfds:
            if libc.syscall(PIDFD_GETFD, pidfd, 3, 0) < 0:
                answers.append(errno.errorcode[ctypes.get_errno()])
            try:
                with open(f"/proc/self/fdinfo/{pidfd}") as about:
                    owner = next(int(line[4:]) for line in about if line.startswith("Pid:"))
                if owner != os.getpid():
                    signal.pidfd_send_signal(pidfd, signal.SIGTERM)
                    answers.append("signalled")
            except OSError as problem:
                answers.append(errno.errorcode[problem.errno])
        return ",".join(answers) or "none"


me, us, them = os.getpid(), os.getuid(), os.getgid()
show("honest", claim(me, us, them))
show("uid", claim(me, 0 if us else 1, them))
show("gid", claim(me, us, 0 if them else 1))
show("pid of the harness", claim(harness, us, them))
show("pid 1", claim(1, us, them))
show("connected as", connected)
show("descriptors without a file", pass_all)
rights = socket.SCM_RIGHTS
show("own descriptor", lambda: pass_number(1))
show("length too small", crafted(message(15, rights, struct.pack("=i", 7))))
show("length too large", crafted(message(400, rights, struct.pack("=i", 7))))
two = message(20, rights, struct.pack("=i", 1)) + message(20, rights, struct.pack("=i", 77))
show("second of two", crafted(two))
show("second number", crafted(message(24, rights, struct.pack("=ii", 1, 78))))
show("odd length", crafted(message(23, rights, struct.pack("=ii", 1, 78))[:24]))
for name, pid in (("harness", harness), ("launcher", os.getppid())):
    show(f"pidfd_getfd of the {name}", getfd(pid))
    show(f"listing of the {name}", lambda pid=pid: os.listdir(f"/proc/{pid}/fd") and None)
    for number in (0, 3, 4, 5, 6, 7):
        there = f"/proc/{pid}/fd/{number}"
        show(f"{name} {number}", lambda there=there: os.open(there, os.O_RDONLY) and None)
show("pidfd of a sender", received_pidfd)
if uid == "-":
    links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    kinds = {os.readlink(link) for link in links if os.path.exists(link)}
    print("kinds\t" + ",".join(sorted(kinds)))
