"""Sentences that read the measurements of a network, and the thresholds by which they are chosen."""

import math
from collections.abc import Mapping

from jaxtyping import Float
from scipy.stats import binomtest
from torch import Tensor

from patchbench.measure import spectrum
from patchbench.measure.attention import Attention
from patchbench.measure.field import extent
from patchbench.measure.kernels import Kernels
from patchbench.measure.position import Bias, Positions
from patchbench.measure.start import Change
from patchbench.measure.summary import FIELD_SHARE, Measures
from patchbench.words import count

KEPT = 0.9  # cosine of a kernel with its start, from which on it counts as kept: 0.9^2 = 81 % of it is the start
MADE = 0.5  # squared cosine of a kernel with its start, below which most of it came by training
RANDOM = 0.5  # cosine between the starts of two seeds, below which the start counts as random
SMOOTHER = 0.9  # share of the mean frequency of the start, or of noise, below which kernels count as smoother
COMMON = 0.9  # share of the energy that all channels have in common, from which on kernels see brightness alone
NOISE = 0.05  # by which the common share may differ from 1/channels: 3.6 times the spread of 48 kernels of 4x4 noise
NEIGHBOURS = 0.05  # by which neighbours must be more alike than two places at random for vectors to show what is near
TURN = 0.1  # radians across the whole grid, below which a rotation changes next to nothing
SHIFT = 0.1  # logits between near and far, below which a bias changes next to nothing
WIDE = 0.05  # share by which the distance of attention may differ from that of uniform attention
EVEN = 1.25  # times an even share, up to which patches count alike; its inverse is the lower end
OWN = 1.1  # times the window of the embedding, up to which a token sees its own window alone
WHOLE = 0.9  # share of the side of an evenly read image, from which on a token sees the whole image
READABLE, HIDDEN = 0.5, 0.1  # R2 from which on a place can be read, and below which it cannot
SAME = 0.95  # share of images that keep their class, from which on a change counts as none
LOSS = 0.05  # of accuracy, one image in twenty, from which on a change costs something


def readings(m: Measures, robust: Mapping[str, float], num_classes: int) -> dict[str, str]:
    """Read each measurement in a sentence or two, by the name of its picture. robust: see `robustness`."""
    said: dict[str, str] = {}
    if m.kernels:
        said["kernels"] = kernels(m.kernels)
        if m.kernels.weights.shape[1] == 3:
            said["channels"] = channels(m.kernels, grey=m.grey)
    for place, vectors in m.positions.items():
        said[f"positions_{place}"] = positions(vectors)
    if m.turns is not None and m.grid_size:
        said["rotation"] = rotation(m.turns, max(m.grid_size))
    if m.bias:
        said["bias"] = bias(m.bias)
    if m.attention:
        said["distance"] = distance(m.attention)
        said["rollout"] = rollout(m.attention.rollout)
    if m.fields:
        said["fields"] = fields(m.fields)
    if m.readout and m.grid_size:
        said["readout"] = readout(m.readout, m.grid_size)
    if robust:
        said["robustness"] = robustness(robust, num_classes, overlapping=m.kernels is not None and m.kernels.overlap)
    return said


def kernels(k: Kernels) -> str:
    """Say whether training made these kernels, and whether they are smoother than noise."""
    now, change = spectrum.dct_frequency(k.energy), k.change
    if change is None:
        noise = spectrum.dct_frequency(k.energy.new_ones(k.energy.shape) / k.energy.numel())
        return f"{smoothness(now, noise, 'noise has')[0]} How far training moved them is not known here."
    if not change.trained:
        return "Nothing in this embedding is trained: these kernels are those of its start."
    return changed(change, now, "these kernels" if k.affine else "these responses")


def start(change: Change) -> str:
    """Say what kernels are before training: noise, or a basis that does not depend on the seed."""
    if change.random < RANDOM:
        return (
            f"Before training they are noise: another seed gives others (mean absolute cosine {change.random:.2f} "
            "between the two)."
        )
    return f"Before training they are no noise: another seed starts from the same (mean cosine {change.random:.2f})."


def changed(change: Change, now: float, named: str) -> str:
    """Say how far kernels are from their start, and what to look for.

    now: their mean frequency. named: what they are called, `these kernels`.
    """
    noise = change.random < RANDOM
    times = f"{change.difference:.0%} of" if change.difference < 2 else f"{change.difference:.1f} times"
    apart = (
        f"they moved by {times} their length, and their mean cosine with the start is {change.cosine:.3f}, so that the "
        f"start is {change.cosine**2:.0%} of what you see"
    )
    if change.cosine >= KEPT:
        what = "the noise of the start" if noise else "the start, which is not random"
        return f"Training hardly moved {named}: {apart}. They show {what}, not what was learnt."
    words, smoother = smoothness(now, change.frequency, "at the start it was")
    if smoother:
        verb = "made" if change.cosine**2 < MADE else "changed"
        return f"Training {verb} {named}: {apart}. {words} Look for edges, spots and colours."
    return f"Training moved {named}: {apart}. {words[:-1]}{', which was noise' if noise else ''}."


def smoothness(now: float, before: float, beside: str) -> tuple[str, bool]:
    """Say whether kernels are smooth, by their mean frequency and one to compare with; and whether they are."""
    figures = f"their mean frequency is {now:.2f}, {beside} {before:.2f}"
    if now < SMOOTHER * before:
        return f"They are smooth: {figures}.", True
    if now > before / SMOOTHER:
        return f"They are rougher: {figures}.", False
    return f"They are no smoother: {figures}.", False


def channels(k: Kernels, *, grey: bool) -> str:
    """Say whether kernels see brightness or colour. grey: all channels of the images are equal."""
    common, unrelated = spectrum.common_share(k.weights), 1 / k.weights.shape[1]
    if grey:
        return (
            "The channels of these images are equal, so only the sum of the slices matters, and training could not "
            f"tell the slices apart: {common:.0%} of their energy is common, {unrelated:.0%} if they are unrelated."
        )
    figures = f"{common:.0%} of the energy is common to all channels; unrelated slices have {unrelated:.0%}"
    if common >= COMMON:
        return f"These kernels see brightness and hardly any colour: {figures}."
    if abs(common - unrelated) <= NOISE:
        return f"The slices are as good as unrelated: {figures}."
    if common > unrelated:
        return f"These kernels see brightness more than colour: {figures}."
    return f"These kernels see colour more than brightness: {figures}."


def shows_nearness(near: float, far: float) -> bool:
    """True if vectors of neighbours are more alike than those of two places at random. near, far: mean cosines."""
    return near - far > NEIGHBOURS


def positions(p: Positions) -> str:
    """Say whether the vectors of places show which places are near."""
    return nearness(p.table.near, p.table.far)


def nearness(near: float, far: float) -> str:
    """Say whether vectors of places show which places are near. near, far: mean cosines; NaN for a single place."""
    if not math.isfinite(near):
        return "There is one place, so there is nothing to compare."
    near, far = round(near, 2) + 0.0, round(far, 2) + 0.0  # no minus before zero
    if shows_nearness(near, far):
        return f"The vectors show which places are near: neighbours have a cosine of {near:.2f}, others {far:.2f}."
    return (
        f"The vectors do not show which places are near: neighbours have a cosine of {near:.2f}, no more than others "
        f"({far:.2f})."
    )


def rotation(turns: Float[Tensor, "blocks heads d 2"], side: int) -> str:
    """Say how fast queries and keys turn. side: places along the longer side of the grid."""
    speeds = turns.norm(dim=-1).flatten()
    fast, slow = float(speeds.max()), float(speeds.min())
    if fast * (side - 1) < TURN:
        return f"No pair turns by more than {fast * (side - 1):.2g} radians across the grid: position hardly enters."
    patches = 2 * math.pi / fast
    return (
        f"The fastest pair of channels turns by {fast:.2g} radians per patch, once around in "
        f"{count(round(patches), 'patch', 'patches')}, the slowest by {slow:.2g}."
    )


def bias(b: Bias) -> str:
    """Say whether near patches are preferred."""
    ranges = b.means.amax(-1) - b.means.amin(-1)
    widest, heads = float(ranges.max()), ranges.numel()
    if widest < SHIFT:
        return f"Near and far differ by {widest:.2g} logits at most: the bias hardly shifts attention."
    nearer = int(((b.slopes < 0) & (ranges >= SHIFT)).sum())
    of = f"{nearer} of {count(heads, 'head')}" if nearer < heads else "every head"
    if not nearer:
        return f"No head prefers near patches; by distance the bias differs by up to {widest:.2g} logits."
    return f"In {of} the bias falls with distance, so near patches get more attention: by up to {widest:.2g} logits."


def distance(a: Attention) -> str:
    """Say whether attention prefers near patches, by block."""
    blocks = a.distance.mean(1)
    figures = f"({float(blocks.mean()):.1f} px on average against {a.uniform:.1f})"
    if a.uniform == 0:
        return "There is one patch, so attention has nowhere to go."
    near = blocks < (1 - WIDE) * a.uniform
    far = blocks > (1 + WIDE) * a.uniform
    if not (near | far).any():
        all_blocks = "the only block" if len(blocks) == 1 else f"all {len(blocks)} blocks"
        return f"Attention is as wide as uniform attention in {all_blocks} {figures}: near patches are not preferred."
    least = int(blocks.argmin())
    parts = [
        f"{word} uniform attention in {int(mask.sum())} of {count(len(blocks), 'block')}"
        for word, mask in (("nearer than", near), ("farther than", far))
        if mask.any()
    ]
    nearest = f"; block {least} looks nearest, {float(blocks[least]):.1f} px" if near.any() else ""
    return f"Attention looks {' and '.join(parts)} {figures}{nearest}."


def rollout(shares: Float[Tensor, "k h w"]) -> str:
    """Say whether all patches count alike for the head."""
    times = shares * shares[0].numel()
    low, high = float(times.min()), float(times.max())
    if shares[0].numel() == 1:
        return "There is one patch, so it counts whole."
    if low >= 1 / EVEN and high <= EVEN:
        return f"The head reads all patches about alike: {low:.2g} to {high:.2g} times an even share."
    return f"The head reads some patches more than others: {low:.2g} to {high:.2g} times an even share."


def fields(maps: Mapping[str, Float[Tensor, "H W"]]) -> str:
    """Say how far a token of the last block sees."""
    network = extent(maps["network"], FIELD_SHARE)
    whole = (FIELD_SHARE * maps["network"].numel()) ** 0.5
    cnn = f" An untrained ResNet-18 has {side(maps['resnet18'])}." if "resnet18" in maps else ""
    size = f"{FIELD_SHARE:.0%} of what it depends on lies within {side(maps['network'])}"
    if network >= WHOLE * whole:
        return f"After the last block a place sees the whole image: {size}.{cnn}"
    if "embedding" not in maps:
        return f"After the last block a place sees a part of the image: {size}.{cnn}"
    window = extent(maps["embedding"], FIELD_SHARE)
    if network <= OWN * window:
        return f"After the last block a token depends on little but its own window: {size}, {window:.1f} before.{cnn}"
    return f"After the last block a token sees more than its own window: {size}, {window:.1f} before.{cnn}"


def side(field: Float[Tensor, "H W"]) -> str:
    """Spell the size of a receptive field."""
    return f"{extent(field, FIELD_SHARE):.1f} × {extent(field, FIELD_SHARE):.1f} px"


def readout(scores: Mapping[str, tuple[float, float]], grid_size: tuple[int, int]) -> str:
    """Say where in the network the place of a token can be read from it."""
    axes = [i for i, n in enumerate(grid_size) if n > 1]
    if not axes:
        return "There is one token, so there is no place to read."
    known = {depth: sum(score[i] for i in axes) / len(axes) for depth, score in scores.items()}

    def word(r2: float) -> str:
        return "can be read" if r2 >= READABLE else "cannot be read" if r2 < HIDDEN else "can be read in part"

    names = {"embedded": "the embedding", "placed": "the scheme", **{d: d for d in known if d.startswith("block ")}}
    chosen = list(dict.fromkeys(depth for depth in ("embedded", "placed", list(known)[-1]) if depth in known))
    parts = [f"after {names[depth]} it {word(known[depth])} (R² {known[depth]:.2f})" for depth in chosen]
    return "The place of a token: " + ", ".join(parts) + "."


def robustness(robust: Mapping[str, float], num_classes: int, *, overlapping: bool) -> str:
    """Say whether the network uses the position of patches, and whether moved images keep their class.

    robust: see `pages.analyze.robustness`. overlapping: windows are larger than patches, so that shuffling changes
    their contents too.
    """
    images, plain = round(robust["images"]), robust["moved0/acc"]
    lowest = binomtest(round(plain * images), images).proportion_ci(method="wilson").low
    if lowest <= 1 / num_classes:
        return (
            f"On {count(images, 'image')} this network is right in {plain:.1%}, no more than guessing among "
            f"{count(num_classes, 'class', 'classes')} explains: nothing can be read from changes of its accuracy."
        )
    parts = []
    if "shuffled_patches/acc" in robust:
        parts.append(shuffled(robust, num_classes, overlapping=overlapping))
    moves = {int(name[5:-5]): value for name, value in robust.items() if name.startswith("moved") and "/same" in name}
    if moves.pop(0, None) is not None and moves:
        worst = min(moves, key=lambda pixels: moves[pixels])
        kept = "hardly any image changes its class" if moves[worst] >= SAME else "images change their class"
        parts.append(
            f"Moved by up to {count(max(moves), 'pixel')}, {kept}: {moves[worst]:.1%} keep it at "
            f"{count(worst, 'pixel')}, where it is fewest."
        )
    return " ".join(parts)


def shuffled(robust: Mapping[str, float], num_classes: int, *, overlapping: bool) -> str:
    """Say whether the network uses the position of patches, by what shuffling them changes on the same images."""
    images, plain, after = round(robust["images"]), robust["moved0/acc"], robust["shuffled_patches/acc"]
    lost = round(robust["shuffled_patches/lost"] * images)
    change, low, high = paired_change(lost, lost + round((after - plain) * images), images)
    figures = (
        f"shuffling the patches changes accuracy by {points(change)} points (95 % interval {points(low)} to "
        f"{points(high)}, paired on the same {count(images, 'test image')}; {plain:.1%} before, {after:.1%} after, "
        f"{1 / num_classes:.1%} by guessing)"
    )
    kept = f"{robust['shuffled_patches/same']:.0%} of the images keep their class"
    if high < 0 and -change >= LOSS:
        if overlapping:
            return (
                f"This network uses position, or its windows: {figures}. Windows overlap here, so that shuffling "
                "changes their contents as well."
            )
        return f"This network uses the position of patches: {figures}."
    if high < 0:
        return f"Position matters little to this network: {figures}. That is more than chance explains."
    if low > 0:
        return f"This network is better off without position: {figures}."
    if low > -LOSS:
        return f"This network does not use position: {figures}. That is no more than chance explains, and {kept}."
    return f"So few images cannot tell whether this network uses position: {figures}; {kept}."


def points(share: float) -> str:
    """Spell a difference of shares in points, with its sign unless it is nothing."""
    return f"{100 * share:+.1f}" if round(100 * share, 1) else "0.0"


def paired_change(lost: int, gained: int, images: int) -> tuple[float, float, float]:
    """Return the change of an accuracy between two views of the same images, and its 95 % interval.

    lost: images that are right in the first view alone. gained: in the second alone. The interval is that of Agresti
    and Min (2005): Wald's, after half an image is added to each of the four cells; images that are alike in both views
    tell nothing, and none at all still leaves an interval.
    """
    total, one, other = images + 2, lost + 0.5, gained + 0.5
    middle = (other - one) / total
    reach = 1.96 * ((one + other) / total - middle**2) ** 0.5 / total**0.5
    return (gained - lost) / images, max(-1, middle - reach), min(1, middle + reach)


def in_short(m: Measures, robust: Mapping[str, float], said: Mapping[str, str]) -> list[str]:
    """Return the sentences that say most, for the top of a page. said: see `readings`."""
    short = []
    if robust:
        images, plain = round(robust["images"]), robust["moved0/acc"]
        interval = binomtest(round(plain * images), images).proportion_ci(method="wilson")
        short.append(
            f"It is right in {plain:.1%} of {count(images, 'test image')} "
            f"(95 % interval {interval.low:.1%} to {interval.high:.1%})."
        )
    names = ("robustness", "kernels") if m.grey else ("robustness", "kernels", "channels")
    return short + [said[name] for name in names if name in said]


THRESHOLDS = (
    f"Position counts as used where shuffling the patches costs {LOSS:.0%} or more of all images, one in twenty, and "
    "the interval lies below zero. The interval is paired: only images whose answer becomes right or wrong enter "
    "(Agresti and Min, 2005). Where it contains zero and ends above minus that loss, position is not used; where it is "
    "wider, the images are too few.",
    f"Kernels count as kept from a mean cosine of {KEPT} with their start on: the square of the cosine, {KEPT**2:.0%}, "
    f"is the share of a kernel that lies in the direction of its start; below {MADE:.0%}, training made them. "
    "Noise has a cosine of about 0 with other noise.",
    f"Kernels count as smoother where their mean frequency is below {SMOOTHER} times that of their start.",
    f"Kernels count as seeing brightness or colour where the share that all channels have in common differs by more "
    f"than {NOISE} from that of unrelated slices, one divided by the number of channels. That of noise spreads by "
    "0.014 for 48 kernels of 4×4 pixels.",
    "The start, the kernels and the shuffles are those of this run: another seed gives other figures.",
)
