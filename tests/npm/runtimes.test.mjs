// The package in Deno, in Bun, and in an edge worker.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import test from "node:test";

import { Miniflare } from "miniflare";

import { freshFolder, run, TOOLS } from "./support/folder.mjs";
import { KEY, MODEL, startService } from "./support/service.mjs";

const PROGRAM = `
  import { RestClient, ServiceClient } from "retinker";
  const [, , url] = process.argv;
  const service = new ServiceClient({ baseUrl: url, apiKey: "${KEY}" });
  const client = await service.createLoraTrainingClient({ baseModel: "${MODEL}", rank: 4, seed: 1 });
  const data = [{ modelInput: [1, 2, 3], lossFnInputs: { target_tokens: [2, 3, 4], weights: [1, 1, 1] } }];
  const { metrics } = await client.forwardBackward(data, "cross_entropy");
  const runs = [];
  for await (const run of new RestClient(service).trainingRuns()) runs.push(run.trainingRunId);
  console.log(JSON.stringify({ loss: metrics["loss:sum"], found: runs.includes(client.modelId) }));
  await service.finish();
`;

const same = async (t, start) => {
  const { url } = await startService(t);
  const folder = await freshFolder(t, { "program.mjs": PROGRAM });
  const there = JSON.parse(await run("node", ["program.mjs", url], folder));
  assert.ok(there.found && there.loss > 0);
  assert.deepEqual(JSON.parse(await start(folder, url)), there);
};

test("Deno does what Node does", (t) =>
  same(t, (folder, url) => run(join(TOOLS, ".bin/deno"), ["run", "--allow-all", "--quiet", "program.mjs", url], folder, { NO_COLOR: "1" })));

test("Bun does what Node does", (t) => same(t, (folder, url) => run(join(TOOLS, ".bin/bun"), ["program.mjs", url], folder)));

test("an edge worker asks a service, and is told of what it does not have", async (t) => {
  const { url } = await startService(t);
  const folder = await freshFolder(t);
  const dist = join(folder, "node_modules/retinker/dist");
  const worker = `
    import { RestClient, StatusError } from "./esm/rest.workerd.js";
    import { SamplingClient, ServiceClient } from "./esm/index.workerd.js";
    export default {
      async fetch(request, { SERVICE, KEY }) {
        const rest = new RestClient({ baseUrl: SERVICE, apiKey: KEY });
        const { supportedModels } = await rest.getServerCapabilities();
        const refused = await rest.getTrainingRun("no:train:0").catch((error) => error);
        const service = new ServiceClient({ baseUrl: SERVICE, apiKey: KEY });
        const sampling = await service.createSamplingClient({ baseModel: "${MODEL}" });
        const { sequences } = await sampling.sample([1, 2, 3], { samplingParams: { maxTokens: 4, stop: [] } });
        await service.finish();
        return Response.json({
          model: supportedModels.find(({ modelName }) => modelName === "${MODEL}").modelName,
          refused: refused instanceof StatusError && refused.status,
          tokens: sequences[0].tokens.length,
        });
      },
    };`;
  const module = async (type, path) => ({ type, path, contents: await readFile(join(dist, path), type === "ESModule" ? "utf8" : undefined) });
  const edge = new Miniflare({
    modules: [
      { type: "ESModule", path: "worker.js", contents: worker },
      await module("ESModule", "esm/index.workerd.js"),
      await module("ESModule", "esm/rest.workerd.js"),
      await module("CompiledWasm", "retinker.wasm"),
      await module("CompiledWasm", "rest.wasm"),
    ],
    modulesRoot: ".",
    compatibilityDate: "2026-07-01",
    bindings: { SERVICE: url, KEY },
  });
  t.after(() => edge.dispose());
  const answer = await edge.dispatchFetch("http://edge.test/");
  assert.deepEqual(await answer.json(), { model: MODEL, refused: 404, tokens: 4 });
});
