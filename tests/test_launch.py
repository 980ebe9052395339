"""The launch scripts: what they say, what they refuse, what they set."""

import os
import socket
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.commands import run_command
from tests.source_tree import ROOT, launch_module

SCRIPTS = (
    "setup",
    "quickstart",
    "test",
    "find_python",
    "system_packages",
    "torchrun",
    "preflight",
    "deepspeed",
    "study",
    "gpu-check",
    "docs",
)


@pytest.fixture(scope="module")
def agent() -> ModuleType:
    return launch_module("agent")


@pytest.mark.parametrize("script", SCRIPTS)
def test_launch_script_explains_itself(script: str) -> None:
    result = run_command(f"launch/{script}", "--help")

    assert result.returncode == 0
    assert result.stdout.startswith(f"usage: launch/{script}")


@pytest.mark.parametrize("script", ["setup", "quickstart", "system_packages", "deepspeed", "study", "docs"])
def test_launch_script_refuses_what_it_does_not_know(script: str) -> None:
    result = run_command(f"launch/{script}", "nonsense")

    assert result.returncode == 2
    assert result.stderr


def test_find_python_says_what_is_missing(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.8.1 || exit 1\n', encoding="utf-8")
    old.chmod(0o755)

    result = run_command("/bin/bash", "launch/find_python", PATH=str(tmp_path))

    assert result.returncode == 1
    assert "expected Python >= 3.11" in result.stderr
    assert "Python 3.8.1" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_system_packages_go_on_without_what_only_some_tests_need(tmp_path: Path) -> None:
    """On a machine that has all that is needed, and an apt-get that installs nothing."""
    answers = {"id": "echo 0", "uname": "echo x86_64", "apt-get": "exit 100"}
    for name in ("python", "c++", "pkg-config", *answers):
        (tmp_path / name).write_text(f"#!/bin/sh\n{answers.get(name, 'exit 0')}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "env").symlink_to("/usr/bin/env")

    result = run_command("/bin/bash", "launch/system_packages", "all", "python", PATH=str(tmp_path))

    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        "system packages: installing g++-aarch64-linux-gnu qemu-user",
        "system packages: continuing without g++-aarch64-linux-gnu qemu-user",
    ]


def test_environment_shares_the_cores_and_keeps_what_is_set() -> None:
    shared = "source launch/environment 1000; echo $OMP_NUM_THREADS $OMP_WAIT_POLICY"

    assert (
        run_command("bash", "-euo", "pipefail", "-c", f"unset OMP_NUM_THREADS; {shared}").stdout
        == "1 passive\n"
    )
    assert run_command("bash", "-c", shared, OMP_NUM_THREADS="7").stdout == "7 passive\n"


def test_torchrun_passes_the_commands_exit_code_on_and_does_not_repeat_a_bad_one() -> None:
    result = run_command("launch/torchrun", "--nproc-per-node", "1", "fit", "absent.yaml")

    assert result.returncode == 2
    complaint, end = result.stderr.splitlines()
    assert complaint.startswith("addertrain: error: absent.yaml: expected a recipe file")
    assert end == "launch/torchrun: rank 0 ended first, with exit code 2"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--nnodes"], "expected a value after --nnodes"),
        (["--nproc-per-node"], "expected a number after --nproc-per-node"),
        (["--standalone"], "expected a command (fit, evaluate, ...), got none"),
        (["--nproc-per-node", "0", "fit"], "expected a number above 0, gpu, cpu or auto, got 0"),
        (["--nproc-per-node=-1", "fit"], "gpu, cpu or auto, got -1"),
        (["--nproc_per_node", "1.5", "fit"], "gpu, cpu or auto, got 1.5"),
        (["--nproc_per_node=2x", "fit"], "gpu, cpu or auto, got 2x"),
    ],
)
def test_torchrun_refuses_words_in_one_line(words: list[str], complaint: str) -> None:
    result = run_command("launch/torchrun", *words)

    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1), result.stderr
    assert complaint in result.stderr


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--nnodes", "0"], "--nnodes: expected a number above 0, or MIN:MAX, got 0"),
        (["--nnodes", "2:1"], "got 2:1"),
        (["--nnodes", "1:2:3"], "got 1:2:3"),
        (["--nnodes", "2"], "expected --rdzv-endpoint HOST:PORT for 2 machines, got none"),
        (["--nnodes", "2", "--standalone", "--rdzv-endpoint", "a"], "machines, got --standalone"),
        (["--max-restarts", "-1"], "--max-restarts: expected a number of 0 or above, got -1"),
        (["--max-restarts", "x"], "invalid int value: 'x'; see launch/torchrun --help"),
        (["--rdzv-endpoint", "a:b"], "expected HOST or HOST:PORT, by a name or an IPv4 address, got a:b"),
        (["--rdzv-endpoint", "a:99999"], "got a:99999"),
        (["--rdzv-endpoint", "[::1]:29400"], "got [::1]:29400"),
        (["--rdzv-conf", "x"], "expected valid options of torchrun, got:"),
        (["--no-python"], "expected addertrain as the program"),
    ],
)
def test_options_that_cannot_be_followed_are_one_line(
    agent: ModuleType, words: list[str], complaint: str
) -> None:
    with pytest.raises(agent.UsageError) as error:
        agent.parse([*words, "-m", "addertrain", "fit"])

    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "variables", "meeting"),
    [
        ([], {}, ""),
        (["--standalone"], {}, ""),
        ([], {"PET_STANDALONE": "1"}, ""),
        (["--nnodes", "2", "--rdzv-endpoint", "a:1"], {}, "a:1"),
        (["--rdzv-endpoint", "a"], {}, "a"),
        (["--nnodes", "2", "--node-rank", "1", "--master-addr", "b", "--master-port", "2"], {}, "b:2"),
        ([], {"PET_NNODES": "1:3", "PET_MASTER_ADDR": "c"}, "c:29400"),
        ([], {"PET_NNODES": "1", "PET_MASTER_ADDR": "c", "PET_NODE_RANK": "0"}, ""),
    ],
)
def test_machines_meet_where_they_are_told_and_one_alone_at_home(
    agent: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    variables: dict[str, str],
    meeting: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    arguments = agent.parse([*words, "-m", "addertrain", "fit"])

    assert (arguments.rdzv_endpoint, bool(arguments.standalone)) == (meeting, meeting == "")


def test_a_machine_alone_needs_no_name_that_resolves(
    agent: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "")
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    monkeypatch.setattr(socket, "gethostname", lambda: "nowhere.invalid")
    arguments = agent.parse(["-m", "addertrain", "fit"])

    agent.stay_on_this_machine(arguments)

    assert arguments.local_addr == "127.0.0.1"
    assert os.environ["GLOO_SOCKET_IFNAME"] in {name for _, name in socket.if_nameindex()}


def test_a_module_of_the_users_in_the_working_folder_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "random.py").write_text("raise SystemExit('the random of somebody else')\n")
    command = f"cd '{tmp_path}' && PET_NPROC_PER_NODE=1 '{ROOT}/launch/torchrun' --standalone fit absent.yaml"

    result = run_command("bash", "-c", command)

    assert result.returncode == 2
    assert result.stderr.startswith("addertrain: error: absent.yaml: expected a recipe file")


def test_a_study_needs_seeds_and_names_the_run_that_fails(tmp_path: Path) -> None:
    study = tmp_path / "small.txt"
    study.write_text("# a comment\nraw recipes/mnist/lenet5bn.yaml all\n", encoding="utf-8")
    refused = run_command("launch/study", str(study), "--out", str(tmp_path / "runs"))
    assert refused.returncode == 2
    assert "expected a name, a recipe, seeds such as 0,1,2" in refused.stderr

    study.write_text("lost recipes/nowhere/lost.yaml 3\n", encoding="utf-8")
    failed = run_command("launch/study", str(study), "--out", str(tmp_path / "runs"), "--jobs", "1")
    assert failed.returncode == 1
    assert "launch/study: lost-3 failed: addertrain: error: recipes/nowhere/lost.yaml" in failed.stderr


@pytest.mark.parametrize("manifest", ["trainjob", "pytorchjob"])
def test_kubernetes_pods_have_time_to_save_and_enough_shared_memory(manifest: str) -> None:
    text = (ROOT / "launch" / "kubernetes" / f"{manifest}.yaml").read_text(encoding="utf-8")

    pods = [pod for document in yaml.safe_load_all(text) for pod in _pods(document)]

    (pod,) = pods
    assert pod["terminationGracePeriodSeconds"] >= 180
    (container,) = pod["containers"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert {"/runs", "/data", "/dev/shm"} <= set(mounts)
    assert set(mounts.values()) == {volume["name"] for volume in pod["volumes"]}
    assert "fit recipes/" in " ".join(text.split()) or "fit, recipes/" in text


def _pods(node: object) -> list[dict[str, Any]]:
    """Every pod's specification below a manifest's node."""
    if isinstance(node, list):
        return [pod for item in node for pod in _pods(item)]
    if not isinstance(node, dict):
        return []
    here = [node] if "containers" in node else []
    return here + [pod for item in node.values() for pod in _pods(item)]
