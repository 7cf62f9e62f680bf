"""Runs a program that ends when its parent ends: `python -m cli.tether NICE PROGRAM [ARG …]`.

The kernel sends SIGTERM to the program when the parent is gone, however it went (prctl(2), PR_SET_PDEATHSIG;
kept over execve). A supervisor that is killed leaves nothing behind.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Tie this process to its parent, lower its priority, become the program."""
    parent = os.getppid()
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    # The parent may have gone before the tie was made.
    if os.getppid() != parent:
        sys.exit(1)
    os.nice(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
