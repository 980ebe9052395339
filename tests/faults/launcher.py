"""launch/agent.py with two ranks of `tests.faults.rank`, from nothing or forked from a process with torch.

A start from nothing costs 15 s of processor time for imports, three processes that each load torch; forked
ones do the same work behind that. The agent is the real one either way.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import tests.ranks  # noqa: F401  (its server of processes is the first, with all that the suite needs)
from tests.faults.rank import main as rank_main
from tests.faults.rank import read_note
from tests.source_tree import ROOT, launch_module

NUM_RANKS = 2
_CONTEXT = multiprocessing.get_context("forkserver")
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    "GLOO_SOCKET_IFNAME": "lo",
}


class Launcher:
    """One start of a command on two ranks.

    Args:
        folder: for its log and the ranks' notes; another start may follow in the same one.
        command: addertrain's.
        max_restarts: how often the launcher itself starts its ranks again.
        flush_seconds: what every flush to the disk takes longer.
        from_nothing: whether every process imports everything anew.
    """

    def __init__(
        self,
        folder: Path,
        command: list[str],
        *,
        max_restarts: int = 0,
        flush_seconds: float = 0.0,
        from_nothing: bool = False,
    ) -> None:
        self.notes, self.log = folder / "notes", folder / "log"
        self.notes.mkdir(parents=True, exist_ok=True)
        for rank in range(NUM_RANKS):  # those of ranks before; who still holds one writes into nothing
            (self.notes / f"rank_{rank}").unlink(missing_ok=True)
        words = ["--nproc-per-node", str(NUM_RANKS), "--max-restarts", str(max_restarts)]
        words += ["--monitor-interval", "0.05", "-m", "tests.faults.rank", str(self.notes)]
        words += [str(flush_seconds), *command]
        self._process: Any
        if from_nothing:
            self._process = _from_nothing(words, self.log)
        else:
            self._process = _CONTEXT.Process(target=_launch, args=(self.log, words), daemon=False)
            self._process.start()
        self.process_id: int = self._process.pid

    @property
    def exit_code(self) -> int | None:
        """As a shell has it; None while it runs."""
        poll = getattr(self._process, "poll", None)
        code: int | None = poll() if poll else self._process.exitcode
        return 128 - code if code is not None and code < 0 else code

    def rank_process(self, rank: int) -> int | None:
        """The process of a rank that lives and has said something."""
        note = read_note(self.notes, rank)
        return note.process_id if note is not None and is_alive(note.process_id) else None

    def wait(self, *, seconds: float) -> int:
        """Its exit code, once it and its ranks are gone.

        Raises:
            AssertionError: some process is still there after `seconds`; all are killed then.
        """
        deadline = time.monotonic() + seconds
        ranks = {rank: self.rank_process(rank) for rank in range(NUM_RANKS)}
        while (code := self.exit_code) is None or any(pid and is_alive(pid) for pid in ranks.values()):
            ranks = {rank: self.rank_process(rank) or pid for rank, pid in ranks.items()}
            if time.monotonic() > deadline:
                self.kill_all()
                raise AssertionError(f"processes were left after {seconds:g} s\n{self.tail()}")
            time.sleep(0.01)
        return code

    def kill_all(self) -> None:
        """Ends whatever is left of it."""
        for process_id in [self.process_id, *map(self.rank_process, range(NUM_RANKS))]:
            if process_id is not None and is_alive(process_id):
                os.kill(process_id, signal.SIGKILL)

    def tail(self) -> str:
        """The end of what it and its ranks have said."""
        return self.log.read_text()[-3000:] if self.log.exists() else ""


def is_alive(process_id: int) -> bool:
    """Whether there is such a process that has not ended."""
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(") ")[2][0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def _from_nothing(words: list[str], log: Path) -> subprocess.Popen[bytes]:
    agent = ["bash", "-c", f'source launch/environment {NUM_RANKS}; exec "$@"', "bash", sys.executable]
    with log.open("ab") as file:
        return subprocess.Popen(
            [*agent, "launch/agent.py", *words],
            cwd=ROOT,
            env=os.environ | _ENVIRONMENT,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def _launch(log: Path, words: list[str]) -> None:
    """The launcher's process: the agent, with ranks that are forked from it."""
    os.setsid()
    os.environ |= _ENVIRONMENT
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    agent = launch_module("agent")
    start_processes = agent.run.elastic_launch

    def start_forked(config: Any, entrypoint: str) -> Any:
        config.start_method = "fork"
        return start_processes(config, _rank)

    agent.run.elastic_launch = start_forked
    sys.exit(agent.main(words))


def _rank(*words: str) -> None:
    """What torchrun would have started as a program: python -u -m tests.faults.rank WORDS."""
    sys.exit(rank_main(list(words[words.index("tests.faults.rank") + 1 :])))
