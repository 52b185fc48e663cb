# A first run, with the official SDK: pip install tinker
import tinker

service = tinker.ServiceClient(base_url={base_url}, api_key={key})
run = service.create_lora_training_client(
    base_model={model}, rank=8, user_metadata={"name": "first run"}
).result()
tokens = list(range(1, 33))
datum = tinker.Datum(
    model_input=tinker.ModelInput.from_ints(tokens[:-1]),
    loss_fn_inputs={"target_tokens": tokens[1:], "weights": [1.0] * 31},
)
for step in range(10):
    gradients = run.forward_backward([datum], "cross_entropy")
    update = run.optim_step(tinker.AdamParams(learning_rate=1e-3))
    print(step, gradients.result().metrics)
    update.result()
print("saved as", run.save_state("first").result().path)
