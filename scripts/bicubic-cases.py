"""Prints the tables of test/native/bicubic_test.cpp: hashes of what Pillow makes of made-up pictures and of those in
test/fixtures/images. Needs numpy and Pillow up to 12 (13 swaps the passes for some shapes); only for renewing them."""
import numpy as np
from PIL import Image, features

SIZES = [
    (1, 1, 224, 224), (1, 37, 224, 224), (37, 1, 224, 224), (2, 2, 224, 224), (3, 5, 224, 224), (224, 224, 224, 224),
    (224, 100, 224, 224), (100, 224, 224, 224), (448, 224, 224, 224), (224, 448, 224, 224), (223, 225, 224, 224),
    (225, 223, 224, 224), (1600, 1067, 224, 224), (30000, 2, 224, 224), (2, 30000, 224, 224), (640, 480, 448, 448),
    (97, 3, 224, 224), (640, 100, 224, 224), (100, 640, 224, 224), (57, 300, 56, 56), (7, 9, 1, 1), (1, 9, 1, 3),
    (500, 333, 112, 112), (113, 112, 112, 112), (17, 400, 31, 5), (400, 17, 5, 31), (255, 256, 100, 300),
    (1001, 77, 13, 200), (64, 64, 65, 63), (450, 449, 448, 448),
]


def made_up(width: int, height: int, extreme: bool) -> np.ndarray:
    """The same numbers as the test's picture(): a linear congruential sequence's top bytes, or only 0 and 255."""
    count = width * height * 3
    state = np.uint32(width * 65536 + height)
    factor, step = np.uint32(1664525), np.uint32(1013904223)
    values = np.empty(count, np.uint32)
    for i in range(count):
        state = np.uint32((int(state) * int(factor) + int(step)) & 0xFFFFFFFF)
        values[i] = state
    top = (values >> 24).astype(np.uint8)
    return (np.where(top >= 128, 255, 0).astype(np.uint8) if extreme else top).reshape(height, width, 3)


def fnv(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


def main() -> None:
    print(f"// Pillow {features.version('pil')}")
    for width, height, size_x, size_y in SIZES:
        hashes = []
        for extreme in (False, True):
            picture = Image.fromarray(made_up(width, height, extreme))
            hashes.append(f"0x{fnv(picture.resize((size_x, size_y), Image.BICUBIC).tobytes()):016x}")
        print(f"    {{{width}, {height}, {size_x}, {size_y}, {hashes[0]}, {hashes[1]}}},")
    for name in ("gray", "scene", "small"):
        picture = Image.open(f"test/fixtures/images/{name}.ppm").convert("RGB")
        print(f'    {{"{name}", 0x{fnv(picture.resize((224, 224), Image.BICUBIC).tobytes()):016x}}},')


main()
