"""A child opens a file and hands its descriptor to the parent over a socket pair; the parent reads it."""

import os
import socket

ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
child = os.fork()
if child == 0:
    socket.send_fds(theirs, [b"x"], [os.open("f", os.O_RDONLY)])
    os._exit(0)
_, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
os.waitpid(child, 0)
os.write(1, os.read(descriptors[0], 100))
