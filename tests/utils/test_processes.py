import subprocess
import sys
from datetime import timedelta

import pytest

from ldm.utils import processes
from ldm.utils.processes import Share, gather, this_share, wait_for_all
from tests.processes import HANGS, train_together
from tests.refusals import refused

SRUN = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1"}
TORCHRUN = {"RANK": "2", "WORLD_SIZE": "3", "LOCAL_RANK": "0"}


@pytest.fixture
def environment(monkeypatch):
    for name in (*processes.TORCHRUN, *processes.SLURM, "SLURM_JOB_NAME"):
        monkeypatch.delenv(name, raising=False)

    def set_all(variables: dict[str, str]) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_all


@pytest.mark.parametrize(
    "variables, share",
    [
        ({}, Share(0, 1, 0)),
        (TORCHRUN, Share(2, 3, 0)),
        (SRUN, Share(5, 8, 1)),
        (SRUN | TORCHRUN, Share(2, 3, 0)),  # torchrun inside a job of SLURM
        (SRUN | {"SLURM_JOB_NAME": "bash"}, Share()),  # a shell on a node
        ({"SLURM_NTASKS": "8"}, Share()),  # in sbatch's script, without srun
    ],
)
def test_what_the_launcher_says(environment, variables, share):
    environment(variables)
    assert this_share() == share


@pytest.mark.parametrize("changed", [{"RANK": "x"}, {"RANK": "3"}, {"RANK": "-1"}, {"LOCAL_RANK": "-1"}])
def test_what_a_launcher_does_not_say(environment, changed):
    environment(TORCHRUN | changed)
    with refused(f"RANK={(TORCHRUN | changed)['RANK']}", "WORLD_SIZE=3"):
        this_share()


def test_the_shares_are_the_whole():
    items = list("abcdefg")
    parts = [Share(rank, 3).part(items) for rank in range(3)]
    assert parts[1] == ["b", "e"]
    assert sorted(sum(parts, [])) == items
    assert Share().part(items) == items


@pytest.mark.parametrize(
    "nodes, first",
    [("gpu[07-09,12]", "gpu07"), ("gpu[3,5]", "gpu3"), ("a12,b3", "a12"), ("one", "one"), ("x[01-02],y4", "x01")],
)
def test_under_slurm_they_meet_at_the_first_node_as_in_training(nodes, first):
    from pytorch_lightning.plugins.environments import SLURMEnvironment

    variables = {"SLURM_NODELIST": nodes, "SLURM_JOB_ID": "123456"}
    processes._set_rendezvous(variables)
    assert (variables["MASTER_ADDR"], variables["MASTER_PORT"]) == (first, "18456")
    assert SLURMEnvironment.resolve_root_node_address(nodes) == first


def test_torchruns_meeting_place_is_kept():
    variables = {"SLURM_NODELIST": "gpu1", "MASTER_ADDR": "there", "MASTER_PORT": "29500"}
    processes._set_rendezvous(variables)
    assert (variables["MASTER_ADDR"], variables["MASTER_PORT"]) == ("there", "29500")


def test_one_process_alone_waits_for_nobody():
    assert gather("mine", Share()) == ["mine"]


def as_one(rank, folder):
    share = this_share()
    (folder / f"before {rank}").touch()
    wait_for_all(share)
    assert (folder / f"before {1 - rank}").is_file()
    assert gather({"rank": rank}, share) == [{"rank": 0}, {"rank": 1}]


def test_two_processes_wait_for_each_other(tmp_path):
    train_together(as_one, tmp_path)


def deserted(rank, folder):
    wait_for_all(this_share())
    if rank == 1:
        return
    with refused(0, 2):
        wait_for_all(this_share())
    (folder / "told").touch()


def test_a_process_that_has_ended_is_not_waited_for(tmp_path):
    train_together(deserted, tmp_path)
    assert (tmp_path / "told").is_file()


def test_a_launcher_that_has_died_is_not_waited_for_longer_than_processes_take_to_start(environment, monkeypatch):
    environment({**TORCHRUN, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"})  # where nobody listens
    monkeypatch.setattr(processes, "MEETING", timedelta(seconds=1))
    with refused(2, 3):
        wait_for_all(this_share())


def test_by_torchrun(tmp_path):
    file = tmp_path / "hello.py"
    file.write_text(
        "from pathlib import Path\n"
        "from ldm.utils.processes import gather, this_share\n"
        "share = this_share()\n"
        "told = gather(share.part('abcde'), share)\n"
        f"Path({str(tmp_path)!r}, str(share.rank)).write_text(repr(told))\n"
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*torchrun, file], check=True, capture_output=True, timeout=HANGS)
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == ["[['a', 'c', 'e'], ['b', 'd']]"] * 2
