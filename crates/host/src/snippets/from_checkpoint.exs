# Starts a new run from this checkpoint, with optimizer state. Needs {:tinkex, "~> 0.4"} and TINKER_API_KEY.
{:ok, _} = Application.ensure_all_started(:tinkex)

config = Tinkex.Config.new(api_key: System.fetch_env!("TINKER_API_KEY"), base_url: {base_url})
{:ok, service_client} = Tinkex.ServiceClient.start_link(config: config)

{:ok, training_client} =
  Tinkex.ServiceClient.create_training_client_from_state_with_optimizer(service_client, {path})
