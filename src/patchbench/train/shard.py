"""Strategies for several devices: DDP, and FSDP2, which shards weights, gradients and optimizer states.

Sharding follows Rajbhandari et al. (2020). Training results and checkpoints equal those of one device, so that a run
can be resumed with another strategy.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer


def shard(net: Any, mesh: DeviceMesh) -> None:
    """Shard the weights over the devices of `mesh`; the weights of a block are gathered while the block computes."""
    if isinstance(net, FSDPModule):
        return
    empty = {parameter.requires_grad_(False) for parameter in net.parameters() if not parameter.numel()}
    for block in net.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(net, mesh=mesh, ignored_params=empty)  # an empty parameter, as without prefix tokens, has no shards


def load_weights(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load unsharded weights into a module, sharded or not. ValueError unless the names of all weights are equal."""
    own, given = module.state_dict().keys(), state.keys()
    for names, wrong in ((own - given, "has no weights for"), (given - own, "has unknown weights,")):
        if names:
            others = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ValueError(f"the checkpoint {wrong} {min(names)}{others}: it is of another network, or of other code")
    set_model_state_dict(module, dict(state), options=StateDictOptions(full_state_dict=True))


class Averaged(DDPStrategy):
    """Lightning's strategy for DDP, with settings for these networks.

    Batch norms are synchronised, so buffers are equal on all devices and are not broadcast; gradients are views of the
    buckets. `_setup_model` wraps the network on the default stream: Lightning uses another stream, for which torch
    prints a warning at every start.
    """

    def __init__(self) -> None:
        super().__init__(broadcast_buffers=False, gradient_as_bucket_view=True)

    def _setup_model(self, model: nn.Module) -> DistributedDataParallel:
        return DistributedDataParallel(model, device_ids=self.determine_ddp_device_ids(), **self._ddp_kwargs)


class Sharded(ModelParallelStrategy):
    """Lightning's strategy for FSDP2, with checkpoints that all other strategies can read.

    Lightning's own checkpoints number the states of the optimizer in the order of the parameters of the network. Other
    strategies number them in the order of the optimizer's groups, so they would assign the states to wrong parameters.
    """

    def __init__(self, world_size: int) -> None:
        super().__init__(data_parallel_size=world_size, tensor_parallel_size=1, save_distributed_checkpoint=False)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the unsharded state on the first rank, and an empty state on the others."""
        assert self.model is not None
        plain = getattr(optimizer, "optimizer", optimizer)  # Lightning passes its wrapper
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
        """Load weights and optimizer states into their shards, and return the rest for Lightning to restore."""
        assert self.model is not None
        checkpoint = self.checkpoint_io.load_checkpoint(checkpoint_path)
        load_weights(self.model, checkpoint["state_dict"])
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            number = [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
            # Whether a step is fused depends on the strategy, see `build_task`.
            fused = [{"fused": group["fused"]} if "fused" in group else {} for group in optimizer.param_groups]
            groups = [
                group | {"params": [number[i] for i in group["params"]]} | own
                for group, own in zip(state["param_groups"], fused, strict=True)
            ]
            named: Any = {"state": {number[i]: value for i, value in state["state"].items()}, "param_groups": groups}
            set_optimizer_state_dict(self.model, optimizer, named, options=StateDictOptions(full_state_dict=True))
        return checkpoint
