"""What schemathesis cannot guess: ids of a session, a run and a checkpoint that exist.

About half of the generated requests are pointed at them; the others stay as they were made up.
"""

import itertools
import json
import os
import urllib.request

import schemathesis

BASE = os.environ["RETINKER_URL"] + "/api/v1/"
MODEL = "retinker/nano-llama"


def post(path, body):
    request = urllib.request.Request(
        BASE + path, json.dumps(body).encode(), {"Content-Type": "application/json", "X-API-Key": "tml-test"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def done(path, body):
    request_id = post(path, body)["request_id"]
    while True:
        result = post("retrieve_future", {"request_id": request_id})
        if result.get("type") != "try_again":
            return result


SESSION = post("create_session", {"tags": []})["session_id"]
RUN = done(
    "create_model",
    {"session_id": SESSION, "model_seq_id": 0, "base_model": MODEL, "lora_config": {"rank": 4}},
)["model_id"]
CHECKPOINT = done("save_weights", {"model_id": RUN, "seq_id": 1, "path": "kept"})["path"]
RESULT = f"{RUN}:1"

# Numbers that are free, in turn, so that the requests are carried out.
numbers = itertools.count(2)


def chosen(text):
    """Whether a made-up text gives way to a real one. Depends on the text only, so that a failure can be repeated."""
    return isinstance(text, str) and len(text) % 2 == 0


@schemathesis.hook
def map_body(context, body):
    if not isinstance(body, dict):
        return body
    body = dict(body)
    real = {
        "session_id": SESSION,
        "request_id": RESULT,
        "base_model": MODEL,
        "tinker_path": CHECKPOINT,
        "source_path": CHECKPOINT,
        "run_id": RUN,
    }
    if context.operation.path.endswith(("/load_weights", "/weights_info", "/expire", "/damage")):
        real["path"] = CHECKPOINT
    for member, value in real.items():
        if chosen(body.get(member)):
            body[member] = value
    if chosen(body.get("model_id")):
        body["model_id"] = RUN
        if isinstance(body.get("seq_id"), int | float):
            body["seq_id"] = next(numbers)
    return body


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    if not path_parameters:
        return path_parameters
    path_parameters = dict(path_parameters)
    # The session has to last.
    ends = context.operation.path.endswith("/finish")
    for member, value in {"run_id": RUN, "session_id": SESSION}.items():
        if chosen(path_parameters.get(member)) and not ends:
            path_parameters[member] = value
    return path_parameters
