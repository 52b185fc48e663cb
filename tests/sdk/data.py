"""Examples to train on, and the arithmetic that answers are compared with."""

import numpy as np
from tinker import AdamParams, Datum, ModelInput, TensorData

#: The smallest built-in model: steps take milliseconds.
MODEL = "retinker/nano-llama"
#: The default one, for what takes time.
LARGER = "retinker/tiny-llama-1m"
BOS, EOS = 256, 257


def tokens(text: str) -> list[int]:
    """What the byte-level tokenizer makes of a text, without the marks of beginning and end."""
    return list(text.encode())


def datum(text: str | list[int], weight: float = 1.0, **inputs) -> Datum:
    """Each token is to be followed by the next."""
    ids = tokens(text) if isinstance(text, str) else text
    if not inputs:
        inputs = {"weights": [weight] * (len(ids) - 1)}
    return Datum(
        model_input=ModelInput.from_ints(ids[:-1]), loss_fn_inputs={"target_tokens": ids[1:], **inputs}
    )


TEXTS = ["the quick brown fox", "jumps over", "the lazy dog, twice"]
BATCH = [datum(text) for text in TEXTS]


def adam(learning_rate: float = 1e-2, **options) -> AdamParams:
    return AdamParams(learning_rate=learning_rate, **options)


def step(client, data=None, params=None) -> float:
    """One step of training; the loss before it."""
    passed = client.forward_backward(data or BATCH, "cross_entropy")
    stepped = client.optim_step(params or adam())
    stepped.result()
    return passed.result().metrics["loss:sum"]


def logprobs(client, data=None) -> np.ndarray:
    """The targets' logprobs under the client's weights, one example after the other."""
    output = client.forward(data or BATCH, "cross_entropy").result()
    return np.concatenate([np.asarray(one["logprobs"].data) for one in output.loss_fn_outputs])


def dense(array, dtype: str) -> TensorData:
    array = np.asarray(array)
    return TensorData(data=array, dtype=dtype, shape=list(array.shape))


def sparse(array, dtype: str, absent: int = 0) -> TensorData:
    """The CSR form of a matrix, as the SDK makes it of a torch tensor."""
    array = np.asarray(array)
    rows = [np.flatnonzero(row != absent) for row in array]
    return TensorData(
        data=np.concatenate([row[columns] for row, columns in zip(array, rows)]),
        dtype=dtype,
        shape=list(array.shape),
        sparse_crow_indices=[0, *np.cumsum([len(columns) for columns in rows]).tolist()],
        sparse_col_indices=np.concatenate(rows).tolist(),
    )
