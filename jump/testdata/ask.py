"""Asks an echo server: "tcp PORT", "unix PATH", or "socks PORT TARGET"; or "free" for a port."""

import socket
import sys


def connect(kind, to, target):
    if kind == "unix":
        s = socket.socket(socket.AF_UNIX)
        s.connect(to)
        return s
    s = socket.create_connection(("127.0.0.1", int(to)))
    if kind == "socks":
        s.sendall(b"\x05\x01\x00")
        assert s.recv(2, socket.MSG_WAITALL) == b"\x05\x00"
        s.sendall(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + int(target).to_bytes(2, "big"))
        assert s.recv(10, socket.MSG_WAITALL)[1] == 0
    return s


def main():
    kind, to, target = (sys.argv[1:] + ["", ""])[:3]
    if kind == "free":
        s = socket.socket()
        s.bind(("127.0.0.1", 0))
        print(s.getsockname()[1])
        return
    s = connect(kind, to, target)
    s.settimeout(30)
    s.sendall(b"hello" * 50000)
    s.shutdown(socket.SHUT_WR)
    got = b"".join(iter(lambda: s.recv(65536), b""))
    print(kind, len(got), got[-6:])


main()
