"""PyTorch's side of bench/train.ts: the same training step, padded as the original pads it, with one thing trained, the projection.

    train_torch.py CASE.json '{"threads": 2, "dtype": "float32"}'

Speaks JSON lines like train-measure.ts: {"ready", "weightBytes", "device"} when the model is in memory, then for each line "step" of standard
input {"ms", "loss"}. Needs torch alone.
"""
import json
import math
import struct
import sys
import time

import torch
import torch.nn.functional as F


def say(**words):
    print(json.dumps(words), flush=True)


def read_safetensors(path):
    with open(path, "rb") as file:
        data = bytearray(file.read())
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    return {name: torch.frombuffer(data, dtype=torch.float32, offset=8 + length + entry["data_offsets"][0],
                                   count=math.prod(entry["shape"])).view(entry["shape"])
            for name, entry in header.items()}


def shapes(s):
    """Names and shapes of the weights as the model file has them."""
    kv = s["width"] // s["heads"] * s["kvHeads"]
    wide, mlp = s["width"], s["mlp"]
    found = {"token_embd.weight": (s["vocab"], wide), "output_norm.weight": (wide,), "output.weight": (s["vocab"], wide),
             "mm.weight": (wide, s["input"]), "mm.bias": (wide,)}
    for i in range(s["depth"]):
        found |= {f"blk.{i}.{name}.weight": shape for name, shape in {
            "attn_norm": (wide,), "attn_q": (wide, wide), "attn_k": (kv, wide), "attn_v": (kv, wide),
            "attn_output": (wide, wide), "ffn_norm": (wide,), "ffn_gate": (mlp, wide), "ffn_up": (mlp, wide),
            "ffn_down": (wide, mlp)}.items()}
    return found


def random_weights(s, dtype):
    """One tensor after the other in its final type, so that the whole is never there twice."""
    return {name: torch.ones(shape, dtype=dtype) if len(shape) == 1
            else torch.empty(shape, dtype=dtype).uniform_(-1.2 / math.sqrt(shape[1]), 1.2 / math.sqrt(shape[1]))
            for name, shape in shapes(s).items()}


class Step:
    def __init__(self, case, dtype):
        s = self.sizes = case["sizes"]
        weights = read_safetensors(case["weights"]) if case.get("weights") else random_weights(s, dtype)
        self.weight = torch.nn.Parameter(weights.pop("mm.weight").float().clone())
        self.bias = torch.nn.Parameter(weights.pop("mm.bias").float().clone())
        self.w = {name: value.to(dtype) for name, value in weights.items()}
        self.dtype = dtype
        self.optimizer = torch.optim.AdamW([{"params": [self.weight], "weight_decay": 0.05},
                                            {"params": [self.bias], "weight_decay": 0.0}], lr=0.0)
        with open(case["features"], "rb") as file:
            self.features = torch.frombuffer(bytearray(file.read()), dtype=torch.float32).view(-1, s["input"])
        rows = [torch.tensor(sample["ids"]) for sample in case["samples"]]
        asked = [torch.tensor(sample["targets"]) for sample in case["samples"]]
        pad = lambda parts, value: torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=value)
        ids = pad(rows, 0)
        self.targets = pad(asked, -1)
        self.picture = ids < 0
        self.embedded = F.embedding(ids.clamp(min=0), self.w["token_embd.weight"])
        half = s["width"] // s["heads"] // 2
        angle = torch.arange(ids.shape[1])[:, None].float() * s["theta"] ** (-torch.arange(half).float() / half)
        self.cos, self.sin = (f()[None, None].to(dtype) for f in (angle.cos, angle.sin))

    def weight_bytes(self):
        return sum(value.numel() * value.element_size() for value in [*self.w.values(), self.weight, self.bias])

    def norm(self, x, name):
        return F.rms_norm(x, (x.shape[-1],), self.w[name], self.sizes["epsilon"])

    def rope(self, x):
        """Pairs side by side, as the model file orders the rows of q and k. x: [B, heads, T, head]."""
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack([a * self.cos - b * self.sin, b * self.cos + a * self.sin], -1).flatten(-2)

    def llama(self, x):
        s = self.sizes
        split = lambda y, heads: y.view(*y.shape[:2], heads, -1).transpose(1, 2)
        for i in range(s["depth"]):
            p = lambda name: self.w[f"blk.{i}.{name}.weight"]
            h = self.norm(x, f"blk.{i}.attn_norm.weight")
            q = self.rope(split(F.linear(h, p("attn_q")), s["heads"]))
            k = self.rope(split(F.linear(h, p("attn_k")), s["kvHeads"]))
            v = split(F.linear(h, p("attn_v")), s["kvHeads"])
            repeat = s["heads"] // s["kvHeads"]
            if repeat > 1:
                k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
            a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + F.linear(a.transpose(1, 2).flatten(-2), p("attn_output"))
            h = self.norm(x, f"blk.{i}.ffn_norm.weight")
            x = x + F.linear(F.silu(F.linear(h, p("ffn_gate"))) * F.linear(h, p("ffn_up")), p("ffn_down"))
        return F.linear(self.norm(x, "output_norm.weight"), self.w["output.weight"])

    def run(self):
        image = F.linear(self.features, self.weight, self.bias).to(self.dtype)
        x = self.embedded.masked_scatter(self.picture[..., None], image)
        logits = self.llama(x).float()
        loss = F.cross_entropy(logits.flatten(0, 1), self.targets.flatten(), ignore_index=-1)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()


def main():
    with open(sys.argv[1]) as file:
        case = json.load(file)
    wishes = json.loads(sys.argv[2])
    torch.set_num_threads(wishes["threads"])
    torch.manual_seed(0)
    step = Step(case, getattr(torch, wishes["dtype"]))
    say(ready=True, weightBytes=step.weight_bytes(), device=f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for line in sys.stdin:
        if line.strip() != "step":
            sys.exit(f"expected the line 'step', found {line!r}")
        began = time.perf_counter()
        loss = step.run()
        say(ms=1000 * (time.perf_counter() - began), loss=loss)
    say(owners=[])


main()
