"""Export of a trained network as weights that timm loads."""

from pathlib import Path

from patchbench.commands.build import build_net, build_source
from patchbench.commands.reopen import naming_own_options
from patchbench.config.errors import refusing
from patchbench.config.origin import restored
from patchbench.track.terminal import say, spell_list
from patchbench.train.checkpoint import read_checkpoint
from patchbench.weights.export import export as export_weights
from patchbench.weights.read import net_state


def export(ckpt: Path, out: Path, *, data_root: str | None) -> None:
    """Write the trained network for timm, and print the call that loads it. Refused if no ViT of timm is equivalent.

    data_root: present folder of the data; None: as in training.
    """
    with refusing():
        if out.suffix != ".safetensors":
            raise ValueError(f"out={out} must end in .safetensors: use out={out.with_suffix('.safetensors')}")
        checkpoint = read_checkpoint(ckpt)
        levels = checkpoint["patchbench"]["factors"]
        if levels["pos"] is None:
            raise ValueError(
                f"ckpt={ckpt} is of model={levels['model']}, but only Vision Transformers can be exported to timm: use "
                "the weights in the state_dict of the checkpoint, where their names begin with net."
            )
        cfg = restored(checkpoint["patchbench"], data_root)
        with naming_own_options():
            source = build_source(cfg)
        net = build_net(cfg, source).eval()
        net.load_state_dict(net_state(checkpoint))
        call = export_weights(net, out, img_size=source.img_size, num_classes=source.num_classes)
    say(f"wrote {out}, for images of mean {spell_list(source.mean)} and standard deviation {spell_list(source.std)}:")
    say(call)
