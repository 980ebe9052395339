"""Two machines on this one: two network namespaces with a cable (a veth pair) between them."""

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.source_tree import ROOT

ADDRESSES = ("10.77.0.1", "10.77.0.2")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@dataclass
class TwoMachines:
    """Two namespaces; a command is started in one of them, the cable can be pulled."""

    names: tuple[str, str]
    logs: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, machine: int, *command: str) -> subprocess.Popen[str]:
        """Starts a command on a machine; what it prints goes to its log."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.names[machine], *command],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=(self.logs / f"{machine}.log").open("a"),
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def log(self, machine: int) -> str:
        """What the machine's commands have printed so far."""
        log = self.logs / f"{machine}.log"
        return log.read_text() if log.exists() else ""

    def cable(self, *, is_plugged: bool) -> None:
        """Plugs or pulls the cable at the first machine."""
        _ip("-n", self.names[0], "link", "set", "cable", "up" if is_plugged else "down")

    def kill(self, machine: int) -> None:
        """Ends everything that runs on a machine, as a power cut would."""
        listed = subprocess.run(
            ["ip", "netns", "pids", self.names[machine]], capture_output=True, text=True, check=False
        )
        for pid in listed.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    def kill_all(self) -> None:
        """Ends everything that still runs on the two machines."""
        for machine in range(len(self.names)):
            self.kill(machine)
        for process in self.started:
            process.wait()


@contextlib.contextmanager
def two_machines() -> Iterator[TwoMachines]:
    """Makes the machines and takes them down again; skips the test where that is not permitted."""
    names = (f"addertrain-{os.getpid()}-0", f"addertrain-{os.getpid()}-1")
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip(
            "link",
            "add",
            "cable",
            "netns",
            names[0],
            "type",
            "veth",
            "peer",
            "name",
            "cable",
            "netns",
            names[1],
        )
        for name, address in zip(names, ADDRESSES, strict=True):
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", "cable")
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "link", "set", "cable", "up")
    except (OSError, subprocess.CalledProcessError) as error:
        _remove(names)
        reason = getattr(error, "stderr", "") or str(error)
        pytest.skip(f"network namespaces cannot be made here: {reason.strip()}")
    with tempfile.TemporaryDirectory() as folder:
        machines = TwoMachines(names, Path(folder))
        try:
            yield machines
        finally:
            machines.kill_all()
            _remove(names)


def _remove(names: tuple[str, str]) -> None:
    for name in names:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
