"""Speed and memory of inference: throughput of batches, latency of one image."""

import time

import torch
from jaxtyping import Float
from torch import Tensor, nn

from patchbench.checks import Size
from patchbench.commands.bench.rounds import Figures
from patchbench.commands.bench.training import ms, p95, per_step, step_times, synchronize, timed_steps
from patchbench.commands.build import compile_blocks
from patchbench.nets.cost import Cost
from patchbench.track.device import GIB, bf16_peak


class Inference:
    """A network in evaluation mode, with random images on the device.

    net: the network, which is moved to the device. compiled: compile the network as train.py does. bf16: compute in
    bfloat16 by autocast.
    """

    def __init__(
        self,
        net: nn.Module,
        cost: Cost,
        *,
        in_chans: int,
        img_size: Size,
        batch_size: int,
        device: torch.device,
        bf16: bool,
        compiled: bool,
    ) -> None:
        self.net, self.cost, self.device, self.bf16 = net.to(device).eval(), cost, device, bf16
        self.batch_size, self.shape = batch_size, (in_chans, *img_size)
        if compiled:
            compile_blocks(self.net)

    def images(self, count: int) -> Float[Tensor, "b c H W"]:
        return torch.randn(count, *self.shape, device=self.device)

    def measure(self, steps: int, warmup: int) -> Figures:
        """Measure the throughput of `steps` batches and the latency of `steps` images.

        Before each of the two, `warmup` batches or images do not count.
        """
        on_gpu = self.device.type == "cuda"
        before = torch.cuda.memory_allocated(self.device) if on_gpu else 0  # of all networks, also of this one
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            figures = self.throughput(steps, warmup)
            if on_gpu:
                own = sum(weight.nbytes for weight in (*self.net.parameters(), *self.net.buffers()))
                figures["gpu_peak_allocated_gib"] = (torch.cuda.max_memory_allocated(self.device) - before + own) / GIB
            return figures | self.latency(steps, warmup)

    def throughput(self, steps: int, warmup: int) -> Figures:
        """Time batches one after the other, without waiting for the device between them."""
        images = self.images(self.batch_size)
        times, wall, cpu = timed_steps(lambda: self.net(images), steps, warmup, self.device)
        figures = step_times(times, self.batch_size)
        flops = self.cost.train_flops(self.batch_size) / 3 * steps / sum(times)  # forward: a third of training
        figures["tflops_per_gpu"] = flops / 1e12
        if self.cost.num_tokens:
            figures["tokens_per_s"] = figures["images_per_s"] * self.cost.num_tokens
        if self.bf16 and (peak := bf16_peak(self.device)):
            figures["mfu"] = flops / peak
        return figures | per_step(wall, cpu, steps, self.batch_size)

    def latency(self, steps: int, warmup: int) -> Figures:
        """Time single images, each until its result is computed."""
        image, times = self.images(1), []
        for number in range(warmup + steps):
            began = time.perf_counter()
            self.net(image)
            synchronize(self.device)
            if number >= warmup:
                times.append(time.perf_counter() - began)
        return {"latency_ms_median": ms(times), "latency_ms_p95": p95(times)}
