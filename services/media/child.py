"""Shuts itself in, then becomes the program it was asked to run; `sandbox` runs it, no service does.

Run as `python -I -S child.py POLICY COMMAND…`, `POLICY` being a dictionary as `sandbox` packs it. It is a
program of its own, with the standard library only, because what it does to itself must never happen in a
server: a new user and network namespace, a system call filter, Landlock rules and resource limits. Exit code
97 means that it could not shut itself in as asked, and that the command was not started.

Every command pays for what is imported here: `json`, `socket` or `typing` would each take as long as Python's
own start.
"""

from __future__ import annotations

import ctypes
import errno
import marshal
import os
import resource
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

REFUSED = 97
#: The source is always this descriptor, so that commands read the same everywhere.
SOURCE_FD = 3

CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWIPC = 0x10000000, 0x40000000, 0x08000000
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
SIGKILL = 9
SECCOMP_MODE_FILTER = 2

# include/uapi/linux/audit.h, and each machine's numbers for: socket, ptrace, process_vm_readv,
# process_vm_writev, kill, pidfd_send_signal, io_uring_setup (a ring opens sockets past any filter), bpf.
MACHINES = {
    "x86_64": (0xC000003E, (41, 101, 310, 311, 62, 424, 425, 321)),
    "aarch64": (0xC00000B7, (198, 117, 270, 271, 129, 424, 425, 280)),
}
X32_BIT = 0x40000000

# include/uapi/linux/landlock.h
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
FS_EXECUTE, FS_READ_FILE, FS_READ_DIR, FS_WRITE_FILE, FS_TRUNCATE = 1, 1 << 2, 1 << 3, 1 << 1, 1 << 14
#: Every file right that each ABI version knows; later versions are held to what is known here.
FS_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
NET_RIGHTS = 0b11

libc = ctypes.CDLL(None, use_errno=True)


def enter_namespace() -> bool:
    """Leaves the machine's network (and its rights, by a user namespace) behind."""
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC) == 0:
        return True
    return bool(libc.unshare(CLONE_NEWNET) == 0)


def filter_calls() -> bool:
    """Refuses the system calls that open sockets or reach into other processes."""
    machine = os.uname().machine
    if machine not in MACHINES:
        return False
    arch, calls = MACHINES[machine]
    load, equal, at_least, give = 0x20, 0x15, 0x35, 0x06
    kill, refuse, allow = 0x80000000, 0x00050000 | errno.EACCES, 0x7FFF0000
    program = [(load, 0, 0, 4), (equal, 1, 0, arch), (give, 0, 0, kill), (load, 0, 0, 0)]
    program += [(at_least, 0, 1, X32_BIT), (give, 0, 0, refuse)]
    for call in calls:
        program += [(equal, 0, 1, call), (give, 0, 0, refuse)]
    program.append((give, 0, 0, allow))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    head = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    return bool(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, head) == 0)


def limit_files(read: list[str], write: list[str]) -> int:
    """Leaves only `read` to read and run, `write` to change; the Landlock version that holds, or 0."""
    version = libc.syscall(LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        return 0
    rights = FS_RIGHTS[min(version, max(FS_RIGHTS))]
    rules = struct.pack("QQ", rights, NET_RIGHTS if version >= 4 else 0)
    size = 16 if version >= 4 else 8
    ruleset = libc.syscall(LANDLOCK_CREATE, rules, size, 0)
    if ruleset < 0:
        return 0
    for path, wanted in [(p, FS_EXECUTE | FS_READ_FILE | FS_READ_DIR) for p in read] + [
        (p, rights) for p in write
    ]:
        try:
            beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        if not os.path.isdir(path):
            wanted &= FS_EXECUTE | FS_READ_FILE | FS_WRITE_FILE | FS_TRUNCATE
        rule = struct.pack("=Qi", wanted & rights, beneath)
        if libc.syscall(LANDLOCK_ADD, ruleset, 1, rule, 0) != 0:
            return 0
        os.close(beneath)
    if libc.syscall(LANDLOCK_RESTRICT, ruleset, 0) != 0:
        return 0
    os.close(ruleset)
    return int(version)


def set_limits(limits: dict[str, int], *, own_user: bool) -> None:
    """Hard resource limits; the number of processes only where the count is this sandbox's own."""
    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_AS: limits["memory_bytes"],
        resource.RLIMIT_CPU: limits["cpu_s"],
        resource.RLIMIT_FSIZE: limits["file_bytes"],
        resource.RLIMIT_NOFILE: limits["open_files"],
    }
    if own_user:
        wanted[resource.RLIMIT_NPROC] = limits["processes"]
    for kind, most in wanted.items():
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        # A second more of processor time before it is killed, so that the signal tells what the matter was.
        spare = 1 if kind == resource.RLIMIT_CPU and hard == resource.RLIM_INFINITY else 0
        resource.setrlimit(kind, (most, most + spare))


def shut_in(policy: dict[str, Any]) -> dict[str, int]:
    """Applies `policy` to this process; returns what holds now."""
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    os.nice(policy["nice"])
    namespace = enter_namespace()
    set_limits(policy["limits"], own_user=namespace)
    landlock = limit_files(policy["read"], policy["write"])
    return {"namespace": int(namespace), "landlock": landlock, "seccomp": int(filter_calls())}


def _refused(attempt: str) -> int:
    """Whether the sandbox really refuses what it should: 1 when it does."""
    import socket

    try:
        if attempt == "network":
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                probe.settimeout(0.2)
                probe.connect(("127.0.0.1", 1))
        else:
            with open("/etc/hostname", "rb"):
                pass
    except ConnectionRefusedError:
        # Something answered: there is a network, if nobody at that port.
        return 0
    except OSError:
        return 1
    return 0


def main() -> None:
    policy = marshal.loads(bytes.fromhex(sys.argv[1]))
    held = shut_in(policy)
    # Die with the parent. Only now: a new user namespace may clear the wish.
    libc.prctl(PR_SET_PDEATHSIG, SIGKILL)
    if os.getppid() != policy["parent"]:
        sys.exit(REFUSED)
    command = sys.argv[2:]
    if not command:
        held |= {"network_refused": _refused("network"), "files_refused": _refused("files")}
        import json

        print(json.dumps(held))
        return
    if not (held["namespace"] or held["seccomp"]):
        print("no network namespace and no system call filter can be had", file=sys.stderr)
        sys.exit(REFUSED)
    source = policy["source_fd"]
    if source is not None and source != SOURCE_FD:
        os.dup2(source, SOURCE_FD)
        os.close(source)
    elif source is not None:
        os.set_inheritable(SOURCE_FD, True)
    os.execve(command[0], command, dict(os.environ))


if __name__ == "__main__":
    main()
