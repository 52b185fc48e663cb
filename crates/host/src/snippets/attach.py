# Goes on with a restored run, with optimizer state and all. Needs `pip install tinker==0.38.0` and TINKER_API_KEY.
from tinker.lib.internal_client_holder import InternalClientHolder
from tinker.lib.public_interfaces.training_client import TrainingClient, fetch_training_info

# The number is good for one attach: a second program needs the number that the first one ended with.


def attach(base_url, session_id, model_id, next_seq_id):
    # Given a session id, the holder opens no session: it keeps that one alive.
    holder = InternalClientHolder(base_url=base_url, session_id=session_id)
    holder._sampling_client_counter = 0  # this session has made no sampler yet
    info = holder.run_coroutine_threadsafe(fetch_training_info(holder, model_id)).result()
    client = TrainingClient(holder, model_seq_id=0, model_id=model_id, info=info)
    client._request_id_counter = client._turn_counter = next_seq_id - 1
    return client


training_client = attach({base_url}, {session_id}, {model_id}, {next_seq_id})
print("attached to", training_client.get_info().model_id)
