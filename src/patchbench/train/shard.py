"""Weights, gradients and optimizer states in shares, one on each device (Rajbhandari et al., 2020; torch's FSDP2).

What is learnt, and what a checkpoint holds, is that of one device: a run may go on under another strategy.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.optim import Optimizer


def shard(net: Any, mesh: DeviceMesh) -> None:
    """Leave to each device of `mesh` its share of the weights; a block's are gathered while it computes."""
    if isinstance(net, FSDPModule):
        return
    empty = {parameter.requires_grad_(False) for parameter in net.parameters() if not parameter.numel()}
    for block in net.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(net, mesh=mesh, ignored_params=empty)  # a network without prefix tokens: there is nothing to share


def load_weights(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Whole weights into a module, in shares or not."""
    set_model_state_dict(module, dict(state), options=StateDictOptions(full_state_dict=True))


class Sharded(ModelParallelStrategy):
    """Lightning's strategy for FSDP2, with the checkpoints of every other strategy.

    Its own number the optimizer's states by the order of the parameters in the network, where an optimizer goes by its
    groups, and its reader takes them to be so: what another strategy wrote would land on other parameters.
    """

    def __init__(self, world_size: int) -> None:
        super().__init__(data_parallel_size=world_size, tensor_parallel_size=1, save_distributed_checkpoint=False)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Whole, on the first process; empty on others."""
        assert self.model is not None
        plain = getattr(optimizer, "optimizer", optimizer)  # Lightning hands over its wrapper
        named: Any = get_optimizer_state_dict(
            self.model, plain, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
        )
        if not named:
            return {}
        groups = named["param_groups"]
        number = {name: i for i, name in enumerate(name for group in groups for name in group["params"])}
        return {
            "state": {number[name]: state for name, state in named["state"].items()},
            "param_groups": [group | {"params": [number[name] for name in group["params"]]} for group in groups],
        }

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Weights and optimizer states go into their shares; the rest is returned for Lightning to restore."""
        assert self.model is not None
        checkpoint = self.checkpoint_io.load_checkpoint(checkpoint_path)
        load_weights(self.model, checkpoint["state_dict"])
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            number = [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
            named: Any = {
                "state": {number[i]: value for i, value in state["state"].items()},
                "param_groups": [g | {"params": [number[i] for i in g["params"]]} for g in state["param_groups"]],
            }
            set_optimizer_state_dict(self.model, optimizer, named, options=StateDictOptions(full_state_dict=True))
        return checkpoint
