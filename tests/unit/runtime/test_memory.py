from __future__ import annotations

import subprocess
import sys

#: The pages that are mapped anew for blocks of 2 MiB, one after the other.
_PROGRAM = """
import resource
from services.runtime.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        bytes(2 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

without = faults()
assert keep_freed_memory()
faults()
print(without, faults())
"""


def test_freed_blocks_of_megabytes_are_used_again_without_the_kernel() -> None:
    output = subprocess.run([sys.executable, "-c", _PROGRAM], check=True, capture_output=True, text=True)
    without, with_it = map(int, output.stdout.split())
    assert with_it < without / 4
