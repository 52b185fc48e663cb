"""Which of the SDK's methods the tests called, each of its own client."""

import functools
import inspect
import sys
from pathlib import Path

import tinker

CLIENTS = (
    tinker.ServiceClient,
    tinker.TrainingClient,
    tinker.SamplingClient,
    tinker.RestClient,
    tinker.AdminClient,
)
#: Of the clients, but nothing to do with the service.
LOCAL = {"get_telemetry", "on_queue_state_change", "create", "holder"}
#: Called by tests in processes of their own.
ELSEWHERE = {
    "ServiceClient.create_custom_loss",
    "TrainingClient.forward_backward_custom",
    "TrainingClient.forward_backward_custom_async",
    "SamplingClient.from_sampler_handle",
    "SamplingClient.get_tokenizer",
}
HERE = str(Path(__file__).parent)

called: set[str] = set()


def public(client) -> set[str]:
    return {name for name, _ in inspect.getmembers(client, callable) if not name.startswith("_")}


def watch() -> None:
    """Notes from now on which methods are called from here; those that the SDK calls itself do not count."""

    def noting(name, method):
        @functools.wraps(method)
        def noted(*args, **kwargs):
            if sys._getframe(1).f_code.co_filename.startswith(HERE):
                called.add(name)
            return method(*args, **kwargs)

        return noted

    for client in CLIENTS:
        for name in public(client):
            method = inspect.getattr_static(client, name)
            if inspect.isfunction(method):
                setattr(client, name, noting(f"{client.__name__}.{name}", method))
            elif isinstance(method, staticmethod):
                noted = noting(f"{client.__name__}.{name}", method.__func__)
                setattr(client, name, staticmethod(noted))


def not_called() -> set[str]:
    offered = {f"{client.__name__}.{name}" for client in CLIENTS for name in public(client) - LOCAL}
    return offered - called - ELSEWHERE
