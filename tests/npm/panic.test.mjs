// What becomes of promises when the wasm panics: they are rejected, all of them.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import test from "node:test";

import { ConnectionError, PanickedError, RestClient, ServiceClient } from "../../crates/wasm/npm/dist-panics/esm/index.node.js";

/** A service that answers questions about samplers, and nothing else, ever. */
async function slow(t) {
  const server = createServer((request, response) => {
    if (!request.url.includes("/samplers/") && !request.url.includes("client/config")) return;
    const body = request.url.includes("config") ? {} : { sampler_id: "x", base_model: request.url.split("/").at(-1) };
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(body));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => (server.closeAllConnections(), server.close()));
  return `http://127.0.0.1:${server.address().port}`;
}

test("a panic rejects what waits, and what is asked afterwards", async (t) => {
  const baseUrl = await slow(t);
  const rest = new RestClient({ baseUrl, apiKey: "key" });
  assert.equal((await rest.getSampler("fine")).baseModel, "fine");
  const waits = rest.listTrainingRuns();
  const told = (error) => error instanceof PanickedError && error.code === "panicked" && /on purpose/.test(error.message);
  await Promise.all([assert.rejects(waits, told), assert.rejects(rest.getSampler("panic"), told)]);
  await assert.rejects(rest.getSampler("fine"), told);
  assert.throws(() => new ServiceClient({ baseUrl, apiKey: "key" }), told);
  assert.ok(ConnectionError.prototype instanceof Error);
});
