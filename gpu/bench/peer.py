# The rates that this GPU reaches in torch, in the same minutes as ours are taken: a large copy, matrix products in bfloat16 and
# float16, attention, and the products of decoding, each under the name of our op where there is one. One JSON object a line; one of
# them holds the rates that floors are made of.
import json
import sys

import torch

TINY = "--tiny" in sys.argv


def median_seconds(body, seconds=0.02, samples=9):
    """Median of several runs of about 20 ms, by events."""
    for _ in range(3):
        body()
    torch.cuda.synchronize()

    def timed(count):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(count):
            body()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1000 / count

    count = max(1, min(2000, int(seconds / max(1e-7, timed(3)))))
    return sorted(timed(count) for _ in range(samples))[samples // 2]


def tell(name, seconds, moved=0, operations=0):
    row = {"peer": "torch " + torch.__version__, "name": name, "us": seconds * 1e6}
    if moved:
        row["gb_s"] = moved / seconds / 1e9
    if operations:
        row["tflop_s"] = operations / seconds / 1e12
    print(json.dumps(row), flush=True)
    return row


def linear(T, cols, rows):
    # several weights, so that they do not stay in the cache between two uses
    weights = [torch.randn(rows, cols, device="cuda", dtype=torch.float16) for _ in range(1 if T > 128 else 8)]
    x = torch.randn(T, cols, device="cuda", dtype=torch.float16)
    turn = iter(range(1 << 62))
    seconds = median_seconds(lambda: torch.nn.functional.linear(x, weights[next(turn) % len(weights)]))
    tell(f"linear f16 {T} x {cols} -> {rows}", seconds, 2 * (rows * cols + T * (rows + cols)), 2 * T * rows * cols)


def attention(name, batch, heads, queries, keys, width, causal):
    q = torch.randn(batch, heads, queries, width, device="cuda", dtype=torch.float16)
    k, v = (torch.randn(batch, heads, keys, width, device="cuda", dtype=torch.float16) for _ in range(2))
    seconds = median_seconds(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal))
    tell(name, seconds, 4 * width * batch * heads * (keys + queries),
         4 * batch * heads * queries * keys * width / (2 if causal else 1))


def main():
    if not torch.cuda.is_available():
        sys.exit("torch sees no GPU")
    size = 1 << 20 if TINY else 1 << 30
    source = torch.empty(size, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    copy = tell(f"copy {size} bytes", median_seconds(lambda: target.copy_(source)), 2 * size)["gb_s"] * 1e9
    n = 256 if TINY else 8192
    a, b = (torch.randn(n, n, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    matrix = tell(f"matmul bf16 {n}", median_seconds(lambda: a @ b), operations=2 * n**3)["tflop_s"] * 1e12
    print(json.dumps({"copy": copy, "matrix": matrix}), flush=True)
    for T, cols, rows in ((1, 4096, 4096), (1, 4096, 11008), (1, 11008, 4096), (8, 4096, 11008), (128, 4096, 11008),
                          (2304, 4096, 11008), (8224, 1408, 4224), (8224, 1408, 1408), (8224, 1408, 6144), (8224, 6144, 1408)):
        if not TINY or T <= 8:
            linear(T, cols, rows)
    attention("ViT attention 32 x 257, 16 heads", 32, 16, 257, 257, 88, False)
    attention("attend_paged 1 x 1 of 4096", 1, 32, 1, 4096, 128, False)
    attention("attend_paged 12 x 192 of 192", 12, 32, 192, 192, 128, True)


main()
