"""Make a pseudo-terminal the controlling one of a child, which writes to /dev/tty; print what came out."""

import os
import pty

child, master = pty.fork()
if child == 0:
    with open("/dev/tty", "w") as terminal:
        terminal.write("on the terminal\n")
    os._exit(0)
received = b""
while True:
    try:
        part = os.read(master, 1000)
    except OSError:
        break
    if not part:
        break
    received += part
os.waitpid(child, 0)
print(received.decode().split("\r\n")[:-1])
