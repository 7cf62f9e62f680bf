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


def test_what_is_there_when_a_process_serves_is_not_looked_through_again() -> None:
    program = """
import gc
from services.runtime.memory import settle
settle()
class Later:
    pass
later = Later()
later.itself = later
del later
print(gc.get_freeze_count() > 1000, len(gc.get_objects()) < 100, gc.collect() > 0)
"""
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert output.stdout.split() == ["True"] * 3
