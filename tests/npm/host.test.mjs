// A host's API from JavaScript: what a restore that outlives its program takes.
import assert from "node:assert/strict";
import test from "node:test";

import { until } from "../browser/support/retinker.mjs";
import { installed, run, write } from "./support/folder.mjs";
import { KEY, MODEL, startService } from "./support/service.mjs";

test("a host finds a poisoned run, restores it, and hands it over", async (t) => {
  const { url, host: options, fault } = await startService(t);
  const { folder, retinker } = await installed(t);
  const { HostClient, HostError, ServiceClient, TrainingClient } = retinker;
  const service = new ServiceClient({ baseUrl: url, apiKey: KEY });
  t.after(() => service.dispose());
  const client = await service.createLoraTrainingClient({ baseModel: MODEL, rank: 4, userMetadata: { name: "one of mine" } });
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
  /** Runs what the console gives out to copy. */
  const typescript = async (snippets) => {
    const { code } = snippets.find(({ language }) => language === "typescript");
    await write(folder, { "snippet.mjs": code });
    return (await run("node", ["snippet.mjs"], folder, { TINKER_API_KEY: KEY })).trim();
  };
  assert.equal(await typescript(snippets), `attached to ${attachment.modelId}`);
  const again = await TrainingClient.attach(attachment, service);
  assert.match((await again.saveState("again")).path, /again$/);
  const detail = await host.run(again.modelId);
  const made = (await typescript(detail.snippets)).match(/^new run: (\S+)$/);
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
