// Goes on with a restored run, with optimizer state and all. Needs no package: Node 20, Deno or Bun, and TINKER_API_KEY.
// The number is good for one attach: a second program needs the number that the first one ended with.
const service = {base_url};
const session_id = {session_id};
const model_id = {model_id};
let next_seq_id = {next_seq_id};

async function post(endpoint: string, body: object): Promise<any> {
  const answer = await fetch(`${service}/api/v1/${endpoint}`, {
    method: "POST",
    headers: { "content-type": "application/json", "x-api-key": process.env.TINKER_API_KEY ?? "" },
    body: JSON.stringify(body),
  });
  if (!answer.ok) throw new Error(`${endpoint} was refused with status ${answer.status}: ${await answer.text()}`);
  return answer.json();
}

// Keeps the run's session alive, as long as this program lives.
const heartbeat = setInterval(() => post("session_heartbeat", { session_id, type: "session_heartbeat" }).catch(console.error), 10_000);

/** Sends the run's next request ("forward_backward", "optim_step", "save_weights" ...) and waits for its result. */
async function train(endpoint: string, body: object): Promise<any> {
  const { request_id } = await post(endpoint, { ...body, model_id, seq_id: next_seq_id++ });
  for (;;) {
    const result = await post("retrieve_future", { request_id, model_id });
    if (result.type !== "try_again") return result;
  }
}
