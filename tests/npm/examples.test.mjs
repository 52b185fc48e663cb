// The package's examples, run as their first lines say: in Deno, which like Node 24 takes TypeScript and `using` as they are.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { cp } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import test from "node:test";

import { freshFolder, installed, run, TOOLS } from "./support/folder.mjs";
import { KEY, MODEL, startService } from "./support/service.mjs";

const DENO = join(TOOLS, ".bin/deno");
const started = (name, args) => ["run", "--allow-all", "--quiet", `${name}.ts`, ...args];

async function prepared(t) {
  const service = await startService(t);
  const folder = await freshFolder(t);
  await cp(join(folder, "node_modules/retinker/examples"), folder, { recursive: true });
  const env = { TINKER_BASE_URL: service.url, TINKER_API_KEY: KEY, NO_COLOR: "1" };
  return { ...service, folder, env, example: (name, ...args) => run(DENO, started(name, args), folder, env) };
}

/** The loss that was printed last for each step. */
const losses = (text) => new Map([...text.matchAll(/^step (\d+): loss (\S+)$/gm)].map(([, step, loss]) => [Number(step), loss]));

test("train.ts goes on through a poisoning with the losses of a run that nothing happened to", async (t) => {
  const { url, fault, folder, env, example } = await prepared(t);
  const { retinker } = await installed(t);
  const rest = new retinker.RestClient({ baseUrl: url, apiKey: KEY });
  t.after(() => rest.dispose());
  const expected = losses(await example("train", "60"));
  assert.equal(expected.size, 60);

  const child = spawn(DENO, started("train", ["60"]), { cwd: folder, env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise((resolve) => child.on("exit", resolve));
  let said = "";
  for await (const line of createInterface({ input: child.stdout })) {
    said += `${line}\n`;
    if (!line.startsWith("step 7:")) continue;
    const { trainingRuns } = await rest.listTrainingRuns();
    const last = trainingRuns.reduce((a, b) => (a.lastRequestTime > b.lastRequestTime ? a : b));
    if (!/a machine died/i.test(said)) await fault("poison", { run_id: last.trainingRunId, reason: "a machine died" });
  }
  assert.equal(await ended, 0, said);
  assert.match(said, /a machine died/i);
  assert.deepEqual(losses(said), expected);
});

test("the other examples say what they find and do", async (t) => {
  const { url, fault, example } = await prepared(t);
  const { retinker } = await installed(t);
  const service = new retinker.ServiceClient({ baseUrl: url, apiKey: KEY });
  t.after(() => service.dispose());
  const client = await service.createLoraTrainingClient({ baseModel: MODEL, rank: 4, userMetadata: { name: "the lost one" } });
  for (const name of ["first", "second"]) await client.saveState(name);
  assert.match(await example("poisoned"), /^No run is poisoned\.$/m);
  await fault("poison", { run_id: client.modelId, reason: "a machine died" });
  const lost = await example("poisoned");
  assert.match(lost, /^the lost one\n {2}.*a machine died.*\n {2}Restored from weights\/second it would lose: .*\n1 poisoned\.$/im);

  const tidied = await example("checkpoints");
  assert.match(tidied, /^Would give a week to .*\/weights\/first \(\d+\.\d MB\)\n1 runs keep their newest checkpoint\.$/m);
  await example("checkpoints", "--yes");
  const rest = new retinker.RestClient(service);
  const kept = new Map((await rest.listCheckpoints(client.modelId)).map(({ checkpointId, expiresAt }) => [checkpointId, expiresAt]));
  assert.ok(kept.get("weights/first") instanceof Date);
  assert.equal(kept.get("weights/second"), undefined);

  const restored = await example("restore", client.modelId);
  assert.match(restored, /^Run \S+ takes its place: \w+\.\nSaved as tinker:\S+\/weights\/restored\.$/m);
  assert.match(await example("sample", "5"), /^5\/5: \d+( \d+){15} \(-\d+\.\d\d nats\)$/m);
});
