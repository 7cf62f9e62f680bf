"""A network of the benchmark's own: loopback alone, with a congestion control that says so."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from pathlib import Path

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_CONGESTION = Path("/proc/sys/net/ipv4/tcp_congestion_control")


def enter_own_network() -> str:
    """Move this process, which must not have started a thread yet, into a network namespace of its own.

    A host's `bbr` paces loopback and doubles what bytes cost there, so it becomes `reno`. Answers what is in
    force; where the kernel refuses a namespace, that is the host's.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWNET) != 0:
        if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
            return f"{_CONGESTION.read_text().strip()} of the host"
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    with socket.socket() as any_socket:
        request = struct.pack("16sH14s", b"lo", 0, b"")
        flags = struct.unpack("16sH14s", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14s", b"lo", flags | _IFF_UP, b""))
    _CONGESTION.write_text("reno")
    return _CONGESTION.read_text().strip()
