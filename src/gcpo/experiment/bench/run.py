"""Cells as independent processes of ``gcpo train``, several at a time, on one thread each.

Beside a cell's run directory ``NAME`` there are ``NAME.yaml``, its settings; ``NAME.log``, what it said; and
``NAME.lock``, which the process of the cell holds as long as it lives. So a bench that was killed leaves no cell to
be run twice at a time: its cells run to their end, and the next bench waits for them. A cell that is half done goes on
from its checkpoint; of one that is done the checkpoints and the policy are removed, by the next bench if need be.
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import yaml
from tqdm import tqdm

from gcpo.experiment.bench.curves import Curve, read
from gcpo.experiment.bench.kept import Kept
from gcpo.experiment.bench.plan import Cell
from gcpo.experiment.rundir import write_whole, writing

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

# glibc gives the memory of freed tensors back to the kernel and asks for it again in the next step. Kept, the same
# bits take less time (benchmarks/allocator.py).
KEEP_FREED = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**34)}


@dataclass
class Runner:
    """Runs cells.

    Attributes:
        root: Directory of the cells.
        jobs: How many at a time.
        train: The command that runs one.
        kept: Finished runs in a file; None: their directories alone count.
        failed: Why cells failed, by their directories.
    """

    root: Path
    jobs: int
    train: tuple[str, ...] = (sys.executable, "-m", "gcpo", "train")
    kept: Kept | None = None
    failed: dict[str, str] = field(default_factory=dict)
    _processes: set[subprocess.Popen[bytes]] = field(default_factory=set)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _starting: threading.Lock = field(default_factory=threading.Lock)

    def curve(self, cell: Cell) -> Curve | None:
        """The curve of a cell; None if it is not finished."""
        kept = None if self.kept is None else self.kept.curve(cell)
        return read(self.root / cell.directory) if kept is None else kept

    def has_failed(self, cell: Cell) -> bool:
        """Whether a cell was run and failed."""
        return str(cell.directory) in self.failed

    def check(self, cells: Collection[Cell]) -> None:
        """Refuse a directory or a file that holds cells of other settings.

        Raises:
            UsageError: A cell was run with other settings.
        """
        for cell in cells:
            config = self.root / cell.directory / "config.yaml"
            if config.is_file():
                cell.same(yaml.safe_load(config.read_text()), config.parent, "--output")
        if self.kept is not None:
            self.kept.check(cells)

    def keep(self, cell: Cell) -> None:
        """Of a finished cell: add it to the file of runs, if there is one, then remove what no table needs."""
        run = self.root / cell.directory
        if (curve := read(run)) is None:
            return
        if self.kept is not None:
            self.kept.add(cell, curve, self._versions(cell))
        for left in ("checkpoints", "model"):
            shutil.rmtree(run / left, ignore_errors=True)

    def versions(self, cells: Iterable[Cell]) -> list[dict[str, Any]]:
        """What those of these cells that are finished were run with, each with their number, ``runs``."""
        found = [self._versions(cell) for cell in cells if self.curve(cell) is not None]
        times = Counter(json.dumps(each, sort_keys=True) for each in found)
        return [{**json.loads(each), "runs": n} for each, n in times.most_common()]

    def _versions(self, cell: Cell) -> dict[str, Any]:
        kept = None if self.kept is None else self.kept.versions(cell)
        config = self.root / cell.directory / "config.yaml"
        return dict(yaml.safe_load(config.read_text())["versions"] if kept is None else kept)

    def run(self, cells: list[Cell], done: Callable[[Cell, Curve | None], None]) -> None:
        """Run those that are not finished, in this order.

        Args:
            cells: Cells.
            done: Told of each as it ends, with its curve; None if it failed.

        Raises:
            KeyboardInterrupt: Ctrl-C; each running cell ends its step and keeps a checkpoint. The second ends at once.
            RunError: The disk is full; running cells end as at Ctrl-C.
        """
        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                futures: dict[Future[str | None], Cell] = {pool.submit(self._one, cell): cell for cell in cells}
                for future in as_completed(futures):
                    cell = futures[future]
                    if (reason := future.result()) is not None:
                        self.failed[str(cell.directory)] = reason
                    self.keep(cell)
                    done(cell, self.curve(cell))
            except BaseException:
                self._stop(pool)
                raise

    def _stop(self, pool: ThreadPoolExecutor) -> None:
        pool.shutdown(wait=False, cancel_futures=True)
        for ask in (signal.SIGINT, signal.SIGKILL):
            try:
                with self._starting:  # what has begun can be asked, and nothing begins afterwards
                    self._stopping.set()
                for process in list(self._processes):
                    process.send_signal(ask)
                while self._processes:
                    time.sleep(0.1)
                return
            except KeyboardInterrupt:
                continue

    def _one(self, cell: Cell) -> str | None:
        """Run a cell to its end; why it failed, or None."""
        run = self.root / cell.directory
        with writing(run.parent):
            run.parent.mkdir(parents=True, exist_ok=True)
        with _opened(Path(f"{run}.lock"), "w") as lock:
            if not self._alone(lock, run):
                return "not begun"
            if self.kept is not None:
                self.kept.refresh()
                self.kept.check([cell])
            if self.curve(cell) is None:
                code = self._train(cell, run, lock.fileno())
                if code is None:
                    return "not begun"
                if code:
                    return f"exit code {code}: {_last_line(Path(f'{run}.log'))}"
        return None

    def _alone(self, lock: IO[Any], run: Path) -> bool:
        """Wait for a process that an earlier bench left; whether it has ended before this bench is stopped."""
        told = False
        while not self._stopping.is_set():
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if not told:
                    tqdm.write(f"{run} is still being run, begun by a bench before: waiting for it", file=sys.stderr)
                told = True
                self._stopping.wait(0.2)
        return False

    def _train(self, cell: Cell, run: Path, lock: int) -> int | None:
        """The exit code of a cell's process; None if the bench is being stopped."""
        if self.kept is not None and not (run / "config.yaml").is_file():
            self.kept.begin(cell)
        settings = Path(f"{run}.yaml")
        write_whole(settings, yaml.safe_dump(cell.settings.as_dict(), sort_keys=False))
        command = [*self.train, "--config", str(settings), "--output", str(run)]
        environment = KEEP_FREED | os.environ | ONE_THREAD
        with _opened(Path(f"{run}.log"), "ab") as log:
            with self._starting:
                if self._stopping.is_set():
                    return None
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    pass_fds=[lock],  # held by the process, also if this one dies
                    start_new_session=True,  # Ctrl-C is ours to pass on, once
                )
                self._processes.add(process)
            try:
                return process.wait()
            finally:
                self._processes.discard(process)


def _opened(path: Path, mode: str) -> IO[Any]:
    with writing(path):
        return path.open(mode)


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").replace("\r", "\n").split("\n")]
    return next((line for line in reversed(lines) if line), "it said nothing")
