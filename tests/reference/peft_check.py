"""Checks that peft loads what the service saves: peft_check.py URL DATA_DIR MODELS.

Trains adapters at a running service, loads their checkpoints from its data directory over the base model as
`transformers` reads it, and compares the log-probabilities.
"""

import json
import sys
import urllib.request
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

MODEL = "nano-llama"
TOLERANCE = 1e-4
TEXT = b"What one side has learnt, the other has to know as well."
SHAPES = {
    "everything": {},
    "attention": {"train_mlp": False, "train_unembed": False},
    "the rest": {"train_attn": False},
}


class Service:
    def __init__(self, url):
        self.url = url

    def post(self, path, body):
        data, headers = json.dumps(body).encode(), {"Content-Type": "application/json", "X-API-Key": "tml-reference"}
        request = urllib.request.Request(f"{self.url}/api/v1/{path}", data, headers)
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    def call(self, path, body):
        """Submits and waits for the result."""
        request_id = self.post(path, body)["request_id"]
        while True:
            result = self.post("retrieve_future", {"request_id": request_id})
            if result.get("type") != "try_again":
                break
        if "error" in result:
            sys.exit(f"{path}: {result['error']}")
        return result


def train(service, session, number, shape, tokens):
    """A run of some steps, saved; its id and the log-probabilities of the tokens."""
    lora = {"rank": 4, "seed": 7, **shape}
    base = f"retinker/{MODEL}"
    made = {"session_id": session, "model_seq_id": number, "base_model": base, "lora_config": lora}
    run = service.call("create_model", made)["model_id"]
    inputs = {"target_tokens": {"data": tokens[1:], "dtype": "int64"}}
    chunks = [{"type": "encoded_text", "tokens": tokens[:-1]}]
    data = [{"model_input": {"chunks": chunks}, "loss_fn_inputs": inputs}]
    batch = {"data": data, "loss_fn": "cross_entropy"}
    seq = 0

    def numbered(path, body):
        nonlocal seq
        seq += 1
        return service.call(path, {"model_id": run, "seq_id": seq, **body})

    for _ in range(6):
        numbered("forward_backward", {"forward_backward_input": batch})
        numbered("optim_step", {"adam_params": {"learning_rate": 0.01}})
    numbered("save_weights", {"path": "for-peft"})
    output = numbered("forward", {"forward_input": batch})
    return run, output["loss_fn_outputs"][0]["logprobs"]["data"]


def checkpoint_of(data_dir, known):
    """The one checkpoint that was not there before."""
    found = {path.parent for path in Path(data_dir).rglob("adapter_config.json")} - known
    if len(found) != 1:
        sys.exit(f"{len(found)} new checkpoints in {data_dir}; one is expected")
    return found.pop()


def main():
    url, data_dir, models = sys.argv[1:]
    service = Service(url)
    session = service.post("create_session", {"tags": [], "sdk_version": "peft-check"})["session_id"]
    tokens, known = [256, *TEXT], set()
    for number, (name, shape) in enumerate(SHAPES.items()):
        _, ours = train(service, session, number, shape, tokens)
        directory = checkpoint_of(data_dir, known)
        known.add(directory)
        base = LlamaForCausalLM.from_pretrained(Path(models) / MODEL, torch_dtype=torch.float32)
        model = PeftModel.from_pretrained(base, directory).eval()
        saved = load_file(directory / "adapter_model.safetensors")
        loaded = get_peft_model_state_dict(model, save_embedding_layers=False)
        if saved.keys() != loaded.keys() or any(not torch.equal(saved[k], loaded[k]) for k in saved):
            sys.exit(f"{name}: peft holds other tensors than were saved")
        targets = torch.tensor(tokens[1:])[:, None]

        def logprobs():
            with torch.no_grad():
                logits = model(torch.tensor([tokens[:-1]])).logits[0]
            return torch.log_softmax(logits, -1).gather(1, targets)[:, 0]

        theirs, ours = logprobs(), torch.tensor(ours)
        worst = float(torch.max(torch.abs(theirs - ours) / torch.abs(ours).clamp(min=1e-2)))
        with model.disable_adapter():
            moved = float(torch.max(torch.abs(logprobs() - theirs)))
        if worst > TOLERANCE or moved < 0.1:
            sys.exit(f"{name}: log-probabilities differ by {worst:.1e} relative (the adapter moves them by {moved:.2f})")
        print(f"peft, {name}: {len(saved)} tensors; log-probabilities agree to {worst:.1e} relative.")


if __name__ == "__main__":
    main()
