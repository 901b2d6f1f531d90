"""Fill the queue of a unix socket, block a child in connect, and meanwhile open files and start programs."""

import os
import signal
import socket
import subprocess
import time

server = socket.socket(socket.AF_UNIX)
server.bind("full.sock")
server.listen(0)
waiting = []
while True:
    client = socket.socket(socket.AF_UNIX)
    client.setblocking(False)
    waiting.append(client)
    try:
        client.connect("full.sock")
    except BlockingIOError:
        break
child = os.fork()
if child == 0:
    socket.socket(socket.AF_UNIX).connect("full.sock")
    os._exit(1)
end = time.monotonic() + 1
while time.monotonic() < end:
    with open("/dev/null"):
        pass
    subprocess.run(["true"], check=True)
assert os.waitpid(child, os.WNOHANG) == (0, 0), "the connect did not block"
os.kill(child, signal.SIGKILL)
assert os.waitpid(child, 0)[1] == signal.SIGKILL
print("others went on")
