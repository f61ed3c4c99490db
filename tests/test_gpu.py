"""Agreement of a GPU with a CPU in float32: a step of every embedding with every scheme, in bf16, compiled.

On a CPU the same steps are computed in bf16 without compilation, with every embedding and every scheme once.
"""

import traceback
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import jaxtyping
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.strategies import SingleDeviceStrategy
from support import configure, metrics, options, record, slow, some, train_in
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from patchbench.commands.build import build_net, build_source, compile_blocks, instantiate
from patchbench.commands.loggers import start_loggers
from patchbench.commands.train import prepare
from patchbench.config.errors import Refused
from patchbench.config.origin import origin_of
from patchbench.data.augment.crop import shift_images
from patchbench.data.batches import Batches
from patchbench.nets.vit import PLACES
from patchbench.train.graphs import can_be_graphs
from patchbench.train.shard import Averaged

# torch.compile looks at what it is given
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")

needs_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")]
EMBEDS, SCHEMES = options("embed"), options("pos")


def arms() -> list:
    """List the arms: on a GPU all, ordered by scheme, so that blocks are compiled once."""
    on_cpu = some(
        [("cpu", e, p) for p in SCHEMES for e in EMBEDS if e == "conv" or p == "learned"],
        *(("cpu", "conv", p) for p in ("peg", "relbias_mlp", "rope_mixed", "sincos")),
        *(("cpu", e, "learned") for e in ("channelwise", "conv", "flexi", "overlap_stack", "spt", "stem")),
    )
    on_gpu = [pytest.param("cuda", e, p, marks=needs_gpu) for p in SCHEMES for e in EMBEDS]
    return on_cpu + on_gpu


def step(device: str, *overrides: str, bf16: bool, compiled: bool) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Return logits and gradients of one training step, and the loss of the next, with the same weights and images."""
    cfg = configure("model=micro", "data.img_size=32", "patch=8", "model.num_prefix_tokens=1", *overrides)
    torch.manual_seed(0)
    net = build_net(cfg, build_source(cfg))
    images, labels = torch.randn(16, 3, 32, 32), torch.randint(10, (16,))
    if getattr(net.embed, "fit_images", 0):
        net.embed.fit(images)
    net, images, labels = net.to(device), images.to(device), labels.to(device)
    if compiled:
        compile_blocks(net)
    optimizer = instantiate(cfg.optim.optimizer)(net.parameters())

    def loss() -> tuple[Tensor, Tensor]:
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            logits = net(images)
            return logits, F.cross_entropy(logits, labels)

    logits, first = loss()
    first.backward()
    gradients = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    optimizer.step()
    return logits.detach().float().cpu(), {n: g.float().cpu() for n, g in gradients.items()}, loss()[1].detach().cpu()


def away(one: Tensor, other: Tensor) -> float:
    """Return the relative distance of two tensors."""
    return float((one - other).norm() / other.norm())


@pytest.fixture
def traceable():
    """Disable the run-time checks of shapes, which cannot be compiled."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("residual", ["float32", "bfloat16"])
@pytest.mark.parametrize("pos", SCHEMES)
def test_what_passes_between_blocks_in_bf16_is_as_asked_and_not_of_the_scheme(build, pos, residual):
    for prefix in (0, 1):
        net = build(
            f"pos={pos}", f"residual={residual}", "model=micro", f"model.num_prefix_tokens={prefix}", "patch=16"
        )
        seen = []
        for part in (*net.blocks, net.norm):
            part.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0].dtype))
        images = torch.randn(2, 3, 64, 64)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            logits = net(images)
        assert set(seen) == {getattr(torch, residual)}
        with torch.no_grad():
            assert away(logits.float(), net(images)) < 0.04
        assert seen[-1] == torch.float32, "without bf16 nothing is cast"


compiled_for: list[str] = []


@pytest.mark.parametrize(("device", "embed", "pos"), arms())
def test_a_step_in_bf16_is_that_of_float32_on_a_cpu(device, embed, pos, traceable):
    """bf16 keeps 8 bits, 0.4 % a rounding.

    On a CPU logits are off by 1.3 % at most, and the gradient of a parameter by 4 %; by 7 to 33 % before ReLUs, where
    what is rounded across zero is all or nothing. A lost term or a wrong sign is 100 % or more.
    """
    if device == "cuda" and pos not in compiled_for:
        torch.compiler.reset()  # the limit of recompilations counts over tests
        compiled_for.append(pos)
    arguments = [f"embed={embed}", f"pos={pos}"]
    logits, gradients, after = step(device, *arguments, bf16=True, compiled=device == "cuda")
    expected, exact, expected_after = step("cpu", *arguments, bf16=False, compiled=False)
    bound = {"hybrid": 0.6, "stem": 0.35, "overlap_stack": 0.35}.get(embed, 0.1)
    assert away(logits, expected) < 0.04
    assert gradients.keys() == exact.keys()
    whole = torch.cat([g.flatten() for g in exact.values()]).norm()
    for name, gradient in exact.items():
        if gradient.norm() > 1e-3 * whole or name.startswith(PLACES):  # else the rounding of others shows
            assert away(gradients[name], gradient) <= bound, name
    assert float(after) == pytest.approx(float(expected_after), rel=0.01)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
def test_a_whitened_basis_is_not_rounded_where_products_are(build, device):
    """TF32, which a trainer allows on a GPU, keeps 10 bits: whitening would blow its rounding up."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        embed = build("embed=fixed", "embed.basis=whitened", "model=micro", "data.img_size=32", "patch=8").embed
        images = torch.randn(64, 3, 32, 32).cumsum(3)
        embed.fit(images)
        exact = (embed.patches(images.double()) - embed.mean.double()) @ embed.basis.double().T
        assert away(embed.to(device).coefficients(images.to(device)).double().cpu(), exact) < 1e-5
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
def test_a_run_on_this_device_tells_its_speed_and_its_memory(tmp_path, micro, device):
    accelerator = "gpu" if device == "cuda" else "cpu"
    train_in(configure(*micro, f"trainer.accelerator={accelerator}", "logger=csv"), tmp_path)
    result = record(tmp_path)["result"]
    on_gpu = {"final/gpu_peak_allocated_gib", "final/gpu_peak_reserved_gib", "final/gpu_alloc_retries"}
    assert on_gpu & set(result) == (on_gpu if device == "cuda" else set())
    assert 0 < result["final/step_ms_median"] <= result["final/step_ms_p95"]
    assert 0 <= result["final/data_wait_frac"] < 1
    if device == "cuda":
        assert 0 < result["final/gpu_peak_allocated_gib"] <= result["final/gpu_peak_reserved_gib"]
        assert result.get("final/mfu", 0.0) < 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")
def test_a_gpu_that_runs_out_of_memory_halves_the_batch(tmp_path, capsys):
    """The estimate says 9 MB an image: 256 do not go into 1 GiB, 64 do."""
    large = ["model=micro", "data=random", "data.train_size=256", "data.eval_size=64", "patch=4", "batch_size=256"]
    torch.cuda.set_per_process_memory_fraction(2**30 / torch.cuda.get_device_properties(0).total_memory)
    try:
        arguments = [*large, "epochs=1", "trainer=auto", "trainer.micro_batch=auto", "compile=false", "logger=none"]
        train_in(configure(*arguments), tmp_path)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "micro-batches of" in capsys.readouterr().out


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")
@pytest.mark.parametrize("more", [[], ["model.drop_path=0.2"], ["trainer.accumulate=2"], ["embed=stem", "pos=rope"]])
def test_graphs_replay_what_is_computed_without_them(tmp_path, micro, more):
    found = {}
    for graphs in (True, False):
        folder = tmp_path / str(graphs)
        train_in(configure(*micro, *more, "trainer=auto", f"cuda_graphs={graphs}", "logger=csv"), folder)
        found[graphs] = metrics(folder)[["train/loss", "train/grad_norm", "val/loss"]]
    pd.testing.assert_frame_equal(found[True], found[False], rtol=0.03)


def test_graphs_are_for_one_gpu_and_steps_that_are_alike(build):
    there, here = (SingleDeviceStrategy(torch.device(kind)) for kind in ("cuda", "cpu"))
    net = build("model=micro")
    assert can_be_graphs(net, there)
    assert not can_be_graphs(net, here)
    assert not can_be_graphs(net, Averaged())
    assert can_be_graphs(build("model=micro", "embed=flexi"), there)
    assert not can_be_graphs(build("model=micro", "embed=flexi", "embed.train_patches=[8,16]"), there)


def test_graphs_without_a_gpu_are_refused(tmp_path, micro):
    with pytest.raises(Refused, match=r"cuda_graphs=true.*cuda_graphs=auto"):
        train_in(configure(*micro, "trainer=cpu", "cuda_graphs=true", "logger=none"), tmp_path)


@pytest.fixture
def graphs(traceable, monkeypatch) -> list[object]:
    """The graphs that `compile_blocks` makes; they run without being compiled."""
    made: list[object] = []
    as_it_is = torch.nn.Module.compile
    backend = lambda graph, _: made.append(graph) or graph  # noqa: E731
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: as_it_is(self, backend=backend, fullgraph=True))
    torch.compiler.reset()
    return made


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("drop_path", [0.0, 0.2])
def test_a_block_has_four_graphs_at_most_over_the_life_of_a_run(build, graphs, drop_path, precision):
    """The graphs are of training, of the last and smaller batch, of evaluation, and of another size of images."""
    net = build("model=micro", "model.depth=12", "pos=learned", f"model.drop_path={drop_path}")
    compile_blocks(net)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
        for _ in range(2):  # epochs
            net.train()
            for size in (8, 8, 8):
                net(torch.randn(size, 3, 64, 64)).sum().backward()
            net.eval()
            for size in (8, 8, 3):
                with torch.inference_mode():
                    net(torch.randn(size, 3, 64, 64))
        for side in (96, 48, 64):
            with torch.inference_mode():
                net(torch.randn(4, 3, side, side))
    assert 2 <= len(graphs) <= 4


def test_ddp_leaves_the_graph_of_a_block_whole(build, graphs, tmp_path):
    net = build("model=small", "model.depth=2")
    compile_blocks(net)
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/store", world_size=1, rank=0)
    try:
        parallel = torch.nn.parallel.DistributedDataParallel(net)
        parallel(torch.randn(2, 3, 64, 64)).sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    assert len(graphs) == 1


@pytest.mark.parametrize("pos", some([p for p in SCHEMES if p != "none"], "rope_mixed", "relbias_mlp", "peg"))
def test_what_a_scheme_adds_to_a_block_is_one_graph_at_every_size(build, traceable, pos):
    torch.compiler.reset()
    graphs = []
    net = build("model=micro", f"pos={pos}", "patch=16")
    for part in (*net.rotation, *net.bias):
        part.compile(backend=lambda graph, _: graphs.append(graph) or graph, fullgraph=True)
    net.train()(torch.randn(2, 3, 64, 64)).sum().backward()
    for size in ((64, 64), (96, 96), (48, 48), (64, 96)):
        with torch.no_grad():
            net.eval()(torch.randn(2, 3, *size))
    assert len(graphs) <= 6 * bool(len(net.rotation) + len(net.bias)), "training, evaluation, other sizes, not square"


class Device(TorchDispatchMode):
    """Take batches and parameters for tensors of a device, and all that is made of them; list what reads them."""

    READS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal", "allclose", "bincount")
    READS += ("repeat_interleave",)
    METHODS = ("tolist", "numpy", "cpu", "__array__")  # which copy nothing on a CPU, so no operation shows them

    def __init__(self) -> None:
        super().__init__()
        self.on_device = WeakTensorKeyDictionary()
        self.reads: list[str] = []
        self.methods = pytest.MonkeyPatch()

    def __enter__(self):
        for name in self.METHODS:
            self.methods.setattr(Tensor, name, self.noted(name, getattr(Tensor, name)))
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self.methods.undo()

    def noted(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def called(tensor: Tensor, *arguments: Any, **options: Any) -> Any:
            if tensor in self.on_device:
                self.note(name)
            return method(tensor, *arguments, **options)

        return called

    def put(self, tensors: object) -> None:
        for tensor in tree_leaves(tensors):
            if isinstance(tensor, Tensor):
                self.on_device[tensor] = True

    def note(self, name: object) -> None:
        calls = "".join(traceback.format_stack()[:-2])
        if "F.one_hot" not in calls:  # it checks its labels on a CPU alone
            self.reads.append(f"{name} in {calls}")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        placed = [x for x in tensors if x in self.on_device]
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put_") and any(x.dtype == torch.bool for x in placed)
        to_host = name == "copy_" and args[0] not in self.on_device
        if placed and (name in self.READS or by_mask or to_host):
            self.note(func)
        result = func(*args, **(kwargs or {}))
        if placed and not to_host:
            self.put(result)
        return result


@pytest.mark.parametrize(
    "read",
    [
        lambda t: t[0].item(),
        lambda t: bool(t.sum() > 0),
        lambda t: t.tolist(),
        lambda t: t.cpu(),
        lambda t: (t * 2).numpy(),
        lambda t: t[t > 0],
        lambda t: torch.allclose(t, t),
        lambda t: torch.zeros(4).copy_(t),
    ],
)
def test_the_test_below_sees_every_kind_of_read(read):
    device, tensor = Device(), torch.ones(4)
    device.put(tensor)
    with device:
        (tensor * 2 + tensor[tensor.long()]).clone()
        assert device.reads == []
        read(tensor)
    assert len(device.reads) >= 1


@pytest.mark.parametrize("logger", ["none", slow("wandb")])
@pytest.mark.parametrize("augment", some(options("augment"), "deit"))
def test_no_step_waits_for_the_device_at_a_terminal_either(tmp_path, micro, augment, logger, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("WANDB_MODE", "offline")
    device, steps = Device(), []
    transfer, augmented = Batches.transfer_batch_to_device, Batches.on_after_batch_transfer

    def arrives(self, batch, *rest):
        arrived = transfer(self, batch, *rest)
        device.put(arrived[:2])
        return arrived

    def ready(self, batch, index):
        with device:
            return augmented(self, batch, index)

    class Open(pl.Callback):
        def on_train_batch_start(self, trainer, task, *_):
            if trainer.current_epoch == 1:
                device.put([*task.parameters(), *task.buffers(), *trainer.callback_metrics.values()])
                steps.append(device.__enter__())

    class Close(pl.Callback):
        def on_train_batch_end(self, trainer, task, *_):
            if trainer.current_epoch == 1:
                device.__exit__(None, None, None)

    monkeypatch.setattr(Batches, "transfer_batch_to_device", arrives)
    monkeypatch.setattr(Batches, "on_after_batch_transfer", ready)
    command = [*micro, f"augment={augment}", "trainer=cpu", f"logger={logger}", "limit_batches=6", "log_every=100"]
    cfg = configure(*command)
    made = prepare(cfg, origin_of(cfg, cfg.hydra.runtime.choices), tmp_path, anew=False, in_sweep=False)
    made.trainer.callbacks = [Open(), *made.trainer.callbacks, Close()]
    with ExitStack() as stack:
        costs = made.draft.cost
        made.trainer.loggers = start_loggers(cfg, made.origin, costs, tmp_path, stack, resume=False)
        made.trainer.fit(made.task, made.data)
    assert len(steps) == 6
    assert device.reads == []


def test_augmentation_sends_little_to_the_device():
    """CUDA copies up to 64 KiB of memory that is not pinned without waiting for the device."""
    sent = []

    class Copies(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor) and result.is_meta and args and not getattr(args[0], "is_meta", True):
                sent.append(result.nbytes)
            return result

    images = torch.empty(1024, 3, 224, 224, dtype=torch.uint8, device="meta")
    with Copies():
        shift_images(images, torch.zeros(1024, 2, dtype=torch.int64), torch.zeros(1024, dtype=torch.bool), "reflect")
    assert sent
    assert max(sent) < 2**16
