// A host's API from JavaScript: what a restore that outlives its program takes.
import assert from "node:assert/strict";
import test from "node:test";

import { until } from "../browser/support/retinker.mjs";
import { installed, run, write } from "./support/folder.mjs";
import { KEY, MODEL, startService } from "./support/service.mjs";

const EXAMPLE = { modelInput: [1, 2, 3, 4], lossFnInputs: { target_tokens: [2, 3, 4, 5], weights: [1, 1, 1, 1] } };

/** Takes a step of training; its loss. */
async function step(client) {
  const pass = client.forwardBackward([EXAMPLE], "cross_entropy");
  await client.optimStep({ learningRate: 1e-2 });
  return (await pass).metrics["loss:sum"];
}

test("a host finds a poisoned run, restores it, and hands it over", async (t) => {
  const { url, host: options, fault } = await startService(t);
  const { folder, retinker } = await installed(t);
  const { HostClient, HostError, ServiceClient, TrainingClient } = retinker;
  const service = new ServiceClient({ baseUrl: url, apiKey: KEY });
  t.after(() => service.dispose());
  const create = () => service.createLoraTrainingClient({ baseModel: MODEL, rank: 4, seed: 5, userMetadata: { name: "one of mine" } });
  const undisturbed = await create();
  await step(undisturbed);
  const expected = await step(undisturbed);
  const client = await create();
  await step(client);
  await client.saveState("saved");
  const host = new HostClient(options);
  t.after(() => host[Symbol.dispose]());
  const heard = [];
  const stop = new AbortController();
  const hearing = (async () => {
    for await (const event of host.events({ signal: stop.signal })) heard.push(event);
  })();
  await fault("poison", { run_id: client.modelId, reason: "a machine died" });
  const row = await until("the host sees it", async () => {
    const { rows } = await host.runs({ health: "poisoned", q: "name:mine" });
    return rows[0];
  });
  assert.equal(row.name, "one of mine");
  assert.ok(row.run.lastRequestTime instanceof Date);
  assert.equal((await host.status()).service.kind, "local");
  assert.equal((await host.connections()).length, 1);
  const plan = await host.plan(client.modelId);
  const { restore, already } = await host.startRestore(plan);
  assert.equal(already, false);
  const record = await until("it is restored", async () => {
    const now = await host.restore(restore.id);
    return now.state === "adopted" && now;
  });
  assert.equal((await host.startRestore(plan)).already, true);
  assert.ok(heard.some((event) => event.type === "restore" && event.restore.id === restore.id));
  const { attachment, heartbeatsUntil, snippets } = await host.handOver(record.id);
  assert.ok(heartbeatsUntil instanceof Date);
  /** Runs what the console gives out to copy, and what somebody writes after it. */
  const typescript = async (snippets, more = "") => {
    const { code } = snippets.find(({ language }) => language === "typescript");
    await write(folder, { "snippet.mjs": `${code}\n${more}` });
    return (await run("node", ["snippet.mjs"], folder, { TINKER_API_KEY: KEY })).trim().split("\n");
  };
  const [said, went] = await typescript(
    snippets,
    `const EXAMPLE = ${JSON.stringify(EXAMPLE)};
    ${step}
    console.log(JSON.stringify({ loss: await step(trainingClient), attachment: trainingClient.attachment }));`,
  );
  assert.equal(said, `attached to ${attachment.modelId}`);
  const { loss, attachment: now } = JSON.parse(went);
  assert.equal(loss, expected, "it trains on as if nothing had happened");
  const again = await TrainingClient.attach(now, service);
  assert.match((await again.saveState("again")).path, /again$/);
  const detail = await host.run(again.modelId);
  await undisturbed.saveState("own");
  const fromCheckpoint = await until("the host knows its checkpoint", async () => {
    const { snippets } = await host.run(undisturbed.modelId);
    return snippets.some(({ code }) => code.includes("weights/own")) && snippets;
  });
  const made = (await typescript(fromCheckpoint))[0].match(/^new run: (\S+)$/);
  const labelled = await until("the host knows the run", async () => (await host.run(made[1]).catch(() => undefined))?.row);
  assert.equal(labelled.name, "one of mine", "it has the labels of the run whose checkpoint it is from");
  assert.deepEqual(detail.lineage.map(({ generation }) => generation), [0, 1]);
  assert.equal(detail.restoredBy.id, restore.id);
  assert.equal((await host.restores())[0].id, restore.id);
  assert.equal((await host.incidents())[0].runIds[0], client.modelId);
  assert.equal((await host.setMonitor("paused")).gate, "paused");
  assert.equal((await host.activity()).monitor.gate, "paused");
  await assert.rejects(host.run("no:train:0"), (error) => error instanceof HostError && error.code === "run_not_found" && error.status === 404);
  await assert.rejects(new HostClient({ ...options, token: "wrong" }).status(), (error) => error instanceof HostError && error.status === 401);
  stop.abort();
  await assert.rejects(hearing, { name: "AbortError" });
});
