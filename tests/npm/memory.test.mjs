// What is made and disposed of leaves nothing behind in the wasm's memory.
import assert from "node:assert/strict";
import test from "node:test";

import { freshFolder, run } from "./support/folder.mjs";
import { KEY, MODEL, startService } from "./support/service.mjs";

test("1,000 rounds of clients made, used and disposed of take no more memory than the first ones", async (t) => {
  const { url } = await startService(t);
  const folder = await freshFolder(t, {
    "rounds.cjs": `
      const { Instance } = WebAssembly;
      let memory;
      WebAssembly.Instance = function (module, imports) {
        const instance = new Instance(module, imports);
        memory = instance.exports.memory;
        return instance;
      };
      const { HostClient, Recovery, RestClient, SamplingClient, ServiceClient, TrainingClient } = require("retinker");
      const [, , baseUrl] = process.argv;
      const example = { modelInput: new Int32Array(2000), lossFnInputs: { target_tokens: new Int32Array(2000), weights: new Float32Array(2000) } };
      async function round(client, attachment, handle) {
        const rest = new RestClient({ baseUrl, apiKey: "${KEY}" });
        const service = new ServiceClient({ baseUrl, apiKey: "${KEY}", userMetadata: { a: "x".repeat(1000) } });
        const recovery = new Recovery(rest);
        const host = new HostClient({ baseUrl, token: "none" });
        const training = await TrainingClient.attach(attachment, rest);
        const sampling = await SamplingClient.fromHandle(handle, rest);
        await host.status().catch(() => {});
        const controller = new AbortController();
        await rest.getTrainingRun("no:train:0", { signal: controller.signal }).catch(() => {});
        // Refused before it is sent, after its arrays were copied.
        await client.forward([example], "cross_entropy", { lossFnConfig: { wrong: {} } }).catch(() => {});
        for (const one of [training, sampling, host, rest, service, recovery]) one.dispose();
      }
      (async () => {
        const service = new ServiceClient({ baseUrl, apiKey: "${KEY}" });
        const client = await service.createLoraTrainingClient({ baseModel: "${MODEL}", rank: 4 });
        const guarded = { forward: async (...call) => client.forward(...call) };
        const { handle } = await service.createSamplingClient({ baseModel: "${MODEL}" });
        const rounds = async (many) => {
          for (let at = 0; at < many; at++) await round(guarded, client.attachment, handle);
          return memory.buffer.byteLength;
        };
        console.log(JSON.stringify([await rounds(200), await rounds(1000)]));
        await service.finish();
        process.exit(0);
      })();`,
  });
  const [before, after] = JSON.parse(await run("node", ["rounds.cjs", url], folder));
  assert.ok(before > 0);
  assert.equal(after, before);
});
