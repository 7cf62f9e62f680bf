"""Memory of a process that serves: how the C library gives it back, and how Python looks for garbage."""

from __future__ import annotations

import ctypes
import gc

# Numbers of mallopt(3) in glibc.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
#: The largest that every glibc takes.
_LARGEST_MMAP_THRESHOLD = 32 << 20
#: So much free memory at the end of the heap is kept for the next messages.
_KEPT_BYTES = 64 << 20
#: New objects after which Python looks for garbage among them. With 700, as it comes, thousands of streams,
#: each of which holds a dozen while it waits, make a look due at every few messages, and it finds none.
_LOOK_AFTER = 10_000


def settle() -> None:
    """Have Python look for garbage less often, and never among what is there now: once a process serves."""
    gc.freeze()
    gc.set_threshold(_LOOK_AFTER, 20, 20)


def keep_freed_memory() -> bool:
    """Have freed blocks of megabytes used again, by all threads; False where the C library isn't glibc.

    By itself glibc gives large blocks back soon and each thread has a heap of its own, so that messages cost
    the kernel the clearing of their pages: 0.23 instead of 0.39 s/GiB of a bare gRPC server with messages of
    2 MiB. The whole of playback was not measured to gain as much (docs/benchmarks.md).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    options = ((_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD), (_TRIM_THRESHOLD, _KEPT_BYTES), (_ARENA_MAX, 1))
    return all(mallopt(option, value) == 1 for option, value in options)
