"""Make a pseudo-terminal by hand; use both ends, its sizes, modes, the controlling one; print the answers."""

import array
import errno
import fcntl
import os
import pty
import signal
import struct
import termios


def show(name, action):
    try:
        answer = action()
    except OSError as problem:
        answer = errno.errorcode[problem.errno]
    print(f"{name}\t{answer!r}")


master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
fcntl.ioctl(master, 0x40045431, array.array("i", [0]))  # TIOCSPTLCK
number = array.array("i", [0])
fcntl.ioctl(master, 0x80045430, number)  # TIOCGPTN
name = f"/dev/pts/{number[0]}"
slave = os.open(name, os.O_RDWR | os.O_NOCTTY)
peer = fcntl.ioctl(master, 0x5441, os.O_RDWR | os.O_NOCTTY)  # TIOCGPTPEER
show("isatty", lambda: (os.isatty(master), os.isatty(slave), os.isatty(peer)))
show("name", lambda: os.ttyname(slave) == name)
os.write(slave, b"to the master\n")
show("from the slave", lambda: os.read(master, 100))
os.write(master, b"to the slave\n")
show("from the master", lambda: os.read(slave, 100))
show("echo", lambda: os.read(master, 100))
fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
show("size", lambda: struct.unpack("HHHH", fcntl.ioctl(slave, termios.TIOCGWINSZ, bytes(8))))
modes = termios.tcgetattr(slave)
modes[3] &= ~termios.ECHO
termios.tcsetattr(slave, termios.TCSANOW, modes)
show("echo off", lambda: termios.tcgetattr(peer)[3] & termios.ECHO)
show("reopened", lambda: os.write(os.open(f"/proc/self/fd/{slave}", os.O_WRONLY | os.O_NOCTTY), b"x"))
show("by /dev/fd", lambda: os.isatty(os.open(f"/dev/fd/{slave}", os.O_RDWR | os.O_NOCTTY)))

child, other = pty.fork()
if child == 0:
    changed = []
    signal.signal(signal.SIGWINCH, lambda *_: changed.append(1))
    with open("/dev/tty", "rb+", buffering=0) as terminal:
        terminal.write(b"ready\n")
        line = terminal.readline()
        size = struct.unpack("HHHH", fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(8)))
        group = os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
        terminal.write(f"{line!r} {size} {group} {len(changed)}\n".encode())
    os._exit(0)
received = b""
while b"ready" not in received:
    received += os.read(other, 100)
fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 99, 0, 0))
os.write(other, b"typed\n")
while True:
    try:
        part = os.read(other, 1000)
    except OSError:
        break
    if not part:
        break
    received += part
os.waitpid(child, 0)
print(received)
