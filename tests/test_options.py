"""Every file under conf/, with no list to keep."""

import itertools
import re

import pytest
import torch
from conftest import CONF, configure, options
from hydra.utils import instantiate
from omegaconf import OmegaConf
from timm.layers import apply_rot_embed_cat

from patchbench.commands.build import build_net, build_source
from patchbench.config.command import run_name
from patchbench.config.identity import reads
from patchbench.layout import Layout
from patchbench.nets.cost import cost, memory
from patchbench.nets.vit import PLACES, Position

SCHEMES = [name for name in options("pos") if name != "none"]
MIXES_PATCHES = {"overlap", "overlap_sum", "overlap_patch", "overlap_stack", "stem", "spt", "hybrid"}


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: path.stem)
def test_says_in_its_first_line_what_it_is(path):
    lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
    assert lines[0].startswith("# ")


@pytest.mark.parametrize("name", SCHEMES)
def test_scheme_is_filed_under_its_own_name(name):
    assert (CONF / "pos" / f"{name}.yaml").read_text().startswith(f"# @package pos.{name}\n")


@pytest.mark.parametrize("group", ["embed", "pos", "model", "data", "optim", "budget", "trainer", "logger"])
def test_every_option_composes(group):
    for option in options(group):
        cfg = configure(f"{group}={option}")
        assert "hydra" not in cfg[group]


@pytest.mark.parametrize("embed", options("embed"))
@pytest.mark.parametrize("pos", options("pos"))
@pytest.mark.parametrize(
    "prefix", ["num_prefix_tokens=0 pool=mean", "num_prefix_tokens=1 pool=cls", "num_prefix_tokens=5 pool=mean"]
)
def test_every_parameter_learns_on_a_grid_that_is_not_square(build, embed, pos, prefix):
    model = [f"model.{knob}" for knob in prefix.split()]
    net = build(f"embed={embed}", f"pos={pos}", "model=micro", "data.img_size=[16,24]", "patch=[4,8]", *model)
    logits = net(torch.randn(2, 3, 16, 24))
    assert logits.shape == (2, 10)
    logits.square().sum().backward()
    # The class token attends without bias, and pool=cls reads nothing else of the last block.
    unread = ("bias.1.",) if "cls" in prefix else ()
    parameters = [(name, p) for name, p in net.named_parameters() if p.numel() and not name.startswith(unread)]
    assert [name for name, p in parameters if p.grad is None or not p.grad.any()] == []


@torch.no_grad()
def speak_up(net: torch.nn.Module) -> None:
    """Positions start small, and attention near uniform: in some schemes too small for a test to hear."""
    for name, p in net.named_parameters():
        if name.startswith(PLACES):
            p.add_(torch.randn_like(p))
        elif "qkv" in name:
            p.mul_(10)


def shuffle_patches(images: torch.Tensor, patch: int) -> torch.Tensor:
    patches = images.unfold(2, patch, patch).unfold(3, patch, patch)
    rows, cols = patches.shape[2:4]
    order = torch.randperm(rows * cols)
    patches = patches.flatten(2, 3)[:, :, order].unflatten(2, (rows, cols))
    return patches.transpose(3, 4).flatten(4, 5).flatten(2, 3)


def sees_the_order_of_patches(net: torch.nn.Module) -> bool:
    images = torch.randn(2, 3, 32, 32)
    shuffled = shuffle_patches(images, 8)
    assert not torch.equal(images, shuffled)
    return not torch.allclose(net.eval()(images), net(shuffled), atol=1e-5)


@pytest.mark.parametrize("embed", ["conv", "linear"])
@pytest.mark.parametrize("pos", options("pos"))
@pytest.mark.parametrize("pool", ["num_prefix_tokens=0 pool=mean", "num_prefix_tokens=1 pool=cls"])
def test_only_without_position_is_the_order_of_patches_invisible(build, embed, pos, pool):
    torch.manual_seed(0)
    knobs = [f"model.{knob}" for knob in pool.split()]
    net = build(f"embed={embed}", f"pos={pos}", "patch=8", "model=micro", "data.img_size=32", *knobs)
    speak_up(net)
    assert sees_the_order_of_patches(net) == (pos != "none")


@pytest.mark.parametrize("embed", options("embed"))
def test_only_an_embedding_that_mixes_patches_sees_their_order(build, embed):
    torch.manual_seed(0)
    net = build(f"embed={embed}", "pos=none", "patch=8", "model=micro", "data.img_size=32")
    assert sees_the_order_of_patches(net) == (embed in MIXES_PATCHES)


@pytest.mark.parametrize("pos", options("pos"))
def test_accepts_a_larger_grid_than_it_was_built_for(build, pos):
    net = build(f"pos={pos}", "patch=8", "model=micro", "data.img_size=32")
    assert net(torch.randn(1, 3, 48, 64)).shape == (1, 10)


def resizable() -> list[tuple[str, str]]:
    """Schemes that may take a new grid in two ways, and the place of the knob."""
    trees = {name: configure(f"pos={name}").pos[name] for name in SCHEMES}
    return [(name, place) for name, tree in trees.items() for place in PLACES if "resize" in tree.get(place, {})]


@pytest.mark.parametrize(("name", "place"), resizable())
def test_how_a_grid_is_resized_matters_on_another_grid_alone(build, name, place):
    def logits(resize: str, images: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        net = build(f"pos={name}", f"pos.{name}.{place}.resize={resize}", "patch=8", "model=micro", "data.img_size=32")
        speak_up(net)
        return net.eval()(images)

    for size, same in {(32, 32): True, (64, 48): False, (24, 32): False}.items():
        images = torch.randn(2, 3, *size)
        assert torch.allclose(logits("interpolate", images), logits("extrapolate", images), atol=1e-5) == same


@pytest.mark.parametrize(("name", "place"), resizable())
def test_refuses_an_unknown_way_to_resize(build, name, place):
    with pytest.raises(ValueError, match=rf"pos\.{name}\.{place}\.resize=crop is unknown: use interpolate or extra"):
        build(f"pos={name}", f"pos.{name}.{place}.resize=crop", "model=micro")


@pytest.mark.parametrize("name", SCHEMES)
def test_refuses_a_number_that_cannot_be(build, name):
    tree = OmegaConf.to_container(configure(f"pos={name}").pos[name])
    knobs = [(f"pos.{name}.{place}.{k}", v) for place in PLACES for k, v in tree.get(place, {}).items() if k[0] != "_"]
    for knob, value in knobs:
        if isinstance(value, int | float):
            with pytest.raises(ValueError, match=f"^{re.escape(knob)}=.* must be a number above 0$"):
                build("model=micro", f"pos={name}", f"{knob}={type(value)(0)}")


def fill(name: str) -> Position:
    return instantiate(configure(f"pos={name}").pos[name])


@pytest.mark.parametrize("grid_size", [(4, 5), (6, 9)])
@pytest.mark.parametrize("name", [name for name in SCHEMES if fill(name).bias or fill(name).rotation])
def test_attention_knows_displacement_and_not_place(name, grid_size):
    """What a scheme does inside attention to a pair of places moves along with the pair."""
    scheme, layout = fill(name), Layout((4, 5), 48, 3)
    if scheme.bias is not None:
        shift = scheme.bias(layout)(grid_size)
    else:
        rope = scheme.rotation(layout)(grid_size)
        q, k = (apply_rot_embed_cat(torch.randn(16).expand(3, rope.shape[-2], 16), rope) for _ in range(2))
        shift = q @ k.mT
    shift = shift.unflatten(2, grid_size).unflatten(1, grid_size)
    torch.testing.assert_close(shift[:, 1:, 2:, 1:, 2:], shift[:, :-1, :-2, :-1, :-2], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(shift[:, 0, 0, 0, 1], shift[:, 0, 0, 0, 3])
    assert not torch.allclose(shift[:, 0, 0, 1, 0], shift[:, 0, 0, 3, 0])


@pytest.mark.parametrize("name", [name for name in SCHEMES if "per_layer" in configure(f"pos={name}").pos[name]])
def test_a_scheme_is_every_blocks_own_or_shared(build, name):
    [place] = [place for place in PLACES if getattr(fill(name), place) is not None]
    arguments = [f"pos={name}", "model=micro", "model.depth=4"] + (["pos.peg.after=[0,2,3]"] if name == "peg" else [])
    calls: list[int] = []
    for per_layer, number in {"true": 3 if name == "peg" else 4, "false": 1}.items():
        net = build(*arguments, f"pos.{name}.per_layer={per_layer}")
        parts = getattr(net, place)
        assert len(parts) == number
        calls.clear()
        for i, part in enumerate(parts):
            part.register_forward_hook(lambda *_, i=i: calls.append(i))
        net(torch.randn(1, 3, 64, 64))
        shared_peg = name == "peg" and per_layer == "false"
        assert calls == ([0, 0, 0] if shared_peg else list(range(number))), "computed once in a forward pass"
    assert net.no_weight_decay() >= {key for key, _ in net.named_parameters() if key.startswith(place)}


@pytest.mark.parametrize("embed", options("embed"))
def test_embedding_accepts_larger_images_than_it_was_built_for(build, embed):
    net = build(f"embed={embed}", "pos=none", "patch=8", "model=micro", "data.img_size=32")
    assert net(torch.randn(2, 3, 48, 64)).shape == (2, 10)
    tokens = net.embed(torch.randn(2, 3, 32, 32))
    assert tokens.shape[1:3] == net.embed.grid_size


@pytest.mark.parametrize("embed", options("embed"))
def test_cost_of_an_embedding_is_counted_without_computing_it(embed):
    cfg = configure(f"embed={embed}", "patch=8", "model=micro", "data.img_size=[32,48]")
    with torch.device("meta"):
        net = build_net(cfg, build_source(cfg))
    counted = cost(net, net.layout, 3, (32, 48))
    assert counted.grid_size == net.embed.grid_size
    assert counted.macs > 0
    assert net.training
    assert net.embed(torch.empty(2, 3, 32, 48, device="meta")).shape[1:3] == counted.grid_size


def test_combinations_are_free_where_places_differ_and_refused_where_they_do_not(build):
    filled = {name: {place for place in PLACES if getattr(fill(name), place) is not None} for name in SCHEMES}
    for one, other in itertools.combinations(SCHEMES, 2):
        arguments = [f"pos=[{one},{other}]", "model=micro"]
        if filled[one] & filled[other]:
            with pytest.raises(ValueError, match=f"{one} and {other} both fill"):
                build(*arguments)
        else:
            assert build(*arguments)(torch.randn(1, 3, 64, 64)).shape == (1, 10)


@pytest.mark.parametrize("embed", options("embed"))
@pytest.mark.parametrize("pos", options("pos"))
def test_equal_seeds_start_every_arm_from_an_equal_trunk(build, embed, pos):
    def trunk(*overrides: str) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        state = build("model=micro", "model.num_prefix_tokens=1", *overrides).state_dict()
        return {name: w for name, w in state.items() if name.split(".")[0] in ("blocks", "norm", "head", "prefix")}

    torch.testing.assert_close(trunk(f"embed={embed}", f"pos={pos}"), trunk("embed=conv", "pos=none"), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("embed", "pos"),
    [
        *((embed, "none") for embed in options("embed")),
        *(("conv", pos) for pos in [*SCHEMES, "[learned,rope,relbias,peg]"]),
    ],
)
def test_compiles_as_one_graph_and_runs_in_bf16(build, embed, pos):
    import jaxtyping

    torch.compiler.reset()  # the limit of recompilations counts over tests
    jaxtyping.config.update("jaxtyping_disable", True)  # the run-time shape checks are not traceable
    try:
        net = build(f"embed={embed}", f"pos={pos}", "model=micro", "model.num_prefix_tokens=1")
        compiled = torch.compile(net, backend="eager", fullgraph=True)
        with torch.autocast("cpu", torch.bfloat16):
            logits = compiled(torch.randn(2, 3, 64, 64))
        assert logits.isfinite().all()
        logits.float().sum().backward()
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize(
    "arguments",
    [["embed=hybrid", "data.img_size=16"], ["embed=flexi", "patch=8", "embed.train_patches=[4,8,16]"]],
    ids=["one place and a batch norm", "patch drawn in training"],
)
def test_memory_is_estimated_of_what_one_image_cannot_train(arguments):
    cfg = configure(*arguments, "model=micro")
    source = build_source(cfg)
    with torch.device("meta"):
        net = build_net(cfg, source)
    held = memory(net, net.layout, 3, source.img_size, bf16=False)
    assert min(held.per_image, held.weights) > 0
    assert net.training


@pytest.mark.parametrize("embed", options("embed"))
def test_patch_is_part_of_a_run_where_the_grid_follows_it(build, embed):
    grids = {build(f"embed={embed}", f"patch={patch}", "model=micro").embed.grid_size for patch in (8, 16)}
    assert (len(grids) > 1) == reads(configure(f"embed={embed}"), "patch")


def test_identity_is_what_is_compared_and_nothing_else():
    def name(*overrides: str) -> str:
        cfg = configure(*overrides)
        return run_name(_root_=cfg)

    assert name() == name(
        "trainer=ddp", "logger=none", "workers=3", "log_every=7", "data_dir=/elsewhere", "allow_cost=true"
    )
    assert name() == name("trainer.accumulate=2") == name("trainer.micro_batch=auto", "max_gmacs=1")
    assert name("pos=[learned,rope]") == name("pos=[rope,learned]")
    assert name("embed=overlap", "patch=4") == name("embed=overlap", "patch=8"), "overlap does not read patch"
    different = [
        "seed=1",
        "patch=8",
        "embed=linear",
        "pos=none",
        "epochs=3",
        "optim.lr=1",
        "embed.pad=true",
        "model.init_from=vit_tiny_patch16_224",
        "trainer=fast",
    ]
    assert len({name(), *(name(change) for change in different)}) == 1 + len(different)
    assert name("patch=[8,16]").startswith("conv-8x16_learned_digits_s0_")
