"""Every file under conf/, with no list to keep."""

import itertools

import pytest
import torch
from conftest import CONF, configure, options
from hydra.utils import instantiate

from patchbench.command import run_dir
from patchbench.vit import Position

SCHEMES = [name for name in options("pos") if name != "none"]


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: path.stem)
def test_says_in_its_first_line_what_it_is(path):
    lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
    assert lines[0].startswith("# ")


@pytest.mark.parametrize("name", SCHEMES)
def test_scheme_is_filed_under_its_own_name(name):
    assert (CONF / "pos" / f"{name}.yaml").read_text().startswith(f"# @package pos.{name}\n")


@pytest.mark.parametrize("group", ["embed", "pos", "model", "data", "optim", "trainer", "logger"])
def test_every_option_composes(group):
    for option in options(group):
        cfg = configure(f"{group}={option}")
        assert not {"name", "hydra"} & set(cfg[group])


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
    assert [name for name, p in net.named_parameters() if p.numel() and (p.grad is None or not p.grad.any())] == []


def shuffle_patches(images: torch.Tensor, patch: int) -> torch.Tensor:
    patches = images.unfold(2, patch, patch).unfold(3, patch, patch)
    rows, cols = patches.shape[2:4]
    order = torch.randperm(rows * cols)
    patches = patches.flatten(2, 3)[:, :, order].unflatten(2, (rows, cols))
    return patches.transpose(3, 4).flatten(4, 5).flatten(2, 3)


@pytest.mark.parametrize("embed", ["conv", "linear"])
@pytest.mark.parametrize("pos", options("pos"))
@pytest.mark.parametrize("pool", ["num_prefix_tokens=0 pool=mean", "num_prefix_tokens=1 pool=cls"])
def test_only_without_position_is_the_order_of_patches_invisible(build, embed, pos, pool):
    torch.manual_seed(0)
    knobs = [f"model.{knob}" for knob in pool.split()]
    net = build(f"embed={embed}", f"pos={pos}", "patch=8", "model=micro", "data.img_size=32", *knobs).eval()
    images = torch.randn(2, 3, 32, 32)
    shuffled = shuffle_patches(images, 8)
    assert not torch.equal(images, shuffled)
    assert torch.allclose(net(images), net(shuffled), atol=1e-5) == (pos == "none")


@pytest.mark.parametrize("pos", options("pos"))
def test_accepts_a_larger_grid_than_it_was_built_for(build, pos):
    net = build(f"pos={pos}", "patch=8", "model=micro", "data.img_size=32")
    assert net(torch.randn(1, 3, 48, 64)).shape == (1, 10)


def test_combinations_are_free_where_places_differ_and_refused_where_they_do_not(build):
    filled = {name: {place for place, v in vars(fill(name)).items() if v is not None} for name in SCHEMES}
    for one, other in itertools.combinations(SCHEMES, 2):
        arguments = [f"pos=[{one},{other}]", "model=micro"]
        if filled[one] & filled[other]:
            with pytest.raises(ValueError, match=f"{one} and {other} both fill"):
                build(*arguments)
        else:
            assert build(*arguments)(torch.randn(1, 3, 64, 64)).shape == (1, 10)


def fill(name: str) -> Position:
    return instantiate(configure(f"pos={name}").pos[name])


@pytest.mark.parametrize("embed", options("embed"))
@pytest.mark.parametrize("pos", options("pos"))
def test_equal_seeds_start_every_arm_from_an_equal_trunk(build, embed, pos):
    def trunk(*overrides: str) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        state = build("model=micro", "model.num_prefix_tokens=1", *overrides).state_dict()
        return {name: w for name, w in state.items() if name.split(".")[0] in ("blocks", "norm", "head", "prefix")}

    torch.testing.assert_close(trunk(f"embed={embed}", f"pos={pos}"), trunk("embed=conv", "pos=none"), rtol=0, atol=0)


@pytest.mark.parametrize("pos", ["none", "[learned,rope]", "sincos"])
def test_compiles_as_one_graph_and_runs_in_bf16(build, pos):
    import jaxtyping

    jaxtyping.config.update("jaxtyping_disable", True)  # the run-time shape checks are not traceable
    try:
        net = build(f"pos={pos}", "model=micro", "model.num_prefix_tokens=1")
        compiled = torch.compile(net, backend="eager", fullgraph=True)
        with torch.autocast("cpu", torch.bfloat16):
            assert compiled(torch.randn(2, 3, 64, 64)).isfinite().all()
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_identity_is_what_is_compared_and_nothing_else():
    def name(*overrides: str) -> str:
        cfg = configure(*overrides)
        return run_dir(_root_=cfg)

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
    assert name("patch=[8,16]").startswith("runs/conv-8x16_learned_digits_s0_")
