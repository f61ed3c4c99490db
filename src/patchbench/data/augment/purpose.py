"""What the numbers that follow from a draw are for: two parts that shared them would not be independent."""

from enum import IntEnum


class Purpose(IntEnum):
    CROP = 101
    FLIP = 102
    RANDAUGMENT = 103
    THREE = 104
    JITTER = 105
    ERASE = 106
    NOISE = 107
    MIX = 108
