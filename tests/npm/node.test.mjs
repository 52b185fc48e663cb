// The package in Node: training that goes on after a poisoning as if nothing had happened, and all that surrounds it.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";
import test from "node:test";

import { installed, run, write } from "./support/folder.mjs";
import { KEY, MODEL, startService } from "./support/service.mjs";
import { example, train } from "./support/training.mjs";

test("a run that is poisoned is found, planned, restored, and trains on as if nothing had happened", async (t) => {
  const { url, fault } = await startService(t);
  const { retinker } = await installed(t);
  const { ServiceClient, TrainingClient, Recovery, RecoveryError, RestorePlan } = retinker;
  const service = new ServiceClient({ baseUrl: url, apiKey: KEY, displayName: "two runs" });
  t.after(() => service.dispose());
  const create = () => service.createLoraTrainingClient({ baseModel: MODEL, rank: 4, seed: 3, userMetadata: { name: "a run", my_label: "x" } });
  const undisturbed = await train(await create(), 0, 6);
  assert.ok(undisturbed.every(Number.isFinite) && new Set(undisturbed).size === 6, `${undisturbed}`);

  const client = await create();
  const first = await train(client, 0, 3);
  const { path } = await client.saveState("three", { userMetadata: { step_count: "3" } });
  assert.match(path, /^tinker:\/\/.*\/weights\/three$/);
  await fault("poison", { run_id: client.modelId, reason: "a machine died" });
  await assert.rejects(train(client, 3, 4), (error) => error instanceof retinker.RetinkerError && error.message.length > 0);

  const recovery = new Recovery(service, { onBehalfOf: "the tests" });
  const [lost, ...others] = await recovery.survey({ health: "poisoned" });
  assert.deepEqual(others, []);
  assert.equal(lost.run.trainingRunId, client.modelId);
  assert.equal(lost.run.corrupted, true);
  assert.deepEqual(lost.run.userMetadata, { name: "a run", my_label: "x" });
  assert.ok(lost.run.lastRequestTime instanceof Date && lost.run.lastCheckpoint.time instanceof Date);
  assert.match(lost.verdict.reason, /machine died/);
  assert.equal((await recovery.health(client.modelId)).verdict.health, "poisoned");

  const plan = await recovery.plan(client.modelId);
  assert.equal(plan.checkpoint.tinkerPath, path);
  assert.equal(plan.optimizer, true);
  assert.ok(plan.madeAt instanceof Date && plan.checks.length > 0);
  const kept = await RestorePlan.from(JSON.stringify(plan));
  assert.deepEqual({ ...kept }, { ...plan });
  const changed = { ...plan.toJSON(), base_model: "another" };
  await assert.rejects(RestorePlan.from(changed), (error) => error instanceof RecoveryError && error.code === "not_the_plan");

  const states = [];
  const restored = await recovery.restore(kept, { onProgress: ({ state }) => states.push(state) });
  assert.deepEqual(states.filter((state, at) => state !== states[at - 1]), [
    "planned", "opening_session", "loading", "checking", "adopted",
  ]);
  assert.equal(restored.record.state, "handed_over");
  assert.equal(restored.record.askedBy, "the tests");
  const again = await TrainingClient.attach(restored.attachment, service);
  assert.equal(again.modelId, restored.newRunId);
  const second = await train(again, 3, 6);
  assert.deepEqual([...first, ...second], undisturbed);

  const { userMetadata } = await service.createRestClient().getTrainingRun(restored.newRunId);
  assert.equal(userMetadata["retinker.restored_from"], client.modelId);
  assert.equal(userMetadata.my_label, "x");
  assert.equal((await recovery.survey({ health: "recovered" }))[0].run.trainingRunId, client.modelId);
  await assert.rejects(recovery.plan(again.modelId), (error) => error instanceof RecoveryError && error.code === "not_poisoned");
});

test("samples, scores and what they are told by", async (t) => {
  const { url } = await startService(t);
  const { retinker } = await installed(t);
  const service = new retinker.ServiceClient({ baseUrl: url, apiKey: KEY });
  t.after(() => service[Symbol.dispose]());
  const sampling = await service.createSamplingClient({ baseModel: MODEL });
  t.after(() => sampling[Symbol.dispose]());
  const prompt = [1, 2, 3];
  const wanted = { numSamples: 3, samplingParams: { maxTokens: 5, seed: 7, topK: 20, stop: [] }, includePromptLogprobs: true, topkSampleLogprobs: 2 };
  const sampled = await sampling.sample(prompt, wanted);
  assert.equal(sampled.sequences.length, 3);
  for (const { tokens, logprobs, stopReason, topkLogprobs } of sampled.sequences) {
    assert.ok(tokens instanceof Int32Array && logprobs instanceof Float32Array);
    assert.equal(tokens.length, 5);
    assert.equal(logprobs.length, 5);
    assert.equal(stopReason, "length");
    assert.equal(topkLogprobs.length, 5);
    assert.deepEqual(topkLogprobs.map((row) => row.length), [2, 2, 2, 2, 2]);
  }
  assert.ok(sampled.promptLogprobs instanceof Float32Array);
  assert.ok(Number.isNaN(sampled.promptLogprobs[0]) && sampled.promptLogprobs[1] < 0);
  const same = await sampling.sample(Int32Array.from(prompt), wanted);
  assert.deepEqual(same.sequences.map(({ tokens }) => [...tokens]), sampled.sequences.map(({ tokens }) => [...tokens]));
  const scores = await sampling.computeLogprobs(prompt);
  assert.deepEqual([...scores], [...sampled.promptLogprobs]);
  const other = await retinker.SamplingClient.fromHandle(sampling.handle, service);
  assert.equal(other.samplerId, sampling.samplerId);
  assert.equal((await other.sample(prompt, { samplingParams: { maxTokens: 1 } })).sequences.length, 1);
  assert.equal((await sampling.getSampler()).baseModel, MODEL);
});

test("checkpoints and sessions, listed and managed", async (t) => {
  const { url } = await startService(t);
  const { retinker } = await installed(t);
  const { RestClient, ServiceClient, StatusError, ConfigError } = retinker;
  const service = new ServiceClient({ baseUrl: url, apiKey: KEY, displayName: "named", tags: ["a"], userMetadata: { Team_X: "y" } });
  const client = await service.createLoraTrainingClient({ baseModel: MODEL, rank: 4 });
  for (const name of ["one", "two", "three"]) await client.saveState(name, { ttlSeconds: 100_000 });
  const rest = new RestClient({ baseUrl: url, apiKey: KEY });
  assert.equal((await rest.getServerCapabilities()).supportedModels.some(({ modelName }) => modelName === MODEL), true);
  const pages = [];
  for await (const page of rest.userCheckpoints({ pageSize: 2 }).pages()) pages.push(page.map(({ checkpointId }) => checkpointId));
  assert.deepEqual(pages.flat().sort(), ["weights/one", "weights/three", "weights/two"]);
  const paths = [];
  for await (const { tinkerPath } of rest.userCheckpoints({ pageSize: 1 })) paths.push(tinkerPath);
  assert.equal(paths.length, 3);
  const [path] = paths;
  assert.equal((await rest.getWeightsInfoByTinkerPath(path)).loraRank, 4);
  assert.equal((await rest.getTrainingRunByTinkerPath(path)).trainingRunId, client.modelId);
  const find = async () => (await rest.listCheckpoints(client.modelId)).find(({ tinkerPath }) => tinkerPath === path);
  assert.ok((await find()).expiresAt instanceof Date);
  assert.equal(await rest.setCheckpointTtlFromTinkerPath(path, null), undefined);
  assert.ok(!("expiresAt" in (await find())));
  await rest.publishCheckpointFromTinkerPath(path);
  assert.equal((await find()).public, true);
  await rest.unpublishCheckpointFromTinkerPath(path);
  await rest.deleteCheckpointFromTinkerPath(path);
  assert.equal(await find(), undefined);
  await assert.rejects(rest.deleteCheckpointFromTinkerPath(path), (error) => {
    assert.ok(error instanceof StatusError && error.name === "StatusError");
    assert.equal(error.code, "refused");
    assert.equal(error.status, 404);
    assert.equal(error.category, "user");
    assert.equal(error.retryable, false);
    assert.match(error.message, /delete/i);
    return true;
  });
  await assert.rejects(rest.getWeightsInfoByTinkerPath("nonsense"), (error) => error instanceof Error);
  await assert.rejects(rest.deleteCheckpointFromTinkerPath("nonsense"), (error) => error instanceof ConfigError);

  const found = [];
  for await (const session of rest.searchSessions({ displayName: "named", statuses: ["active"] })) found.push(session);
  assert.deepEqual(found.map(({ sessionId }) => sessionId), [await service.sessionId()]);
  assert.deepEqual(found[0].userMetadata, { Team_X: "y" });
  assert.deepEqual(found[0].status, { type: "active" });
  assert.deepEqual((await rest.getSession(await service.sessionId())).trainingRunIds, [client.modelId]);
  await service.finish({ reason: "errored", detail: "it is a test" });
  for await (const { status } of rest.searchSessions({ statuses: [{ finished: ["errored"] }] })) {
    assert.deepEqual(status, { type: "client_finished", reason: { type: "errored" }, detail: "it is a test" });
  }
});

test("a signal ends a call, and its request", async (t) => {
  const { url } = await startService(t);
  const { retinker } = await installed(t);
  const asked = [];
  const fetches = (input, init) => {
    asked.push(init.signal);
    return fetch(input, init);
  };
  const rest = new retinker.RestClient({ baseUrl: url, apiKey: KEY, fetch: fetches });
  await rest.getServerCapabilities();
  const before = asked.length;
  const reason = new Error("not wanted any more");
  await assert.rejects(rest.getServerCapabilities({ signal: AbortSignal.abort(reason) }), (error) => error === reason);
  assert.equal(asked.length, before, "nothing is sent for a signal that was given before");

  const hangs = new retinker.RestClient({
    baseUrl: url,
    apiKey: KEY,
    fetch: (_, { signal }) =>
      new Promise((_, reject) => {
        asked.push(signal);
        signal.addEventListener("abort", () => reject(signal.reason));
      }),
  });
  const { signal, listeners } = counted(new AbortController());
  const call = hangs.listTrainingRuns({ signal: signal.signal });
  await new Promise((resolve) => setTimeout(resolve, 20));
  signal.abort();
  await assert.rejects(call, { name: "AbortError" });
  assert.equal(asked.at(-1).aborted, true, "what was sent is aborted");
  assert.equal(listeners(), 0, "no listener stays");
  const kept = counted(new AbortController());
  for (let time = 0; time < 20; time++) await rest.getServerCapabilities({ signal: kept.signal.signal });
  assert.equal(kept.listeners(), 0, "no listener stays after calls that were not aborted");
});

test("what a signal given before, or a disposed client, does to what is submitted", async (t) => {
  const { url } = await startService(t);
  const { retinker } = await installed(t);
  const { ConfigError, Recovery, RestClient, ServiceClient } = retinker;
  const service = new ServiceClient({ baseUrl: url, apiKey: KEY });
  t.after(() => service.dispose());
  const create = () => service.createLoraTrainingClient({ baseModel: MODEL, rank: 4, seed: 3 });
  const expected = await train(await create(), 0, 2);

  const client = await create();
  const gone = AbortSignal.abort(new Error("not wanted"));
  const losses = await train(client, 0, 1);
  const refused = client.optimStep({ learningRate: 1e-2 }, { signal: gone });
  await assert.rejects(refused, /not wanted/);
  assert.deepEqual(refused.requestIds, []);
  for await (const event of refused.events()) assert.fail(`${event}`);
  losses.push(...(await train(client, 1, 2)));
  assert.deepEqual(losses, expected, "the step was not taken");

  const done = client.forward([example(0)], "cross_entropy");
  await done;
  for await (const event of done.events()) assert.fail(`${event}`);
  const controller = new AbortController();
  const left = client.forward([example(0)], "cross_entropy", { signal: controller.signal });
  controller.abort();
  await assert.rejects(left, { name: "AbortError" });
  for await (const event of left.events()) assert.fail(`${event}`);

  const rest = new RestClient(service);
  const begun = rest.getServerCapabilities();
  rest.dispose();
  assert.ok((await begun).supportedModels.length > 0, "what was begun goes on");
  await assert.rejects(rest.getServerCapabilities(), (error) => error instanceof ConfigError);

  const strange = { modelInput: { chunks: [{ type: "encoded_text", tokens: [1] }] }, lossFnInputs: {} };
  assert.throws(() => client.forward([strange], "cross_entropy"), (error) => error instanceof ConfigError);
  for (const wrong of [1.5, -1, Number.NaN]) {
    const datum = { modelInput: [1], lossFnInputs: { target_tokens: [wrong], weights: [1] } };
    assert.throws(() => client.forward([datum], "cross_entropy"), (error) => error instanceof ConfigError, `${wrong}`);
  }
  const inner = { data: new Float32Array(1), crow: new BigInt64Array(2) };
  assert.throws(() => client.forward([{ modelInput: [1], lossFnInputs: { weights: inner } }], "cross_entropy"), /crow and col/);

  // A plan of one service, carried out where nobody answers: only the signal ends that.
  await client.saveState("a");
  const plan = await new Recovery(service).plan(client.modelId, { observed: "not_loaded" });
  const nowhere = new Recovery({ baseUrl: "http://127.0.0.1:9", apiKey: KEY });
  const stop = new AbortController();
  const restoring = nowhere.restore(plan, { signal: stop.signal });
  setTimeout(() => stop.abort(), 100);
  await assert.rejects(restoring, { name: "AbortError" });
  nowhere.dispose();
  client.dispose();
});

test("a loss that is no number is told as such", async (t) => {
  const { retinker } = await installed(t);
  const text = (tag, of) => Buffer.concat([Buffer.from([tag, of.length]), Buffer.from(of)]);
  const metric = (name, value) => {
    const double = Buffer.alloc(9, 0x11);
    double.writeDoubleLE(value, 1);
    return text(0x1a, Buffer.concat([text(0x0a, name), double]));
  };
  // The result of a pass over one example: the name of its outputs, those of the example, and what was measured.
  const result = Buffer.concat([text(0x0a, "x:cross_entropy"), Buffer.from([0x12, 2, 0x18, 1]), metric("loss:sum", NaN), metric("most", -Infinity)]);
  const answer = (url) =>
    url.endsWith("/retrieve_future")
      ? new Response(result, { headers: { "content-type": "application/x-protobuf" } })
      : Response.json({ request_id: "1" });
  const client = await retinker.TrainingClient.attach(
    { sessionId: "s", modelId: "s:train:0", nextSeqId: 1 },
    { baseUrl: "http://x.test", apiKey: "k", fetch: async (url) => answer(url) },
  );
  t.after(() => client.dispose());
  const { metrics } = await client.forward([example(0)], "cross_entropy");
  assert.deepEqual(metrics, { "loss:sum": NaN, most: -Infinity });
});

test("a server sees that a call was aborted", async (t) => {
  const { retinker } = await installed(t);
  let closed;
  const gone = new Promise((resolve) => (closed = resolve));
  const server = createServer((request, response) => {
    if (request.url.includes("client/config")) return response.writeHead(404).end();
    response.on("close", () => closed(response.writableFinished));
    // It is answered never.
    asked();
  });
  let asked;
  const arrived = new Promise((resolve) => (asked = resolve));
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => (server.closeAllConnections(), server.close()));
  const rest = new retinker.RestClient({ baseUrl: `http://127.0.0.1:${server.address().port}`, apiKey: KEY });
  const controller = new AbortController();
  const call = rest.listTrainingRuns({ signal: controller.signal });
  await arrived;
  controller.abort();
  await assert.rejects(call, { name: "AbortError" });
  assert.equal(await gone, false, "the connection is closed before there was an answer");
});

test("what a service cannot do now is asked again, by the program's own fetch, with its headers", async (t) => {
  const { retinker } = await installed(t);
  const seen = [];
  const rest = new retinker.RestClient({
    baseUrl: "http://service.test/prefix/",
    apiKey: "the key",
    headers: { "X-Team": "blue" },
    fetch: async (url, init) => {
      seen.push({ url, method: init.method, team: init.headers.get("x-team"), key: init.headers.get("x-api-key") });
      if (url.endsWith("client/config")) return new Response(null, { status: 404 });
      const isReady = seen.filter((one) => one.url === url).length > 2;
      return isReady ? Response.json({ supported_models: [{ model_name: "m" }] }) : new Response("busy", { status: 503 });
    },
  });
  assert.deepEqual((await rest.getServerCapabilities()).supportedModels, [{ modelName: "m" }]);
  const asked = seen.filter(({ url }) => url === "http://service.test/prefix/api/v1/get_server_capabilities");
  assert.equal(asked.length, 3);
  assert.deepEqual(asked[0], { url: asked[0].url, method: "GET", team: "blue", key: "the key" });
  const throws = new retinker.RestClient({ baseUrl: "http://x.test", apiKey: "k", retryForSeconds: 0, fetch: () => { throw new Error("no network here"); } });
  await assert.rejects(throws.getServerCapabilities(), (error) => error instanceof retinker.ConnectionError && /no network here/.test(error.message));
  const readAlready = async () => {
    const answer = Response.json({});
    await answer.text();
    return answer;
  };
  for (const silly of [async () => 7, async () => undefined, () => null, readAlready]) {
    const client = new retinker.RestClient({ baseUrl: "http://x.test", apiKey: "k", retryForSeconds: 0, fetch: silly });
    await assert.rejects(client.getServerCapabilities(), (error) => error instanceof retinker.ConnectionError, `${silly}`);
  }
});

test("leaving a loop ends what it read", async (t) => {
  const { url } = await startService(t);
  const { retinker } = await installed(t);
  const rest = new retinker.RestClient({ baseUrl: url, apiKey: KEY });
  const service = new retinker.ServiceClient({ baseUrl: url, apiKey: KEY });
  t.after(() => service.dispose());
  for (let run = 0; run < 3; run++) await service.createLoraTrainingClient({ baseModel: MODEL, rank: 4 });
  let seen = 0;
  for await (const _ of rest.trainingRuns({ pageSize: 1 })) {
    seen += 1;
    break;
  }
  assert.equal(seen, 1);
  const controller = new AbortController();
  await assert.rejects(
    async () => {
      for await (const _ of rest.trainingRuns({ pageSize: 1, signal: controller.signal })) controller.abort();
    },
    { name: "AbortError" },
  );
});

test("a program ends though its session is kept alive", async (t) => {
  const { url } = await startService(t);
  const { folder } = await installed(t);
  await write(folder, {
    "ends.mjs": `
      import { ServiceClient } from "retinker";
      globalThis.service = new ServiceClient({ baseUrl: "${url}", apiKey: "${KEY}" });
      globalThis.client = await service.createLoraTrainingClient({ baseModel: "${MODEL}", rank: 4 });
      console.log("trained");`,
  });
  assert.equal(await run("node", ["ends.mjs"], folder), "trained\n");
});

/** A controller whose signal tells how many listen to it. */
function counted(controller) {
  let count = 0;
  const { signal } = controller;
  const [add, remove] = [signal.addEventListener.bind(signal), signal.removeEventListener.bind(signal)];
  signal.addEventListener = (...args) => (count++, add(...args));
  signal.removeEventListener = (...args) => (count--, remove(...args));
  return { signal: controller, listeners: () => count };
}

test("what is called wrongly is said at once, in words that help", async (t) => {
  const { retinker } = await installed(t);
  const { ConfigError, ConnectionError, RestClient, ServiceClient } = retinker;
  assert.throws(() => new RestClient({ baseUrl: "nonsense", apiKey: KEY }), ConfigError);
  assert.throws(() => new RestClient({ base_url: "http://x" }), /did you mean 'baseUrl'/);
  assert.throws(() => new RestClient({ baseUrl: "http://127.0.0.1:9", apiKey: "line\nbreak" }), /copied whole/);
  const service = new ServiceClient({ baseUrl: "http://127.0.0.1:9", apiKey: "secret-key", retryForSeconds: 0 });
  await assert.rejects(service.createLoraTrainingClient({ baseModel: MODEL, learning_rate: 1 }), /takes no option 'learning_rate'/);
  await assert.rejects(service.getServerCapabilities(), (error) => {
    assert.ok(error instanceof ConnectionError);
    assert.equal(error.retryable, true);
    assert.ok(!JSON.stringify(error).includes("secret-key") && !String(error.stack).includes("secret-key"));
    return true;
  });
  service.dispose();
  await assert.rejects(service.sessionId(), /disposed/);
});

test("import and require give the same", async (t) => {
  const { folder, retinker } = await installed(t);
  const required = createRequire(join(folder, "x.js"));
  assert.equal(required("retinker").RestClient, retinker.RestClient);
  assert.equal(required("retinker/package.json").name, "retinker");
  await write(folder, {
    "plain.cjs": `
      const { RestClient, init } = require("retinker");
      const { Recovery } = require("retinker/rest");
      init().then(() => console.log(typeof new RestClient({ baseUrl: "http://x" }).listTrainingRuns, typeof Recovery));`,
  });
  assert.equal(await run("node", ["plain.cjs"], folder), "function function\n");
});
