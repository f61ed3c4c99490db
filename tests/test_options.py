"""Every file under conf/, with no list to keep."""

import itertools
import re
from collections.abc import Sequence

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from support import CONF, composed_once, configure, every, options, shuffle_patches, some
from timm.layers import apply_rot_embed_cat
from torch.utils.flop_counter import FlopCounterMode

from patchbench.commands.build import build_net, build_source
from patchbench.config.identity import reads
from patchbench.config.names import run_name
from patchbench.layout import PLACES, Layout
from patchbench.nets.cost import cost
from patchbench.nets.memory import memory
from patchbench.nets.vit import Position

SCHEMES = [name for name in options("pos") if name != "none"]
TREES = {name: OmegaConf.load(CONF / "pos" / f"{name}.yaml") for name in SCHEMES}  # as written: nothing is composed
PLACES_OF = {name: [place for place in PLACES if place in tree] for name, tree in TREES.items()}
PREFIXES = ["num_prefix_tokens=0 pool=mean", "num_prefix_tokens=1 pool=cls", "num_prefix_tokens=5 pool=mean"]
PAIRS = [
    pytest.param(embed, pos, PREFIXES[(i + j) % 3], id=f"{embed}-{pos}")
    for i, embed in enumerate(options("embed"))
    for j, pos in enumerate(options("pos"))
]  # each embedding with each scheme, each embedding with each prefix, each scheme with each prefix


def together(embed: str, schemes: Sequence[str], *overrides: str) -> DictConfig:
    """The configuration of `embed=<embed> pos=<schemes> <overrides>`, from options that are composed once for all."""
    cfg = configure(*overrides)
    cfg.embed = composed_once("train", f"embed={embed}").embed
    cfg.pos = {name: tree for pos in schemes for name, tree in composed_once("train", f"pos={pos}").pos.items()}
    return cfg


def network(embed: str, pos: str, *overrides: str, **knobs: object) -> torch.nn.Module:
    cfg = together(embed, pos.strip("[]").split(","), *overrides)
    for knob, value in knobs.items():
        OmegaConf.update(cfg, knob, value)
    return build_net(cfg, build_source(cfg))


@pytest.mark.parametrize("number", every(range(max(len(options("embed")), len(options("pos")))), 3))
def test_an_option_composes_to_the_same_beside_others(number):
    """The premise of `together`."""
    embed = options("embed")[number % len(options("embed"))]
    pair = [SCHEMES[number % len(SCHEMES)], SCHEMES[(number + 1 + number // len(SCHEMES)) % len(SCHEMES)]]
    expected = configure(f"embed={embed}", f"pos=[{','.join(pair)}]", "model=micro", "patch=8")
    cfg = together(embed, pair, "model=micro", "patch=8")
    for each in (cfg, expected):
        del each.hydra  # records the command line
    assert OmegaConf.to_container(cfg) == OmegaConf.to_container(expected)


def test_pairs_meet_every_prefix():
    triples = [param.values for param in PAIRS]
    for first, second, third in itertools.permutations(range(3)):
        pairs = {(triple[first], triple[second]) for triple in triples}
        assert len(pairs) == len({one for one, _ in pairs}) * len({other for _, other in pairs}), third


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


@pytest.mark.parametrize(("embed", "pos", "prefix"), every(PAIRS, 3))
def test_every_parameter_learns_on_a_grid_that_is_not_square(embed, pos, prefix):
    model = [f"model.{knob}" for knob in prefix.split()]
    net = network(embed, pos, "model=micro", "data.img_size=[16,24]", "patch=[4,8]", *model)
    logits = net(torch.randn(2, 3, 16, 24))
    assert logits.shape == (2, 10)
    logits.square().sum().backward()
    # The class token attends without bias, and pool=cls reads nothing else of the last block.
    unread = ("bias.1.",) if "cls" in prefix else ()
    parameters = [(name, p) for name, p in net.named_parameters() if p.numel() and not name.startswith(unread)]
    assert [name for name, p in parameters if p.grad is None or not p.grad.any()] == []


@torch.no_grad()
def enlarge_position(net: torch.nn.Module) -> None:
    """Enlarge positions and sharpen attention: both start so small that a test could miss the effect of a scheme."""
    for name, p in net.named_parameters():
        if name.startswith(PLACES):
            p.add_(torch.randn_like(p))
        elif "qkv" in name:
            p.mul_(10)


def sees_the_order_of_patches(net: torch.nn.Module) -> bool:
    images = torch.randn(2, 3, 32, 32)
    shuffled = shuffle_patches(images, 8)
    assert not torch.equal(images, shuffled)
    return not torch.allclose(net.eval()(images), net(shuffled), atol=1e-5)


@pytest.mark.parametrize("embed", ["conv", "linear"])
@pytest.mark.parametrize("pos", options("pos"))
@pytest.mark.parametrize("pool", PREFIXES[:2])
def test_only_without_position_is_the_order_of_patches_invisible(embed, pos, pool):
    torch.manual_seed(0)
    knobs = [f"model.{knob}" for knob in pool.split()]
    net = network(embed, pos, "patch=8", "model=micro", "data.img_size=32", *knobs)
    enlarge_position(net)
    assert sees_the_order_of_patches(net) == (pos != "none")


@torch.no_grad()
def mixes_patches(embed: torch.nn.Module) -> bool:
    """Measure whether any token depends on pixels of two patches of 8, in images of 32: change one patch at a time."""
    image = torch.randn(3, 4, 8, 4, 8)
    images = image.repeat(17, 1, 1, 1, 1, 1)
    for number in range(16):
        images[number, :, number // 4, :, number % 4] += torch.randn(3, 8, 8)
    tokens = embed.eval()(images.flatten(4, 5).flatten(2, 3)).flatten(1, 2)
    depends = ((tokens[:16] - tokens[16]).abs() > 1e-5).any(-1)
    assert depends.any(0).all(), "every token depends on some patch"
    return bool((depends.sum(0) > 1).any())


@pytest.mark.parametrize("embed", options("embed"))
def test_only_an_embedding_that_mixes_patches_sees_their_order(embed):
    torch.manual_seed(0)
    net = network(embed, "none", "patch=8", "model=micro", "data.img_size=32")
    assert sees_the_order_of_patches(net) == mixes_patches(net.embed)


@pytest.mark.parametrize(
    ("embed", "mixes"),
    [("conv", False), ("hmlp", False), ("pixel", False), ("overlap_patch", True), ("spt", True), ("hybrid", True)],
)
def test_mixing_is_measured_where_it_is_known(embed, mixes):
    net = network(embed, "none", "patch=8", "model=micro", "data.img_size=32")
    assert mixes_patches(net.embed) == mixes


@pytest.mark.parametrize("pos", options("pos"))
def test_accepts_a_larger_grid_than_it_was_built_for(pos):
    net = network("conv", pos, "patch=8", "model=micro", "data.img_size=32")
    assert net(torch.randn(1, 3, 48, 64)).shape == (1, 10)


# Schemes that take a new grid in two ways, and the place of the knob.
RESIZABLE = [(name, place) for name, tree in TREES.items() for place in PLACES_OF[name] if "resize" in tree[place]]


@pytest.mark.parametrize(("name", "place"), RESIZABLE)
def test_how_a_grid_is_resized_matters_on_another_grid_alone(name, place):
    def logits(resize: str, images: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        knobs = {f"pos.{name}.{place}.resize": resize}
        net = network("conv", name, "patch=8", "model=micro", "data.img_size=32", **knobs)
        enlarge_position(net)
        return net.eval()(images)

    for size, same in {(32, 32): True, (64, 48): False, (24, 32): False}.items():
        images = torch.randn(2, 3, *size)
        assert torch.allclose(logits("interpolate", images), logits("extrapolate", images), atol=1e-5) == same


@pytest.mark.parametrize(("name", "place"), RESIZABLE)
def test_refuses_an_unknown_way_to_resize(name, place):
    with pytest.raises(ValueError, match=rf"pos\.{name}\.{place}\.resize=crop is unknown: use interpolate or extra"):
        network("conv", name, "model=micro", **{f"pos.{name}.{place}.resize": "crop"})


# Knobs of schemes whose default is a number above 0.
NUMBERS = [
    (name, f"pos.{name}.{place}.{knob}", type(value)(0))
    for name, tree in TREES.items()
    for place in PLACES_OF[name]
    for knob, value in tree[place].items()
    if isinstance(value, int | float) and value > 0 and value is not True
]


@pytest.mark.parametrize(("name", "knob", "zero"), NUMBERS, ids=[knob for _, knob, _ in NUMBERS])
def test_refuses_a_number_that_cannot_be(name, knob, zero):
    with pytest.raises(ValueError, match=f"^{re.escape(knob)}=.* must be a number above 0$"):
        network("conv", name, "model=micro", **{knob: zero})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("embed=bottleneck embed.width=0", "embed.width=0 keeps no value of a patch: use embed.width=1 or more"),
        ("embed=fixed embed.eps=-1.0", "embed.fit_images=1024 must be at least 1, and embed.eps=-1.0 not negative"),
        (
            "embed=overlap embed.stride=0",
            "embed.kernel_size=5 embed.stride=0 embed.padding=0 is no convolution: "
            "kernel_size and stride must be at least 1, padding at least 0",
        ),
        (
            "embed=flexi embed.base_patch=0",
            "embed.base_patch=0 is no size in pixels: give a whole number or [height,width], as in embed.base_patch=16",
        ),
        ("embed=luminance embed.standard=pal", "embed.standard=pal is unknown: use rec601 or rec709"),
        ("model=bag embed=luminance embed.standard=pal", "embed.standard=pal is unknown: use rec601 or rec709"),
        (
            "patch=5",
            "patch=5 does not cover data.img_size=64 exactly: use data.img_size=60 or data.img_size=65, "
            "or patch=1|2|4|8|16|32|64, or pad with embed.pad=true",
        ),
        ("pos.learned.tokens.std=0.0", "pos.learned.tokens.std=0.0 must be a number above 0"),
        (
            "pos=fourier pos.fourier.tokens.num_features=7",
            "pos.fourier.tokens.num_features=7 splits into sines and cosines: use an even number, "
            "such as pos.fourier.tokens.num_features=8",
        ),
        (
            "pos=peg pos.peg.after=[2]",
            "pos.peg.after=[2] must list some of the blocks 0 to 1 of model.depth=2, each once: "
            "use pos.peg.after=[0], or null for all but the last",
        ),
        (
            "pos=[learned,sincos]",
            "pos=[learned,sincos]: learned and sincos both fill the place 'tokens': choose one",
        ),
        (
            "pos=rope model.num_heads=8",
            "pos=rope splits head_dim=6 (model.embed_dim=48 / model.num_heads=8) into pairs of channels for two "
            "directions: use a multiple of 4, such as model.embed_dim=32",
        ),
        (
            "model.num_heads=5",
            "model.embed_dim=48 does not split into model.num_heads=5 equal heads: use model.embed_dim=45",
        ),
        ("model.pool=max", "model.pool=max is unknown: use mean or cls or map"),
        (
            "model.pool=cls",
            "model.pool=cls reads the class token, but model.num_prefix_tokens=0: "
            "use model.pool=mean, or model.num_prefix_tokens=1",
        ),
        ("residual=float16", "residual=float16 is unknown: use float32 or bfloat16"),
        ("model=bag residual=float16", "residual=float16 is unknown: use float32 or bfloat16"),
        ("model=bag model.depth=0", "model.embed_dim=48 and model.depth=0 must be at least 1"),
        (
            "model=cnn model.field=99",
            "model.field=99 is not possible: model.depth=4 convolutions of 3x3 without gaps see an odd number of "
            "pixels, from 9 to 81: use model.field=81 or model.depth=5",
        ),
        ("model=cnn model.norm=group", "model.norm=group is unknown: use batch, layer, none"),
        (
            "model=timm model.name=convnext_atto model.small=true",
            "model.small=true is for ResNets, and model.name=convnext_atto is a ConvNeXt: use model.small=false, "
            "and an option of this network if it has one, as in model.options={patch_size:2} of a ConvNeXt",
        ),
    ],
    ids=lambda value: value if "=" in value and " is " not in value else "",
)
def test_a_refusal_names_the_option_as_the_command_line_does(build, overrides, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        build("model=micro", "data.img_size=64", *overrides.split())


def fill(name: str) -> Position:
    return instantiate(configure(f"pos={name}").pos[name])


@pytest.mark.parametrize("grid_size", [(4, 5), (6, 9)])
@pytest.mark.parametrize("name", [name for name in SCHEMES if {"bias", "rotation"} & set(PLACES_OF[name])])
def test_attention_knows_displacement_and_not_place(name, grid_size):
    """The effect of a scheme inside attention on a pair of places moves along with the pair."""
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


@pytest.mark.parametrize(
    ("name", "place"),
    [(n, place) for n, tree in TREES.items() if "per_layer" in tree for place in PLACES_OF[n] if place != "tokens"],
)
def test_a_scheme_is_every_blocks_own_or_shared(name, place):
    knobs, blocks = ({f"pos.{name}.after": [0, 2, 3]}, 3) if place == "between" else ({}, 4)
    calls: list[int] = []
    for per_layer, number in {True: blocks, False: 1}.items():
        net = network("conv", name, "model=micro", "model.depth=4", **knobs, **{f"pos.{name}.per_layer": per_layer})
        parts = getattr(net, place)
        assert len(parts) == number
        calls.clear()
        for i, part in enumerate(parts):
            part.register_forward_hook(lambda *_, i=i: calls.append(i))
        net(torch.randn(1, 3, 64, 64))
        if place == "between":
            assert calls == ([0, 1, 2] if per_layer else [0, 0, 0]), "computed after each of the blocks"
        else:
            assert calls == list(range(number)), "computed once in a forward pass"
    assert net.no_weight_decay() >= {key for key, _ in net.named_parameters() if key.startswith(place)}


@pytest.mark.parametrize("embed", options("embed"))
def test_embedding_accepts_larger_images_than_it_was_built_for(embed):
    net = network(embed, "none", "patch=8", "model=micro", "data.img_size=32")
    assert net(torch.randn(2, 3, 48, 64)).shape == (2, 10)
    tokens = net.embed(torch.randn(2, 3, 32, 32))
    assert tokens.shape[1:3] == net.embed.grid_size


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("pos", options("pos"))
def test_a_scheme_has_the_type_of_its_network_on_every_grid(pos, dtype):
    net = network("conv", pos, "patch=8", "model=micro", "data.img_size=32").to(dtype)
    for img_size in ((32, 32), (24, 40)):
        logits = net(torch.randn(2, 3, *img_size, dtype=dtype))
        assert logits.dtype == dtype
        assert logits.isfinite().all()


@pytest.mark.filterwarnings("ignore")  # that a trace is for one size, and that torch has something newer
@pytest.mark.parametrize("embed", options("embed"))
def test_an_embedding_can_be_traced(embed):
    """Counters of FLOPs and exporters that are older than torch.export trace a network."""
    net = network(embed, "none", "patch=8", "model=micro", "data.img_size=32").eval()
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(torch.jit.trace(net, images)(images), net(images))


@pytest.mark.parametrize("embed", options("embed"))
def test_cost_of_an_embedding_is_counted_without_computing_it(embed):
    with torch.device("meta"):
        net = network(embed, "learned", "patch=8", "model=micro", "data.img_size=[32,48]")
    counted = cost(net, net.layout, 3, (32, 48))
    assert counted.grid_size == net.embed.grid_size
    assert counted.macs > 0
    assert net.training
    assert net.embed(torch.empty(2, 3, 32, 48, device="meta")).shape[1:3] == counted.grid_size


@pytest.mark.parametrize("embed", some(options("embed"), "conv", "overlap", "stem", "flexi"))
def test_a_batch_costs_what_its_images_cost_and_what_is_computed_once_a_step(embed):
    for pos in options("pos"):
        with torch.device("meta"):
            net = network(embed, pos, "patch=8", "model=micro", "data.img_size=[32,48]")
        counted = cost(net, net.layout, 3, (32, 48))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net.eval()(torch.empty(32, 3, 32, 48, device="meta"))
        assert 2 * (32 * counted.macs + counted.macs_per_step) == counter.get_total_flops(), pos
        once = embed == "flexi" or pos in ("relbias_mlp", "fourier")
        assert (counted.macs_per_step > 0) == once == ("model/gmacs_per_step" in counted.facts()), pos


def test_combinations_are_free_where_places_differ_and_refused_where_they_do_not():
    for one, other in itertools.combinations(SCHEMES, 2):
        if set(PLACES_OF[one]) & set(PLACES_OF[other]):
            with pytest.raises(ValueError, match=f"{one} and {other} both fill"):
                network("conv", f"[{one},{other}]", "model=micro")
        else:
            assert network("conv", f"[{one},{other}]", "model=micro")(torch.randn(1, 3, 64, 64)).shape == (1, 10)


def trunk(embed: str, pos: str, *overrides: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    state = network(embed, pos, "model=micro", "model.num_prefix_tokens=1", *overrides).state_dict()
    return {name: w for name, w in state.items() if name.split(".")[0] in ("blocks", "norm", "head", "prefix")}


@pytest.fixture(scope="module")
def plain_trunk() -> dict[str, torch.Tensor]:
    return trunk("conv", "none")


@pytest.mark.parametrize("embed", options("embed"))
@pytest.mark.parametrize("pos", options("pos"))
def test_equal_seeds_start_every_arm_from_an_equal_trunk(plain_trunk, embed, pos):
    torch.testing.assert_close(trunk(embed, pos), plain_trunk, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("embed", "pos"),
    some(
        [
            *((embed, "none") for embed in options("embed")),
            *(("conv", pos) for pos in [*SCHEMES, "[learned,rope,relbias,peg]"]),
        ],
        *((embed, "none") for embed in ("flexi", "overlap", "stem")),
        *(("conv", pos) for pos in ("learned", "peg", "relbias_mlp", "rope_mixed", "[learned,rope,relbias,peg]")),
    ),
)
def test_compiles_as_one_graph_and_runs_in_bf16(embed, pos):
    import jaxtyping

    torch.compiler.reset()  # the limit of recompilations counts over tests
    jaxtyping.config.update("jaxtyping_disable", True)  # the run-time shape checks are not traceable
    try:
        net = network(embed, pos, "model=micro", "model.num_prefix_tokens=1")
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
def test_patch_is_part_of_a_run_where_the_grid_follows_it(embed):
    grids = {network(embed, "learned", f"patch={patch}", "model=micro").embed.grid_size for patch in (8, 16)}
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
