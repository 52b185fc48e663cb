# Starts a new run from this checkpoint, with optimizer state. Needs `pip install tinker` and TINKER_API_KEY.
import tinker

service_client = tinker.ServiceClient(base_url={base_url})
training_client = service_client.create_training_client_from_state_with_optimizer(
    {path}, user_metadata={metadata}
)
print("new run:", training_client.get_info().model_id)
