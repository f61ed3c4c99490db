"""Sentences that interpret the measurements of a network, and the thresholds that choose between them."""

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

# Thresholds. Each comment tells which statement holds at or above the value, or below it.
KEPT_COSINE = 0.9  # cosine of a kernel with its start: the kernel counts as unchanged, 0.9^2 = 81 % of it is the start
MADE_SHARE = 0.5  # squared cosine of a kernel with its start: below, most of the kernel was made by training
RANDOM_COSINE = 0.5  # cosine between the starts of two seeds: below, the start counts as random
SMOOTHER_FACTOR = 0.9  # times the mean frequency of the start, or of noise: below, kernels count as smoother
COMMON_SHARE = 0.9  # share of energy that all channels have in common: kernels see brightness only
SHARE_NOISE = (
    0.05  # tolerance of the common share around 1/channels: 3.6 standard deviations for 48 kernels of 4x4 noise
)
NEIGHBOUR_MARGIN = 0.05  # cosine of neighbours minus cosine of random places: above, vectors show which places are near
TURN_RADIANS = 0.1  # rotation across the whole grid: below, the scheme has hardly any effect
SHIFT_LOGITS = 0.1  # bias between near and far: below, the scheme has hardly any effect
DISTANCE_MARGIN = 0.05  # tolerance, as a share, of the distance of attention around that of uniform attention
EVEN_FACTOR = 1.25  # times an equal share: up to this and down to its inverse, patches count as equal
OWN_FACTOR = 1.1  # times the window of the embedding: up to this, a token sees only its own window
WHOLE_SHARE = 0.9  # of the side of the field of an image that is read evenly: a token sees the whole image
READABLE, HIDDEN = 0.5, 0.1  # R2: at or above the first a place can be read, below the second it cannot
SAME_SHARE = 0.95  # share of images that keep their class: the change counts as none
LOSS_SHARE = 0.05  # loss of accuracy, one image in twenty: the change has a cost


def readings(m: Measures, robust: Mapping[str, float], num_classes: int) -> dict[str, str]:
    """Interpret each measurement in one or two sentences, by the name of its figure. robust: see `robustness`."""
    sentences: dict[str, str] = {}
    if m.kernels:
        sentences["kernels"] = kernels(m.kernels)
        if m.kernels.weights.shape[1] == 3:
            sentences["channels"] = channels(m.kernels, grey=m.grey)
    for place, vectors in m.positions.items():
        sentences[f"positions_{place}"] = positions(vectors)
    if m.turns is not None and m.grid_size:
        sentences["rotation"] = rotation(m.turns, max(m.grid_size))
    if m.bias:
        sentences["bias"] = bias(m.bias)
    if m.attention:
        sentences["distance"] = distance(m.attention)
        sentences["rollout"] = rollout(m.attention.rollout)
    if m.fields:
        sentences["fields"] = fields(m.fields)
    if m.readout and m.grid_size:
        sentences["readout"] = readout(m.readout, m.grid_size)
    if robust:
        sentences["robustness"] = robustness(
            robust, num_classes, overlapping=m.kernels is not None and m.kernels.overlap
        )
    return sentences


def kernels(k: Kernels) -> str:
    """Say whether training made these kernels, and whether they are smoother than noise."""
    now, change = spectrum.dct_frequency(k.energy), k.change
    if change is None:
        noise = spectrum.dct_frequency(k.energy.new_ones(k.energy.shape) / k.energy.numel())
        return f"{smoothness(now, noise, 'noise has')[0]} How far training moved them is not known here."
    if not change.trained:
        return "Nothing in this embedding is trained: these are still the kernels of the start."
    return since_start(change, now, "these kernels" if k.affine else "these responses")


def before_training(change: Change) -> str:
    """Say whether kernels before training are noise, or a basis that does not depend on the seed."""
    if change.random < RANDOM_COSINE:
        return (
            f"Before training they are noise: another seed gives other kernels (mean absolute cosine "
            f"{change.random:.2f} between the two)."
        )
    return (
        f"Before training they are not noise: another seed starts from the same kernels (mean cosine "
        f"{change.random:.2f})."
    )


def since_start(change: Change, now: float, named: str) -> str:
    """Say how far kernels have moved from their start, and which patterns to look for.

    now: mean frequency of the kernels. named: words for the kernels in the sentence, such as `these kernels`.
    """
    noise = change.random < RANDOM_COSINE
    times = f"{change.difference:.0%} of" if change.difference < 2 else f"{change.difference:.1f} times"
    movement = (
        f"they moved by {times} their length, and their mean cosine with the start is {change.cosine:.3f}, so that "
        f"{change.cosine**2:.0%} of the picture is the start"
    )
    if change.cosine >= KEPT_COSINE:
        shown = "the noise of the start" if noise else "the start, which is not random"
        return f"Training hardly moved {named}: {movement}. They show {shown}, and nothing learnt."
    words, smoother = smoothness(now, change.frequency, "at the start it was")
    if smoother:
        verb = "made" if change.cosine**2 < MADE_SHARE else "changed"
        return f"Training {verb} {named}: {movement}. {words} Look for edges, spots and colours."
    return f"Training moved {named}: {movement}. {words[:-1]}{', which was noise' if noise else ''}."


def smoothness(now: float, before: float, beside: str) -> tuple[str, bool]:
    """Compare the mean frequency of kernels with a reference; return a sentence, and True if the kernels are smoother.

    before: the reference. beside: words that introduce the reference in the sentence.
    """
    figures = f"their mean frequency is {now:.2f}, {beside} {before:.2f}"
    if now < SMOOTHER_FACTOR * before:
        return f"They are smooth: {figures}.", True
    if now > before / SMOOTHER_FACTOR:
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
    if common >= COMMON_SHARE:
        return f"These kernels see brightness and hardly any colour: {figures}."
    if abs(common - unrelated) <= SHARE_NOISE:
        return f"The slices are practically unrelated: {figures}."
    if common > unrelated:
        return f"These kernels see brightness more than colour: {figures}."
    return f"These kernels see colour more than brightness: {figures}."


def shows_nearness(near: float, far: float) -> bool:
    """True if `near`, the mean cosine of neighbours, clearly exceeds `far`, the mean cosine of random places."""
    return near - far > NEIGHBOUR_MARGIN


def positions(p: Positions) -> str:
    """Say whether the vectors of places show which places are near."""
    return nearness(p.table.near, p.table.far)


def nearness(near: float, far: float) -> str:
    """Say whether vectors of places show which places are near. near, far: mean cosines; NaN for a single place."""
    if not math.isfinite(near):
        return "There is one place, so there is nothing to compare."
    near, far = round(near, 2) + 0.0, round(far, 2) + 0.0  # adding 0.0 turns -0.0 into 0.0
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
    if fast * (side - 1) < TURN_RADIANS:
        across = fast * (side - 1)
        return f"No pair turns by more than {across:.2g} radians across the grid: position has hardly any effect."
    patches = 2 * math.pi / fast
    return (
        f"The fastest pair of channels turns by {fast:.2g} radians per patch, once around in "
        f"{count(round(patches), 'patch', 'patches')}, the slowest by {slow:.2g}."
    )


def bias(b: Bias) -> str:
    """Say whether near patches are preferred."""
    ranges = b.means.amax(-1) - b.means.amin(-1)
    widest, heads = float(ranges.max()), ranges.numel()
    if widest < SHIFT_LOGITS:
        return f"Near and far differ by {widest:.2g} logits at most: the bias hardly shifts attention."
    nearer = int(((b.slopes < 0) & (ranges >= SHIFT_LOGITS)).sum())
    of = f"{nearer} of {count(heads, 'head')}" if nearer < heads else "every head"
    if not nearer:
        return f"No head prefers near patches; by distance the bias differs by up to {widest:.2g} logits."
    return f"In {of} the bias falls with distance, so near patches get more attention: by up to {widest:.2g} logits."


def distance(a: Attention) -> str:
    """Say whether attention prefers near patches, by block."""
    blocks = a.distance.mean(1)
    figures = f"({float(blocks.mean()):.1f} px on average against {a.uniform:.1f})"
    if a.uniform == 0:
        return "There is one patch, so attention has no distance."
    near = blocks < (1 - DISTANCE_MARGIN) * a.uniform
    far = blocks > (1 + DISTANCE_MARGIN) * a.uniform
    if not (near | far).any():
        all_blocks = "the only block" if len(blocks) == 1 else f"all {len(blocks)} blocks"
        return f"Attention is as wide as uniform attention in {all_blocks} {figures}: near patches are not preferred."
    nearest_block = int(blocks.argmin())
    parts = [
        f"{word} uniform attention in {int(mask.sum())} of {count(len(blocks), 'block')}"
        for word, mask in (("nearer than", near), ("farther than", far))
        if mask.any()
    ]
    nearest = f"; block {nearest_block} looks nearest, {float(blocks[nearest_block]):.1f} px" if near.any() else ""
    return f"Attention looks {' and '.join(parts)} {figures}{nearest}."


def rollout(shares: Float[Tensor, "k h w"]) -> str:
    """Say whether all patches have about equal shares in the input of the head."""
    times = shares * shares[0].numel()
    low, high = float(times.min()), float(times.max())
    if shares[0].numel() == 1:
        return "There is one patch, so it has the whole share."
    if low >= 1 / EVEN_FACTOR and high <= EVEN_FACTOR:
        return f"The head reads all patches about equally: {low:.2g} to {high:.2g} times an equal share."
    return f"The head reads some patches more than others: {low:.2g} to {high:.2g} times an equal share."


def fields(maps: Mapping[str, Float[Tensor, "H W"]]) -> str:
    """Say how far a token of the last block sees."""
    network = extent(maps["network"], FIELD_SHARE)
    whole_side = (FIELD_SHARE * maps["network"].numel()) ** 0.5
    cnn = f" An untrained ResNet-18 has {side(maps['resnet18'])}." if "resnet18" in maps else ""
    size = f"{FIELD_SHARE:.0%} of what it depends on lies within {side(maps['network'])}"
    if network >= WHOLE_SHARE * whole_side:
        return f"After the last block a place sees the whole image: {size}.{cnn}"
    if "embedding" not in maps:
        return f"After the last block a place sees a part of the image: {size}.{cnn}"
    window = extent(maps["embedding"], FIELD_SHARE)
    if network <= OWN_FACTOR * window:
        return f"After the last block a token depends on little but its own window: {size}, {window:.1f} before.{cnn}"
    return f"After the last block a token sees more than its own window: {size}, {window:.1f} before.{cnn}"


def side(field: Float[Tensor, "H W"]) -> str:
    """Format the size of a receptive field."""
    return f"{extent(field, FIELD_SHARE):.1f} × {extent(field, FIELD_SHARE):.1f} px"


def readout(scores: Mapping[str, tuple[float, float]], grid_size: tuple[int, int]) -> str:
    """Say at which depths of the network the place of a token can be read from the token."""
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
    """Say whether the network uses the position of patches, and whether shifted images keep their class.

    robust: results of `evaluate_views` on some images, names without `test/`, and `images`, the number of images.
    overlapping: windows are larger than patches, so shuffling changes the contents of windows too.
    """
    images, plain = round(robust["images"]), robust["moved0/acc"]
    lowest = binomtest(round(plain * images), images).proportion_ci(method="wilson").low
    if lowest <= 1 / num_classes:
        return (
            f"On {count(images, 'image')} this network has an accuracy of {plain:.1%}, no more than guessing among "
            f"{count(num_classes, 'class', 'classes')} explains: changes of its accuracy tell nothing."
        )
    parts = []
    if "shuffled_patches/acc" in robust:
        parts.append(shuffled(robust, num_classes, overlapping=overlapping))
    moves = {int(name[5:-5]): value for name, value in robust.items() if name.startswith("moved") and "/same" in name}
    if moves.pop(0, None) is not None and moves:
        worst = min(moves, key=lambda pixels: moves[pixels])
        effect = "hardly any image changes its class" if moves[worst] >= SAME_SHARE else "images change their class"
        parts.append(
            f"Moved by up to {count(max(moves), 'pixel')}, {effect}: {moves[worst]:.1%} keep it at "
            f"{count(worst, 'pixel')}, the lowest share."
        )
    return " ".join(parts)


def shuffled(robust: Mapping[str, float], num_classes: int, *, overlapping: bool) -> str:
    """Say whether the network uses the position of patches, from the change of accuracy when patches are shuffled."""
    images, plain, after = round(robust["images"]), robust["moved0/acc"], robust["shuffled_patches/acc"]
    lost = round(robust["shuffled_patches/lost"] * images)
    change, low, high = paired_change(lost, lost + round((after - plain) * images), images)
    figures = (
        f"shuffling the patches changes accuracy by {points(change)} points (95 % interval {points(low)} to "
        f"{points(high)}, paired on the same {count(images, 'test image')}; {plain:.1%} before, {after:.1%} after, "
        f"{1 / num_classes:.1%} by guessing)"
    )
    same_class = f"{robust['shuffled_patches/same']:.0%} of the images keep their class"
    if high < 0 and -change >= LOSS_SHARE:
        if overlapping:
            return (
                f"This network uses position, or its windows: {figures}. Windows overlap here, so that shuffling "
                "changes their contents as well."
            )
        return f"This network uses the position of patches: {figures}."
    if high < 0:
        return f"Position matters little to this network: {figures}. That is more than chance explains."
    if low > 0:
        return f"This network is better without position: {figures}."
    if low > -LOSS_SHARE:
        return f"This network does not use position: {figures}. That is no more than chance explains, and {same_class}."
    return f"These images are too few to tell whether this network uses position: {figures}; {same_class}."


def points(share: float) -> str:
    """Format a difference of shares in percentage points, with a sign unless it is 0.0."""
    return f"{100 * share:+.1f}" if round(100 * share, 1) else "0.0"


def paired_change(lost: int, gained: int, images: int) -> tuple[float, float, float]:
    """Return the change of accuracy between two views of the same images, and both ends of its 95 % interval.

    lost: number of images that are right only in the first view. gained: right only in the second view. The interval is
    Wald's after half an image is added to each of the four cells of the table (Agresti and Min, 2005), so there is an
    interval even if no image changes.
    """
    total, lost_cell, gained_cell = images + 2, lost + 0.5, gained + 0.5
    middle = (gained_cell - lost_cell) / total
    reach = 1.96 * ((lost_cell + gained_cell) / total - middle**2) ** 0.5 / total**0.5
    return (gained - lost) / images, max(-1, middle - reach), min(1, middle + reach)


def summary(m: Measures, robust: Mapping[str, float], sentences: Mapping[str, str]) -> list[str]:
    """Return the most important sentences, for the top of a page. sentences: see `readings`."""
    short = []
    if robust:
        images, plain = round(robust["images"]), robust["moved0/acc"]
        interval = binomtest(round(plain * images), images).proportion_ci(method="wilson")
        short.append(
            f"The network is right in {plain:.1%} of {count(images, 'test image')} "
            f"(95 % interval {interval.low:.1%} to {interval.high:.1%})."
        )
    names = ("robustness", "kernels") if m.grey else ("robustness", "kernels", "channels")
    return short + [sentences[name] for name in names if name in sentences]


THRESHOLDS = (
    f"Position counts as used if shuffling the patches costs {LOSS_SHARE:.0%} or more of accuracy, one image in "
    "twenty, and the interval lies below zero. The interval is paired: only images that become right or wrong count "
    "(Agresti and Min, 2005). If the interval contains zero and its lower end is above minus this loss, position is "
    "not used; if the interval is wider, the images are too few.",
    f"Kernels count as hardly moved if their mean cosine with the start is {KEPT_COSINE} or more: the square of the "
    f"cosine, {KEPT_COSINE**2:.0%}, is the share of a kernel that lies in the direction of its start. Below "
    f"{MADE_SHARE:.0%}, training made the kernels. Noise has a cosine of about 0 with other noise.",
    f"Kernels count as smoother if their mean frequency is below {SMOOTHER_FACTOR} times that of their start.",
    f"Kernels count as seeing brightness or colour if the share of energy that all channels have in common differs by "
    f"more than {SHARE_NOISE} from that of unrelated slices, one divided by the number of channels. The share of noise "
    "has a standard deviation of 0.014 for 48 kernels of 4×4 pixels.",
    "Start, kernels and shuffles are those of this run: another seed gives other figures.",
)
