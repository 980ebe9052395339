from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from addertrain.checkpoint.store import CheckpointStore
from addertrain.recipe import TrainRecipe
from addertrain.train.callbacks.saving import SaveCheckpoints
from addertrain.train.module import AdderClassifier
from addertrain.train.processes import World
from addertrain.train.strategies.checkpoint_io import DirectoryCheckpointIO
from addertrain.train.strategies.choice import DataParallel, SingleProcess, make_strategy, trainer_settings
from tests.train.small_runs import OPTIM, TinyNet, assert_same_bits, random_loader

LAUNCHED = World(rank=3, size=4, local_rank=1, local_size=2, is_launched=True)


@pytest.mark.parametrize(
    ("name", "world", "kind"),
    [
        ("auto", World(), SingleProcess),
        ("auto", LAUNCHED, DataParallel),
        ("ddp", World(), DataParallel),
        ("ddp", LAUNCHED, DataParallel),
    ],
)
def test_the_launcher_decides_what_auto_means(name: str, world: World, kind: type) -> None:
    assert type(make_strategy(name, world)) is kind


def test_devices_and_nodes_follow_the_launcher() -> None:
    settings = trainer_settings(TrainRecipe(), LAUNCHED)

    assert (settings["devices"], settings["num_nodes"], settings["accelerator"]) == (2, 2, "cpu")


def test_ranks_keep_their_own_norms() -> None:
    strategy = make_strategy("ddp", LAUNCHED)

    assert isinstance(strategy, DataParallel)
    assert strategy._ddp_kwargs["broadcast_buffers"] is False


def _own_script(folder: Path, *, max_epochs: int, resume: Path | None = None) -> Trainer:
    """A user's own network and loaders with this package's checkpoints; its filters lie channels-last."""
    torch.manual_seed(0)
    model = TinyNet().to(memory_format=torch.channels_last)
    model.conv.weight.data = model.conv.weight.data.contiguous(memory_format=torch.channels_last)
    module = AdderClassifier(model, mean=(0.5,), std=(0.3,), optim=OPTIM, num_steps=18)
    trainer = Trainer(
        strategy=SingleProcess(device=torch.device("cpu"), checkpoint_io=DirectoryCheckpointIO()),
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[SaveCheckpoints(CheckpointStore(folder), keep=9)],
        max_epochs=max_epochs,
    )
    trainer.fit(module, random_loader(training=True), ckpt_path=str(resume) if resume else None)
    return trainer


def test_an_own_script_saves_and_resumes_exactly(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole = _own_script(tmp_path / "whole", max_epochs=3)
    _own_script(tmp_path / "cut", max_epochs=1)

    resumed = _own_script(
        tmp_path / "cut", max_epochs=3, resume=CheckpointStore(tmp_path / "cut").newest_first()[0]
    )

    assert resumed.global_step == whole.global_step == 18
    assert_same_bits(resumed.lightning_module.state_dict(), whole.lightning_module.state_dict())


def test_momentum_comes_back_in_the_layout_of_its_parameter(tmp_path: Path) -> None:
    _own_script(tmp_path, max_epochs=1)

    resumed = _own_script(tmp_path, max_epochs=1, resume=CheckpointStore(tmp_path).newest_first()[0])

    optimizer = resumed.optimizers[0]
    for parameter, state in optimizer.state.items():
        assert state["momentum_buffer"].stride() == parameter.stride()


def test_saving_changes_nothing_that_lives(tmp_path: Path) -> None:
    trainer = _own_script(tmp_path, max_epochs=1)
    module, optimizer = trainer.lightning_module, trainer.optimizers[0]
    weights = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    places = {name: tensor.data_ptr() for name, tensor in module.state_dict().items()}
    momentum = [state["momentum_buffer"].clone() for state in optimizer.state.values()]

    trainer.save_checkpoint(tmp_path / "again")

    assert_same_bits(module.state_dict(), weights)
    assert {name: tensor.data_ptr() for name, tensor in module.state_dict().items()} == places
    now = [state["momentum_buffer"] for state in optimizer.state.values()]
    assert all(torch.equal(a, b) for a, b in zip(now, momentum, strict=True))
