"""Requests as they are on the wire, for what the SDK of today does not send."""

import time

import httpx
from tinker import types
from tinker.proto.request_conv import forward_backward_request_to_proto

from data import MODEL
from service import KEY

PROTOBUF = "application/x-protobuf"


class Wire:
    """Posts, and waits for results."""

    def __init__(self, url: str):
        self.http = httpx.Client(base_url=f"{url}/api/v1/", headers={"X-API-Key": KEY}, timeout=60)

    def post(self, path: str, body: dict, **options) -> httpx.Response:
        return self.http.post(path, json=body, **options)

    def ok(self, path: str, body: dict) -> dict:
        answer = self.post(path, body)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
        return answer.json()

    def result(self, submission: dict, **headers) -> httpx.Response:
        """What became of a request, once it has."""
        body = {"request_id": submission["request_id"], "allow_metadata_only": False}
        while True:
            answer = self.post("retrieve_future", body, headers=headers)
            assert answer.status_code == 200, answer.text
            if PROTOBUF in answer.headers["content-type"] or answer.json().get("type") != "try_again":
                return answer
            time.sleep(0.01)

    def session(self) -> str:
        body = {"tags": [], "user_metadata": {}, "sdk_version": "0.15.0", "type": "create_session"}
        return self.ok("create_session", body)["session_id"]

    def model(self, session_id: str, model_seq_id: int = 0, **options) -> str:
        body = {
            "session_id": session_id,
            "model_seq_id": model_seq_id,
            "base_model": MODEL,
            "lora_config": {
                "rank": 8,
                "seed": 7,
                "train_unembed": True,
                "train_mlp": True,
                "train_attn": True,
            },
            "type": "create_model",
            **options,
        }
        return self.result(self.ok("create_model", body)).json()["model_id"]

    def pass_of(self, content: bytes, **headers) -> httpx.Response:
        return self.http.post(
            "forward_backward", content=content, headers={"Content-Type": PROTOBUF, **headers}
        )


def protobuf_pass(model_id: str, seq_id: int, data, loss: str = "cross_entropy") -> bytes:
    """The body that the SDK makes of a forward and backward pass."""
    input = types.ForwardBackwardInput(data=data, loss_fn=loss)
    request = types.ForwardBackwardRequest(forward_backward_input=input, model_id=model_id, seq_id=seq_id)
    return forward_backward_request_to_proto(request).SerializeToString()
