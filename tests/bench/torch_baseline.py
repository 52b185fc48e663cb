"""PyTorch's side of `cargo xtask bench local`: the default model of the embedded service, trained on the CPU.

A Llama decoder with LoRA on every projection and the unembedding, base frozen, AdamW: what a competent user writes. All
sequences of a batch run as one tensor, attention is the library's own where it has one, nothing is copied needlessly.

Reads one line of JSON, the sizes; then answers each line of standard input, a number of seconds, with a line of JSON:
how many optimizer steps it took and in what time. The first answer describes what runs.
"""

import json
import math
import os
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn


class LoraLinear(nn.Module):
    """A frozen projection with a low-rank addition."""

    def __init__(self, inputs, outputs, rank, scale):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / math.sqrt(inputs), requires_grad=False)
        self.a = nn.Parameter(torch.empty(rank, inputs).uniform_(-1, 1) / math.sqrt(inputs))
        self.b = nn.Parameter(torch.zeros(outputs, rank))
        self.scale = scale

    def forward(self, x):
        # Over flat rows the frozen projection and the addition are one call each, the sum being done by the second.
        return torch.addmm(F.linear(x, self.weight), F.linear(x, self.a), self.b.t(), alpha=self.scale)


class RMSNorm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width), requires_grad=False)
        self.eps = eps

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    low, high = x[..., :half], x[..., half:]
    return torch.cat((low * cos - high * sin, high * cos + low * sin), -1)


def attention(q, k, v, mask):
    if hasattr(F, "scaled_dot_product_attention"):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    scores = torch.matmul(q * (1 / math.sqrt(q.shape[-1])), k.transpose(-2, -1)) + mask
    return torch.matmul(scores.softmax(-1), v)


class Layer(nn.Module):
    def __init__(self, size, lora):
        super().__init__()
        d, ff, self.heads, self.kv_heads = size["d_model"], size["d_ff"], size["n_heads"], size["n_kv_heads"]
        self.width = d // self.heads
        kv = self.kv_heads * self.width
        self.norm1, self.norm2 = RMSNorm(d, size["norm_eps"]), RMSNorm(d, size["norm_eps"])
        self.q, self.k, self.v = LoraLinear(d, d, *lora), LoraLinear(d, kv, *lora), LoraLinear(d, kv, *lora)
        self.o = LoraLinear(d, d, *lora)
        self.gate, self.up = LoraLinear(d, ff, *lora), LoraLinear(d, ff, *lora)
        self.down = LoraLinear(ff, d, *lora)

    def split(self, x, batch, heads):
        return x.view(batch, -1, heads, self.width).transpose(1, 2)

    def forward(self, x, batch, cos, sin, mask):
        y = self.norm1(x)
        q = rotate(self.split(self.q(y), batch, self.heads), cos, sin)
        k = rotate(self.split(self.k(y), batch, self.kv_heads), cos, sin)
        v = self.split(self.v(y), batch, self.kv_heads)
        if self.kv_heads != self.heads:
            k, v = (t.repeat_interleave(self.heads // self.kv_heads, 1) for t in (k, v))
        y = attention(q, k, v, mask).transpose(1, 2).reshape(x.shape)
        x = x + self.o(y)
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Llama(nn.Module):
    def __init__(self, size, length):
        super().__init__()
        d, lora = size["d_model"], (size["rank"], size["alpha"] / size["rank"])
        self.embedding = nn.Embedding(size["vocab_size"], d)
        self.embedding.weight.requires_grad = False
        self.layers = nn.ModuleList(Layer(size, lora) for _ in range(size["n_layers"]))
        self.norm = RMSNorm(d, size["norm_eps"])
        self.head = LoraLinear(d, size["vocab_size"], *lora)
        half = d // size["n_heads"] // 2
        rates = size["rope_theta"] ** -(torch.arange(half) / half)
        angles = torch.arange(length)[:, None] * rates
        self.cos, self.sin = angles.cos(), angles.sin()
        self.mask = torch.full((length, length), -math.inf).triu(1)

    def forward(self, tokens):
        x = self.embedding(tokens.view(-1))
        for layer in self.layers:
            x = layer(x, tokens.shape[0], self.cos, self.sin, self.mask)
        return self.head(self.norm(x))


def blas():
    """The file of the library that multiplies matrices, or nothing where that cannot be told."""
    with open("/proc/self/maps") as maps:
        files = {os.path.basename(line.split()[-1]) for line in maps if "/" in line}
    names = [name for name in sorted(files) if "mkl_core" in name or "blas" in name]
    # libblas.so.3 is what others stand behind.
    return next((name for name in names if not name.startswith("libblas")), names[0] if names else "")


def main():
    size = json.loads(sys.stdin.readline())
    torch.set_num_threads(size["threads"])
    torch.manual_seed(0)
    model = Llama(size, size["length"])
    trained = [p for p in model.parameters() if p.requires_grad]
    # The fused-by-list form costs less where there are many small tensors; it exists since 1.12.
    optimizer = torch.optim.AdamW(trained, lr=1e-4, betas=(0.9, 0.95), eps=1e-12, weight_decay=0.0, foreach=True)
    tokens = torch.randint(0, 256, (size["batch"], size["length"] + 1))
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].reshape(-1)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(inputs), targets, reduction="sum")
        loss.backward()
        optimizer.step()
        return loss.item()

    for _ in range(3):
        step()
    print(json.dumps({
        "torch": torch.__version__,
        "blas": blas(),
        "trained": sum(p.numel() for p in trained),
    }), flush=True)
    for line in sys.stdin:
        span, steps, begin = float(line), 0, time.perf_counter()
        while (took := time.perf_counter() - begin) < span:
            step()
            steps += 1
        print(json.dumps({"steps": steps, "seconds": took}), flush=True)


if __name__ == "__main__":
    main()
