// What a training program asks of the service, in plain requests.

const KEY = { "x-api-key": "tml-test", "content-type": "application/json" };

/** Tokens of a text, and the batch that trains on them. */
export function batchOf(text) {
  const tokens = [...Buffer.from(text)];
  const targets = tokens.slice(1);
  const batch = {
    model_input: { chunks: [{ type: "encoded_text", tokens: tokens.slice(0, -1) }] },
    loss_fn_inputs: {
      target_tokens: { data: targets, dtype: "int64", shape: [targets.length] },
      weights: { data: targets.map(() => 1), dtype: "float32", shape: [targets.length] },
    },
  };
  return { tokens, batch };
}

/** A client of the service itself, beside the console. */
export class Service {
  constructor(baseUrl) {
    this.baseUrl = baseUrl;
  }

  /** Posts what has to be accepted. */
  async post(path, body) {
    const { status, answer } = await this.ask(path, body);
    if (status !== 200) throw new Error(`POST ${path}: ${status} ${JSON.stringify(answer)}`);
    return answer;
  }

  async ask(path, body) {
    const response = await fetch(`${this.baseUrl}/api/v1/${path}`, {
      method: "POST",
      headers: KEY,
      body: JSON.stringify(body),
    });
    return { status: response.status, answer: await response.json() };
  }

  /** Submits, and waits for the result. */
  async call(path, body) {
    const { request_id } = await this.post(path, body);
    for (;;) {
      const result = await this.post("retrieve_future", { request_id });
      if (result.type !== "try_again") return result;
    }
  }

  async session(more = {}) {
    const body = { tags: [], user_metadata: {}, sdk_version: "test", ...more };
    return (await this.post("create_session", body)).session_id;
  }

  /** A run of this session; its id. */
  async run(sessionId, number, name) {
    const result = await this.call("create_model", {
      session_id: sessionId,
      model_seq_id: number,
      base_model: "retinker/nano-llama",
      lora_config: { rank: 4, seed: 7 },
      user_metadata: { name },
    });
    return result.model_id;
  }

  async search(body) {
    return (await this.post("sessions/search", body)).sessions;
  }
}
