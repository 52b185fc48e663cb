// The package in Chromium: built by Vite, without a bundler, in a web worker, and under a strict Content-Security-Policy.
import assert from "node:assert/strict";
import { join } from "node:path";
import test from "node:test";

import { freshFolder, run, TOOLS } from "./support/folder.mjs";
import { openChromium, serve } from "./support/page.mjs";
import { MODEL, startService } from "./support/service.mjs";

/** What a page of this address says when it is done. */
async function said(t, address) {
  const browser = await openChromium(t);
  const page = await browser.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  await page.goto(address);
  await page.waitForFunction(() => document.body.dataset.said, undefined, { timeout: 60_000 }).catch((error) => {
    throw new Error(`the page says nothing: ${errors.join("\n")}\n${error}`);
  });
  assert.deepEqual(errors, []);
  const workers = page.workers().map((worker) => new URL(worker.url()).pathname);
  return { ...JSON.parse(await page.evaluate(() => document.body.dataset.said)), workers };
}

const STORY = `
  export async function story({ ServiceClient }, baseUrl) {
    const service = new ServiceClient({ baseUrl });
    const client = await service.createLoraTrainingClient({ baseModel: "${MODEL}", rank: 4, seed: 1 });
    const data = [{ modelInput: [1, 2, 3], lossFnInputs: { target_tokens: [2, 3, 4], weights: [1, 1, 1] } }];
    const { metrics, lossFnOutputs } = await client.forwardBackward(data, "cross_entropy");
    const { path } = await client.saveState("here");
    const [checkpoint] = await service.createRestClient().listCheckpoints(client.modelId);
    await service.finish();
    return { loss: metrics["loss:sum"], floats: lossFnOutputs[0].logprobs.data instanceof Float32Array, same: checkpoint.tinkerPath === path };
  }`;
const right = (said) => assert.ok(said.loss > 0 && said.floats && said.same, JSON.stringify(said));
/** Long timers, such as those of heartbeats, are a worker's: the browser slows a page's own ones down. */
const beats = ({ workers }) => assert.match(workers.join(" "), /timers\.worker/);

test("a page that Vite has built", async (t) => {
  const { url } = await startService(t);
  const folder = await freshFolder(t, {
    "index.html": '<!doctype html><body><script type="module" src="/main.js"></script></body>',
    "story.js": STORY,
    "main.js": `
      import * as retinker from "retinker";
      import { story } from "./story.js";
      document.body.dataset.said = JSON.stringify(await story(retinker, location.origin));`,
  });
  await run(join(TOOLS, ".bin/vite"), ["build", "--logLevel", "warn"], folder);
  const told = await said(t, await serve(t, url, join(folder, "dist")));
  right(told);
  beats(told);
});

test("a web worker that Vite has built", async (t) => {
  const { url } = await startService(t);
  const folder = await freshFolder(t, {
    "index.html": '<!doctype html><body><script type="module" src="/main.js"></script></body>',
    "story.js": STORY,
    "worker.js": `
      import * as retinker from "retinker";
      import { story } from "./story.js";
      story(retinker, location.origin).then((said) => postMessage(said), (error) => postMessage({ error: String(error) }));`,
    "main.js": `
      const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
      worker.onmessage = ({ data }) => (document.body.dataset.said = JSON.stringify(data));`,
    "vite.config.js": 'export default { worker: { format: "es" } };',
  });
  await run(join(TOOLS, ".bin/vite"), ["build", "--logLevel", "warn"], folder);
  right(await said(t, await serve(t, url, join(folder, "dist"))));
});

test("a plain page, once it has called init, and what it is told if it has not", async (t) => {
  const { url } = await startService(t);
  const folder = await freshFolder(t, {
    "page/index.html": '<!doctype html><body><script type="module" src="/main.js"></script></body>',
    "page/story.js": STORY,
    "page/main.js": `
      import * as retinker from "/retinker/dist/esm/index.js";
      import { story } from "./story.js";
      const { init, RestClient } = retinker;
      const before = await new RestClient({ baseUrl: location.origin }).listTrainingRuns().catch((error) => error);
      await init();
      const after = await story(retinker, location.origin);
      document.body.dataset.said = JSON.stringify({ ...after, code: before.code, message: before.message });`,
  });
  const told = await said(t, await serve(t, url, join(folder, "node_modules"), join(folder, "page")));
  right(told);
  beats(told);
  assert.equal(told.code, "config");
  assert.match(told.message, /call `await init\(\)` once/);
});

test("a plain page that says where the wasm is, of the smaller entry", async (t) => {
  const { url } = await startService(t);
  const folder = await freshFolder(t, {
    "page/index.html": '<!doctype html><body><script type="module" src="/main.js"></script></body>',
    "page/main.js": `
      import { init, RestClient } from "/retinker/dist/esm/rest.js";
      const wrong = await init(new Uint8Array([0, 1, 2])).catch((error) => error.message);
      await init(new URL("/retinker/dist/rest.wasm", location.href));
      const { supportedModels } = await new RestClient({ baseUrl: location.origin }).getServerCapabilities();
      document.body.dataset.said = JSON.stringify({ wrong, model: supportedModels.find(({ modelName }) => modelName === "${MODEL}").modelName });`,
  });
  const address = await serve(t, url, join(folder, "node_modules"), join(folder, "page"));
  const { wrong, model } = await said(t, address);
  assert.match(wrong, /could not be loaded/);
  assert.equal(model, MODEL);
});
