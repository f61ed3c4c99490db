"""Benchmarks: sides that take turns, ratios, records that can be made again, and peers."""

import json
import runpy
import shlex
import statistics
import sys
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from support import MICRO, ROOT, configure, run
from timm.optim import create_optimizer_v2
from timm.utils import ParseKwargs

from patchbench.commands.bench import timm_train
from patchbench.commands.bench.bare import bare
from patchbench.commands.bench.evidence import Evidence
from patchbench.commands.bench.inference import Inference
from patchbench.commands.bench.rounds import interleaved, ratio, ratios, spread, summary
from patchbench.commands.bench.sides import Asked
from patchbench.commands.bench.training import trained
from patchbench.commands.benchmark import benchmark
from patchbench.commands.build import build_net, build_source
from patchbench.commands.gpu_evidence import items, rehearsed
from patchbench.config.errors import Refused
from patchbench.nets.cost import cost
from patchbench.nets.vit import ViT
from patchbench.weights.export import to_timm

SMALL = [each for each in MICRO if not each.startswith(("limit_batches", "log_every"))]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "benchmark.py"))


PEERS = {"bare": "a bare loop with the same network", "lightning": "Lightning alone with the same network"}


def measured(tmp_path: Path, *given: str, **options: Any) -> dict[str, Any]:
    """The record of a benchmark that is made in this process."""
    own = SCRIPT["KNOWN"] | {"rounds": 2, "steps": 4, "warmup": 2, "out": str(tmp_path / "out.json")} | options
    return json.loads(benchmark(own, [*SMALL, *given], ["typed"]).read_text())


@pytest.fixture(scope="module", params=PEERS)
def beside(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[str, Any]:
    return measured(tmp_path_factory.mktemp(request.param), peer=request.param)


def test_sides_take_turns_in_every_round():
    seen: list[str] = []

    def side(name: str) -> Any:
        return lambda: seen.append(name) or {"n": len(seen)}

    said: list[int] = []
    found = interleaved([side("a"), side("b")], 3, lambda number, rows: said.append(number))
    assert "".join(seen) == "ababab"
    assert [[row["n"] for row in rows] for rows in found] == [[1, 3, 5], [2, 4, 6]]
    assert all(row["others_cores"] >= 0 for rows in found for row in rows)
    assert said == [1, 2, 3]


def test_a_ratio_is_that_of_the_rounds_so_that_a_machine_that_slows_down_changes_nothing():
    speed = [1.0, 7.0, 2.0, 3.0, 1.5, 9.0, 4.0]
    found = ratio([1.1 * s for s in speed], speed)
    assert found.rounds == pytest.approx([1.1] * 7)
    assert (found.median, found.low, found.high, found.fastest) == pytest.approx((1.1,) * 4)


@pytest.mark.parametrize("count", [1, 5, 6, 9, 20])
def test_the_interval_holds_the_median_and_no_more_than_the_range(count):
    values = [float((7 * n) % 23) for n in range(count)]
    low, high = spread(values)
    assert min(values) <= low <= statistics.median(values) <= high <= max(values)
    assert (low, high) == (min(values), max(values)) or count > 6


def test_a_figure_that_a_side_lacks_has_no_ratio():
    rows = [{"a": 1.0, "b": 2.0}, {"a": 1.0}]
    assert ratios(rows, rows, ["a", "b", "c"]).keys() == {"a"}
    assert summary(rows, ["a", "b", "c"])["b"] == {"median": 2.0, "low": 2.0, "high": 2.0}


def test_a_record_holds_all_that_makes_it_again(beside):
    assert beside["command"] == "python scripts/benchmark.py typed"
    assert beside["settings"] | {"rounds": 2, "steps": 4, "warmup": 2} == beside["settings"]
    ours, peer = beside["sides"]
    assert peer["name"] == PEERS[beside["settings"]["peer"]]
    assert ours["overrides"] == SMALL
    assert ours["conditions"] == {
        "device": "cpu",
        "ranks": 1,
        "precision": "32-true",
        "residual": "float32",
        "compile": False,
    }
    assert {"versions", "commit", "machine"} <= beside["environment"].keys()
    assert beside["threads"] == torch.get_num_threads()
    assert [len(side["rounds"]) for side in (ours, peer)] == [2, 2]
    for name, found in beside["ratios"].items():
        pairs = zip(ours["rounds"], peer["rounds"], strict=True)
        assert found["rounds"] == [a[name] / b[name] for a, b in pairs]
    assert {"image_ms", "image_ms_wall", "image_cpu_ms"} == beside["ratios"].keys()


def test_figures_of_a_round_agree_with_each_other(beside):
    for side in beside["sides"]:
        for row in side["rounds"]:
            assert row["steps"] == 4
            assert row["image_ms"] * 32 == pytest.approx(row["step_ms_median"])
            assert row["images_per_s_wall"] * row["step_ms_wall"] / 1000 == pytest.approx(32)
            assert row["step_ms_p95"] >= row["step_ms_median"] > 0
            assert row["step_cpu_ms"] > 0
    ours = beside["sides"][0]["rounds"][0]
    assert ours["tokens_per_s"] == pytest.approx(16 * ours["images_per_s"])
    assert 0 <= ours["data_wait_frac"] < 1
    assert ours["cpu_rss_gib"] > 0


def test_the_table_says_what_the_framework_adds_and_the_page_has_a_row(beside, tmp_path, capsys):
    from patchbench.commands.bench.record import table

    lines = list(table(beside))
    [line] = [line for line in lines if line.startswith("framework overhead per training image")]
    assert f"{beside['ratios']['image_cpu_ms']['median'] - 1:+.1%} of CPU time" in line
    speeds = runpy.run_path(str(ROOT / "scripts" / "readme.py"))["speeds"]
    assert "no figure of speed is claimed here" in speeds([])
    row = speeds([beside]).splitlines()[2]
    peer = PEERS[beside["settings"]["peer"]]
    assert row.startswith(f"| training, micro conv/4 learned digits s0, 32 images a step | {peer} |")
    assert f"{beside['ratios']['image_cpu_ms']['median']:.3f}" in row


def test_a_warm_up_counts_for_nothing():
    figures = trained(SMALL, steps=3, warmup=7)
    assert figures["steps"] == 3
    rate = 3 * 32 / figures["images_per_s_wall"]
    assert figures["step_ms_wall"] == pytest.approx(1000 * rate / 3)
    assert figures["host_ms_median"] > 0
    assert "first_50_step_ms" not in figures


def test_a_bare_loop_trains_the_network_that_it_is_given():
    cfg = configure(*SMALL)
    net = build_net(cfg, build_source(cfg))
    before = {name: weight.detach().clone() for name, weight in net.named_parameters()}
    bare(SMALL, steps=2, warmup=1, net=net)
    assert net.training
    weights = {name: weight for name, weight in net.named_parameters() if weight.ndim > 1 and weight.numel()}
    assert not [name for name, weight in weights.items() if torch.equal(weight, before[name])]


@pytest.mark.slow
def test_another_configuration_is_measured_beside(tmp_path):
    record = measured(tmp_path, compare="embed=overlap pos=rope seed=1", rounds=1)
    one, other = record["sides"]
    assert other["name"] == "micro overlap rope digits s1"
    assert other["overrides"] == [*SMALL, "embed=overlap", "pos=rope", "seed=1"]
    assert one["tokens"] == 16
    assert other["tokens"] > 16
    assert len(record["ratios"]["image_ms"]["rounds"]) == 1


def test_sides_that_are_called_alike_are_told_apart(tmp_path):
    record = measured(tmp_path, compare="batch_size=16", rounds=1)
    assert [side["name"] for side in record["sides"]] == [
        "micro conv/4 learned digits s0",
        "micro conv/4 learned digits s0, batch_size=16",
    ]
    assert [side["rounds"][0]["batch_size"] for side in record["sides"]] == [32, 16]


def test_inference_changes_nothing_in_the_network():
    cfg = configure(*SMALL, "embed=stem")
    source = build_source(cfg)
    net = build_net(cfg, source)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    costs = cost(net, net.layout, source.in_chans, source.img_size)
    shape: Any = {"in_chans": 3, "img_size": (16, 16), "batch_size": 8, "device": torch.device("cpu"), "bf16": False}
    figures = Inference(net, costs, compiled=False, **shape).measure(steps=5, warmup=2)
    assert not net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items()), "batch norms too"
    assert all(p.grad is None for p in net.parameters())
    assert figures["latency_ms_p95"] >= figures["latency_ms_median"] > 0
    assert figures["tokens_per_s"] == pytest.approx(16 * figures["images_per_s"])
    expected = 2 * costs.macs * figures["images_per_s"] / 1e12
    assert figures["tflops_per_gpu"] == pytest.approx(expected, rel=0.01)


@pytest.mark.slow
def test_a_trained_run_answers_as_fast_as_it_does_and_is_that_run(tmp_path):
    done = run(tmp_path / "run", *SMALL, "epochs=1", "limit_batches=2")
    record = measured_run(tmp_path, tmp_path / "run", "batch_size=4")
    [side] = record["sides"]
    assert side["identity"] == done["identity"]
    assert (side["batch_size"], side["rounds"][0]["batch_size"]) == (4, 4)
    assert side["summary"]["latency_ms_median"]["median"] > 0
    best = tmp_path / "run" / "best.ckpt"
    assert measured_run(tmp_path, best)["sides"][0]["batch_size"] == 32, "that of training"
    run(tmp_path / "other", *SMALL, "epochs=1", "limit_batches=2", "seed=1")
    (tmp_path / "other" / "best.ckpt").replace(best)
    with pytest.raises(Refused, match="is of another run"):
        measured_run(tmp_path, tmp_path / "run")
    with pytest.raises(Refused, match="there is no such folder"):
        measured_run(tmp_path, tmp_path / "nowhere")
    with pytest.raises(Refused, match=r"holds no run\.json"):
        measured_run(tmp_path, tmp_path)


def measured_run(tmp_path: Path, path: Path, *given: str) -> dict[str, Any]:
    own = {"mode": "infer", "run": str(path), "rounds": 1, "steps": 3, "warmup": 1, "out": str(tmp_path / "infer.json")}
    return json.loads(benchmark(SCRIPT["KNOWN"] | own, ["trainer=cpu", *given], []).read_text())


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        (["patch=7"], {}, "data.img_size"),
        (["epochs=3"], {}, "epochs=3 is not read by a benchmark"),
        (["model=cnn", "embed=linear"], {}, "embed=linear is not read, because of model=cnn"),
        (["trainer.devices=2"], {}, "measures one device"),
        ([], {"compare": "budget=steps"}, "budget=steps is not read by a benchmark"),
        (["augment=light"], {"peer": "bare"}, "this peer augments nothing"),
        (["trainer.accumulate=2"], {"peer": "bare"}, "takes whole batches"),
        ([], {"peer": "timm"}, "peer=timm needs timm=<folder>"),
        ([], {"peer": "timm", "timm": "/nowhere"}, "timm=/nowhere holds no train.py"),
        ([], {"mode": "infer", "run": "/tmp"}, "model=micro is of the network"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is(tmp_path, given, options, said):
    with pytest.raises(Refused, match=said):
        measured(tmp_path, *given, **options)
    assert not list(tmp_path.iterdir())


def test_options_of_the_second_side_come_after_those_of_the_first():
    changed = Asked("a", ["embed=conv"]).changed("run=b batch_size=2")
    assert changed == Asked("b", ["embed=conv", "batch_size=2"])
    assert Asked(None, ["patch=4"]).changed("patch=8").overrides == ["patch=4", "patch=8"]


# --- timm's own train.py

DOCUMENTED = """
--data-dir --train-split --val-split --model --model-kwargs --gp --in-chans --num-classes --input-size --crop-pct
--mean --std --interpolation --batch-size --opt --opt-betas --opt-kwargs --momentum --weight-decay --clip-grad
--sched --sched-on-updates --lr --warmup-epochs --epochs --no-aug --scale --ratio --hflip --aa --reprob --mixup
--cutmix --train-interpolation --smoothing --drop --drop-path --seed --log-interval --checkpoint-hist --workers
--pin-mem --output --device --amp --amp-dtype --torchcompile
"""  # in timm 1.0.8 to 1.0.28
FOLDER = ["trainer=cpu", "model=micro", "data=imagefolder", "data.img_size=32", "patch=8", "data.val_size=0.25"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from PIL import Image

    root = tmp_path_factory.mktemp("pictures")
    for split, count in {"train": 8, "val": 4}.items():
        for label in ("a", "b"):
            (root / split / label).mkdir(parents=True)
            for number in range(count):
                Image.effect_noise((40, 40), 60).convert("RGB").save(root / split / label / f"{number}.png")
    return root


def parsed(flags: list[str]) -> Any:
    """Flags as timm's train.py reads those that make the network and the optimizer."""
    parser = ArgumentParser()
    parser.add_argument("--model")
    for name, kind in {"in-chans": int, "num-classes": int, "gp": str, "drop-path": float}.items():
        parser.add_argument(f"--{name}", type=kind)
    for name in ("lr", "weight-decay", "clip-grad", "momentum"):
        parser.add_argument(f"--{name}", type=float)
    parser.add_argument("--opt")
    parser.add_argument("--opt-betas", type=float, nargs="+")
    for name in ("model-kwargs", "opt-kwargs"):
        parser.add_argument(f"--{name}", nargs="*", default={}, action=ParseKwargs)
    return parser.parse_known_args(flags)[0]


def timms(flags: list[str]) -> torch.nn.Module:
    """The network that timm's train.py builds by these flags."""
    args = parsed(flags)
    shape = {"in_chans": args.in_chans, "num_classes": args.num_classes, "global_pool": args.gp}
    return timm.create_model(args.model, **shape, drop_path_rate=args.drop_path, **args.model_kwargs)


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["pos=none"],
        ["embed=linear", "model.num_prefix_tokens=1", "model.pool=cls"],
        ["model.num_prefix_tokens=3", "model.drop_path=0.1"],
        ["model.pool=map", "model.mlp_ratio=3.0"],
        ["model=tiny", "data.img_size=[32,48]", "patch=[8,16]"],
        ["model=convnext"],
        ["model=timm", "model.name=vit_tiny_patch16_224"],
    ],
)
def test_timm_builds_the_same_network_by_the_flags(folder, options):
    given = [*FOLDER, f"data.root={folder}", *options]
    given = [each for each in given if not (each == "model=micro" and any(o.startswith("model=") for o in options))]
    cfg = configure(*given)
    source = build_source(cfg)
    source.splits()
    ours, theirs = build_net(cfg, source).eval(), timms(timm_train.network(cfg, source)).eval()
    if isinstance(ours, ViT):
        theirs.load_state_dict(to_timm(ours, img_size=source.img_size, num_classes=source.num_classes)[1])
    else:
        theirs.load_state_dict(ours.net.state_dict())
    images = torch.randn(2, 3, *source.img_size)
    with torch.no_grad():
        torch.testing.assert_close(theirs(images), ours(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [[], ["optim=sgd"], ["optim=sgd", "optim.nesterov=true"]])
def test_timm_builds_the_same_optimizer_by_the_flags(options):
    cfg = configure(*options)
    args = parsed(timm_train.optimizer(cfg))
    net = torch.nn.Linear(2, 2)
    more = {"betas": args.opt_betas} if args.opt_betas else {}
    theirs = create_optimizer_v2(
        net,
        opt=args.opt,
        lr=args.lr,
        weight_decay=args.weight_decay,
        momentum=args.momentum or 0.9,
        **more,
        **args.opt_kwargs,
    )
    assert type(theirs).__name__ == cfg.optim.optimizer._target_.rpartition(".")[2]
    group = next(group for group in theirs.param_groups if group["weight_decay"])
    expected = {name: value for name, value in cfg.optim.optimizer.items() if not name.startswith("_")}
    assert {name: list(group[name]) if name == "betas" else group[name] for name in expected} == expected


@pytest.mark.parametrize("options", [[], ["augment=deit"], ["optim=sgd"], ["model.drop_path=0.1"]])
def test_every_flag_is_one_that_timm_documents(folder, tmp_path, options):
    peer = timm_train.Checkout(tmp_path, "1.0.26")
    ours, theirs = timm_train.both([*FOLDER, f"data.root={folder}", "batch_size=4", *options], peer, 2, tmp_path)
    line = theirs.line(3, tmp_path)
    assert [word for word in line if word.startswith("--") and word not in DOCUMENTED.split()] == []
    assert line[1] == "train.py"
    assert line[line.index("--epochs") + 1] == "3"
    assert line[line.index("--batch-size") + 1] == "4"
    assert line[line.index("--val-split") + 1] == "val"
    cfg = configure(*ours.line(3, tmp_path)[2:])  # which Hydra takes
    splits = build_source(cfg).splits()
    assert [len(splits[name]) for name in ("train", "val")] == [16, 8], "none is held out: timm's train.py holds none"
    assert {(each.images, each.val_images) for each in (ours, theirs)} == {(16, 8)}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["embed=overlap"], "only embed=conv and embed=linear"),
        (["pos=rope"], "position to its tokens only"),
        (["model=cnn"], "no model=cnn"),
        (["model=resnet"], r"model\.small=true"),
        (["augment=light"], "augment=none or augment=deit"),
        (["optim.optimizer._target_=torch.optim.RMSprop"], "optim=adamw or sgd"),
        (["limit_batches=2"], "leave it out"),
        (["data=digits"], "data=imagefolder data.root=<folder>"),
    ],
)
def test_what_timm_does_not_have_is_said(folder, tmp_path, options, said):
    given = FOLDER if options != ["data=digits"] else [each for each in FOLDER if not each.startswith("data")]
    root = [f"data.root={folder}"] if options != ["data=digits"] else []
    with pytest.raises(ValueError, match=said):
        timm_train.both([*given, *root, *options], timm_train.Checkout(tmp_path, "1.0.26"), 1, tmp_path)


def test_a_checkout_is_known_by_its_files_and_its_version(tmp_path):
    (tmp_path / "timm").mkdir()
    for name, text in {"train.py": "", "timm/version.py": "__version__ = '2.0.0'\n"}.items():
        with pytest.raises(ValueError, match=f"holds no {name}, .*git clone"):
            timm_train.checkout(str(tmp_path))
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=r"is version 2\.0\.0"):
        timm_train.checkout(str(tmp_path))
    (tmp_path / "timm/version.py").write_text("__version__ = '1.0.26'\n")
    assert timm_train.checkout(str(tmp_path)) == timm_train.Checkout(tmp_path, "1.0.26")


def test_an_epoch_costs_what_trainings_differ_by():
    burn = "import sys, time\nend = 0.4 + 0.3 * int(sys.argv[1])\nwhile time.process_time() < end: pass"
    epochs = timm_train.Epochs(
        lambda count, folder: [sys.executable, "-S", "-c", burn, str(count)], Path.cwd(), 100, 10, epochs=2
    )
    figures = epochs.measure()
    assert figures["epoch_cpu_s"] == pytest.approx(0.3, rel=0.2)
    assert figures["image_cpu_ms"] == pytest.approx(3.0, rel=0.2)
    assert figures["start_cpu_s"] == pytest.approx(0.4, abs=0.15)
    assert figures["images_per_s"] == pytest.approx(100 / figures["epoch_wall_s"])


def test_a_training_that_fails_is_named_with_its_last_line():
    line = [sys.executable, "-c", "import sys; print('why'); sys.exit(3)"]
    with pytest.raises(ValueError, match="ends with code 3: why"):
        timm_train.Epochs(lambda *_: line, Path.cwd(), 1, 1, 1).run(1)


def test_a_command_can_be_typed_again():
    from patchbench.commands.bench.record import command_line

    words = ["patch=[4,4]", "compare=embed=overlap pos=rope"]
    assert shlex.split(command_line("benchmark", words))[2:] == words


def test_the_items_of_evidence_fit_into_nine_minutes_and_the_rehearsal_has_the_same(tmp_path):
    found = Evidence(tmp_path / "evidence.json", {}, time.perf_counter() + 540)
    listed = list(items(found))
    assert sum(item.seconds for item in listed) < 540
    assert len({item.name for item in listed}) == len(listed)
    by_name = {item.name: item.measure for item in listed}
    for item in rehearsed(found):
        kind = getattr(item.measure, "func", None)
        assert kind is getattr(by_name[item.name], "func", None), item.name
