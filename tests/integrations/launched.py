"""Real processes that train together over gloo."""

import os
import subprocess
import sys
from pathlib import Path


def launch(*words, processes=2):
    """Run a script (``script.py ...`` or ``-m module ...``) on so many processes; it must end well."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    paths = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    offline = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": paths}
    command = [sys.executable, *(torchrun if processes > 1 else []), *map(str, words)]
    # The limit is there for what hangs, not for what is slow on a busy machine.
    done = subprocess.run(command, env=os.environ | offline, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]


def end():
    """Leave a process of several at once, when all is saved, without the interpreter's teardown.

    In it a thread of gloo that still wants the interpreter's lock, to let go of a tensor, now and then aborts the
    process (pytorch/pytorch#190489); with ``destroy_process_group`` before it, the two wait for each other for ever.
    """
    os._exit(0)
