"""torchrun with an agent that lets ranks save: `launch/torchrun` starts it with torchrun's own arguments.

Wrong options give an error of one line. It differs from torchrun in four ways. Signals are passed to the
ranks instead of ending them after a grace period; ranks that end with `SAVED` or `BAD_USAGE` are not started
again; the exit code is that of the first rank that failed; and an agent whose connection to other machines
broke connects again instead of giving up.
"""

import argparse
import fcntl
import logging
import os
import re
import signal
import socket
import struct
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn

from torch.distributed import run
from torch.distributed.elastic.agent.server import RunResult, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.api import DEFAULT_ROLE
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousClosedError, RendezvousError
from torch.distributed.launcher import api

# Exit codes of addertrain after which a restart would be wrong.
BAD_USAGE, SAVED = 2, 75
SECONDS_BETWEEN_ATTEMPTS = 5.0
SECONDS_TO_END = 60.0  # between the first rank that leaves and the last
SECONDS_TO_MEET = 600.0  # machines of a cluster start minutes apart
DEFAULT_PORT = 29400
_SIOCGIFADDR = 0x8915  # the IPv4 address of a network interface, from <linux/sockios.h>


def main(argv: Sequence[str]) -> int:
    """Runs the ranks of this machine to their end; returns the exit code."""
    # The ranks print their own errors.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        arguments = parse(argv)
    except UsageError as error:
        say(str(error))
        return BAD_USAGE
    # The class stands in for torchrun's, which has no option for it (torch 2.11 to 2.14).
    api.LocalElasticAgent = SavingAgent
    # torch's handlers raise wherever the agent is, and end the ranks 30 s after a signal, saved or not.
    arguments.signals_to_handle = "none"
    arguments.rdzv_backend = "c10d"  # the only one whose restarted ranks find each other
    if arguments.standalone:
        stay_on_this_machine(arguments)
    alone_since = time.monotonic()
    while True:
        try:
            if not arguments.standalone:
                _meet_by_address(arguments)
            run.run(arguments)
            return 0
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            if failure.exitcode == SAVED:
                say(
                    f"the ranks saved and ended after a signal ({describe(SAVED)}); the same command "
                    "resumes the run"
                )
            else:
                say(f"rank {rank} ended first, {describe(failure.exitcode)}")
            return code_of(failure.exitcode)
        except RendezvousClosedError:
            say("another machine has ended the run; see the log of that machine")
            return 1
        except (RendezvousError, OSError) as error:
            alone_since = max(alone_since, SavingAgent.together_at)
            reason = f"expected {arguments.nnodes} machines at {arguments.rdzv_endpoint}, got: "
            reason += str(error.__cause__ or error)
            if time.monotonic() - alone_since > SECONDS_TO_MEET:
                say(f"{reason}; giving up: check that all machines run this command and reach each other")
                return 1
            say(f"{reason}; trying again")
            time.sleep(SECONDS_BETWEEN_ATTEMPTS)


class UsageError(ValueError):
    """Wrong options; the message is one line."""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """torchrun's options, from arguments and variables PET_..., completed by the place where machines meet.

    Raises:
        UsageError: they cannot be followed.
    """
    try:
        parser = run.get_args_parser()  # reads PET_... already
    except ValueError as error:
        raise UsageError(f"expected 0 or 1 in torchrun's variables PET_..., got: {error}") from None
    parser.error = _refuse  # type: ignore[method-assign]  # its own prints every option
    parser.allow_abbrev = False
    arguments: argparse.Namespace = parser.parse_args(argv)
    if arguments.no_python or arguments.run_path:
        raise UsageError("expected addertrain as the program, got --no-python or --run-path; leave it out")
    _check_numbers(arguments)
    _settle_meeting(arguments)
    try:
        run.config_from_args(arguments)
    except (ValueError, AssertionError, KeyError) as error:
        raise UsageError(f"expected valid options of torchrun, got: {' '.join(str(error).split())}") from None
    return arguments


def _refuse(message: str) -> NoReturn:
    raise UsageError(f"expected torchrun's options, got: {message}; see launch/torchrun --help")


def _check_numbers(arguments: argparse.Namespace) -> None:
    try:
        fewest, most = run.parse_min_max_nnodes(arguments.nnodes)
    except (ValueError, RuntimeError):
        fewest = most = 0
    if not 0 < fewest <= most:
        raise UsageError(f"--nnodes: expected a number above 0, or MIN:MAX, got {arguments.nnodes}")
    if arguments.max_restarts < 0:
        raise UsageError(f"--max-restarts: expected a number of 0 or above, got {arguments.max_restarts}")


def _settle_meeting(arguments: argparse.Namespace) -> None:
    """Where the machines meet: --rdzv-endpoint, or --master-addr, which launchers of fixed machines use."""
    _, most = run.parse_min_max_nnodes(arguments.nnodes)
    has_master = arguments.master_addr != "127.0.0.1" or arguments.master_port is not None
    if most > 1 and has_master and not arguments.rdzv_endpoint:
        arguments.rdzv_endpoint = f"{arguments.master_addr}:{arguments.master_port or DEFAULT_PORT}"
    arguments.node_rank = 0  # machines are numbered where they meet; torchrun would warn at length
    if most > 1 and (arguments.standalone or not arguments.rdzv_endpoint):
        raise UsageError(
            f"expected --rdzv-endpoint HOST:PORT for {arguments.nnodes} machines, got "
            f"{'--standalone' if arguments.standalone else 'none'}; name one of the machines"
        )
    if arguments.standalone or not arguments.rdzv_endpoint:
        arguments.standalone = True
        return
    if arguments.rdzv_id == "none":
        arguments.rdzv_id = "addertrain"
    host, _, port = arguments.rdzv_endpoint.partition(":")
    if (
        not re.fullmatch(r"[\w.-]{1,253}", host)
        or not re.fullmatch(r"[0-9]{0,5}", port)
        or int(port or 1) > 65535
    ):
        raise UsageError(
            "--rdzv-endpoint: expected HOST or HOST:PORT, by a name or an IPv4 address, got "
            f"{arguments.rdzv_endpoint}"
        )


class SavingAgent(LocalElasticAgent):
    """Passes signals to the ranks, and restarts them only if that can help.

    `together_at` is the last moment at which it heard of the other machines.
    """

    together_at = 0.0

    def __init__(self, spec: WorkerSpec, **settings: Any) -> None:
        super().__init__(spec, **settings)
        self._is_starting = self._has_ranks = False
        self._early_signals: list[int] = []
        self._ask_who_waits = spec.rdzv_handler.num_nodes_waiting
        spec.rdzv_handler.num_nodes_waiting = self._num_nodes_waiting

    def run(self, role: str = DEFAULT_ROLE) -> RunResult:
        """Runs the ranks to their end, as torchrun's agent does."""
        try:
            return super().run(role)
        except RendezvousClosedError:
            raise
        except RendezvousError:
            # torchrun would end the rendezvous for all machines now, although the connection may just have
            # returned.
            self._rdzv_handler._stop_heartbeats()
            self._rdzv_handler.shutdown = lambda: True
            raise

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, int]:
        self._is_starting = True
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._pass_on)
        ids = super()._start_workers(worker_group)
        self._is_starting, self._has_ranks = False, True
        for number in self._early_signals:
            self._tell_ranks(number)
        return ids

    def _stop_workers(self, *arguments: Any, **settings: Any) -> None:
        super()._stop_workers(*arguments, **settings)
        self._has_ranks = False

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        result = super()._monitor_workers(worker_group)
        SavingAgent.together_at = time.monotonic()
        if result.state == WorkerState.FAILED:
            rank, failure = min(result.failures.items(), key=lambda item: item[1].timestamp)
            if failure.exitcode in (SAVED, BAD_USAGE):
                self._remaining_restarts = 0
            if self._remaining_restarts:
                say(
                    f"rank {rank} ended {describe(failure.exitcode)}; starting the ranks of this machine "
                    f"again ({self._remaining_restarts} restarts left)"
                )
        return result

    def _num_nodes_waiting(self) -> int:
        """How many machines wait to join; 0 if the store has gone because the run is ending everywhere."""
        try:
            return self._ask_who_waits()
        except RendezvousError:
            # The machine with the store may have seen its ranks save and end a moment before ours do.
            deadline = time.monotonic() + SECONDS_TO_END
            while time.monotonic() < deadline:
                if self._pcontext.wait(0):
                    return 0
                time.sleep(0.1)
            raise

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self._remaining_restarts = 0
        if self._is_starting:  # some of them may not exist yet
            self._early_signals.append(number)
        elif self._has_ranks:
            self._tell_ranks(number)
        else:  # between two attempts there are no ranks
            raise SystemExit(128 + number)

    def _tell_ranks(self, number: int) -> None:
        for process_id in self._pcontext.pids().values():
            try:
                os.kill(process_id, number)
            except ProcessLookupError:
                continue


def stay_on_this_machine(arguments: argparse.Namespace) -> None:
    """Ranks of one machine find each other without its name, which need not resolve."""
    address, interface = way_to("127.0.0.1", DEFAULT_PORT)
    arguments.local_addr = arguments.local_addr or address
    os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)


def _meet_by_address(arguments: argparse.Namespace) -> None:
    """Settles by address what torchrun and gloo guess from host names, which clusters often get wrong."""
    host, _, port = arguments.rdzv_endpoint.partition(":")
    remote = socket.gethostbyname(host)
    address, interface = way_to(remote, int(port or DEFAULT_PORT))
    arguments.local_addr = arguments.local_addr or address
    os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    is_host = "is_host=1" if address == remote else "is_host=0"
    if "is_host" not in arguments.rdzv_conf:
        arguments.rdzv_conf = ",".join(filter(None, (arguments.rdzv_conf, is_host)))


def way_to(remote: str, port: int) -> tuple[str, str]:
    """This machine's address and network interface on the way to `remote`.

    Raises:
        OSError: there is no way.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((remote, port))  # of a datagram socket: nothing is sent
        address: str = probe.getsockname()[0]
        for _, name in socket.if_nameindex():
            try:
                reply = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:  # an interface without an address
                continue
            if socket.inet_ntoa(reply[20:24]) == address:
                return address, name
    raise OSError(f"no network interface has the address {address}")


def code_of(exit_code: int) -> int:
    """A process's exit code as a shell has it."""
    return 128 - exit_code if exit_code < 0 else exit_code


def describe(exit_code: int) -> str:
    """An exit code in words."""
    return f"by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"with exit code {exit_code}"


def say(message: str) -> None:
    """One line on stderr."""
    print(f"launch/torchrun: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
