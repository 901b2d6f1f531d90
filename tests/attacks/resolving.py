"""What attackers by name begin with: functions that ask, and that connect."""

RESOLVING = """
import errno, socket, struct, sys
V4, V6, UDP, TCP = socket.AF_INET, socket.AF_INET6, socket.SOCK_DGRAM, socket.SOCK_STREAM
def question(name, kind):
    labels = name.encode() if isinstance(name, str) else name
    labels = b"".join(bytes([len(label)]) + label for label in labels.split(b"."))
    return b"\\x42\\x42\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0" + labels + struct.pack("!BHH", 0, kind, 1)
def code(reply):
    return {0: "ok", 2: "SERVFAIL", 3: "NXDOMAIN"}.get(reply[3] & 15) if reply[:2] == b"BB" else "other"
def datagram(family, server, name, kind=1, connected=False, send=socket.socket.sendto):
    with socket.socket(family, UDP) as end:
        end.settimeout(10)
        if connected:
            end.connect(server)
            end.send(question(name, kind))
        else:
            send(end, question(name, kind), server)
        return code(end.recv(4096))
def stream(family, server, name, kind=1):
    with socket.socket(family, TCP) as end:
        end.settimeout(10)
        end.connect(server)
        message = question(name, kind)
        end.sendall(struct.pack("!H", len(message)) + message)
        return code(end.recv(4096)[2:])
def reach(host, port):
    with socket.socket(V6 if ":" in host else V4, TCP) as end:
        end.settimeout(10)
        try:
            end.connect((host, port))
        except OSError as error:
            return errno.errorcode[error.errno]
        end.sendall(b"GET /through HTTP/1.0\\r\\n\\r\\n")
        return end.makefile("rb").read()[-6:].decode().strip()
def lookup(name):
    try:
        return sorted({info[4][0] for info in socket.getaddrinfo(name, 80, type=TCP)})
    except socket.gaierror:
        return "none"
"""
