# ruff: noqa: F821
# Stands behind the console's snippet in the browser test: `training_client` is what the snippet made.
import json
import sys

import tinker

text_file, first_step, steps, learning_rate = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
with open(text_file, "rb") as file:
    text = file.read()


def batch(step, length=64, size=4):
    """The same batch as the Rust example `train` takes at this step."""
    data = []
    for k in range(size):
        place = ((step * size + k + 1) * 0x9E3779B97F4A7C15) % 2**64
        place ^= place >> 29
        start = place % (len(text) - length)
        piece = text[start : start + length + 1]
        data.append(
            tinker.Datum(
                model_input=tinker.ModelInput.from_ints(list(piece[:-1])),
                loss_fn_inputs={"target_tokens": list(piece[1:]), "weights": [1.0] * length},
            )
        )
    return data


for step in range(first_step, first_step + steps):
    gradients = training_client.forward_backward(batch(step), "cross_entropy")
    update = training_client.optim_step(tinker.AdamParams(learning_rate=learning_rate))
    loss = gradients.result().metrics["loss:sum"]
    update.result()
    print(json.dumps({"step": step, "loss": loss}), flush=True)
