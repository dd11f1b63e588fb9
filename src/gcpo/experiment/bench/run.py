"""Cells as independent processes of ``gcpo train``, several at a time, on one thread each.

Beside a cell's run directory ``NAME`` there are ``NAME.yaml``, its settings; ``NAME.log``, what it said; and
``NAME.lock``, which the process of the cell holds as long as it lives. So a bench that was killed leaves no cell to
be run twice at a time: its cells run to their end, and the next bench waits for them. A cell that is half done goes on
from its checkpoint; of one that is done the checkpoints and the policy are removed.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import yaml

from gcpo.experiment.bench.curves import Curve, read
from gcpo.experiment.bench.kept import Kept
from gcpo.experiment.bench.plan import Cell
from gcpo.experiment.rundir import write_whole, writing


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
        """Add a finished cell to the file of runs, if there is one."""
        if self.kept is not None and (curve := self.curve(cell)) is not None:
            self.kept.add(cell, curve)

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
            fcntl.flock(lock, fcntl.LOCK_EX)  # waits for a process that an earlier bench left
            if read(run) is None:
                code = self._train(cell, run, lock.fileno())
                if code is None:
                    return "not begun"
                if code:
                    return f"exit code {code}: {_last_line(Path(f'{run}.log'))}"
            for left in ("checkpoints", "model"):
                shutil.rmtree(run / left, ignore_errors=True)
        return None

    def _train(self, cell: Cell, run: Path, lock: int) -> int | None:
        """The exit code of a cell's process; None if the bench is being stopped."""
        if self.kept is not None and not (run / "config.yaml").is_file():
            self.kept.begin(cell)
        settings = Path(f"{run}.yaml")
        write_whole(settings, yaml.safe_dump(cell.settings.as_dict(), sort_keys=False))
        command = [*self.train, "--config", str(settings), "--output", str(run)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
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
