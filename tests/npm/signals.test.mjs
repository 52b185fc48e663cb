// A signal on every call there is: one that was given before sends nothing, one that comes later ends the call, and no listener stays.
import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import test from "node:test";

import { installed } from "./support/folder.mjs";
import { KEY, MODEL, startService } from "./support/service.mjs";
import { example, take } from "./support/training.mjs";

/** What a class has that calls nobody. */
const QUIET = new Set([
  "constructor", "dispose", "createRestClient", "getConsoleUrl of TrainingClient", "setCursor", "recordingStabilityInfo",
]);

/** The methods of a class's own, by its name in the package; getters and what is internal aside. */
function methods(of, name) {
  const all = Object.entries(Object.getOwnPropertyDescriptors(of.prototype));
  const own = all.filter(([method, { value }]) => typeof value === "function" && !method.startsWith("_"));
  return own.map(([method]) => method).filter((method) => !QUIET.has(method) && !QUIET.has(`${method} of ${name}`));
}

/** Waits for what a call gives, or goes through what it lists. */
async function settled(called) {
  if (typeof called?.[Symbol.asyncIterator] !== "function") return called;
  for await (const _ of called);
}

test("every call takes a signal", async (t) => {
  const { url, host, fault } = await startService(t);
  const { retinker } = await installed(t);
  const sent = [];
  let hangs = false;
  const fetches = (input, init) => {
    // Sessions are kept alive meanwhile.
    if (!String(input).endsWith("/session_heartbeat")) sent.push(String(input));
    if (!hangs) return fetch(input, init);
    return new Promise((_, reject) => init.signal.addEventListener("abort", () => reject(init.signal.reason)));
  };
  const options = { baseUrl: url, apiKey: KEY, fetch: fetches };
  const service = new retinker.ServiceClient(options);
  t.after(() => service.dispose());
  const adapter = { baseModel: MODEL, rank: 4, seed: 3 };
  const training = await service.createLoraTrainingClient(adapter);
  await take(training, 0);
  const { path } = await training.saveState("one");
  const { path: external } = await training.saveWeightsExternal("three");
  const { path: weights } = await training.saveWeightsForSampler("two");
  const sampling = await service.createSamplingClient({ modelPath: weights });
  const lost = await service.createLoraTrainingClient(adapter);
  await lost.saveState("one");
  await fault("poison", { run_id: lost.modelId, reason: "a machine died" });
  const recovery = new retinker.Recovery(options);
  const plan = await recovery.plan(lost.modelId);
  const recovering = await service.createRecoveringTrainingClient({ ...adapter, notice: () => {} });
  t.after(() => recovering.dispose());
  await take(recovering, 0);
  const rest = new retinker.RestClient(options);
  const hosted = new retinker.HostClient({ ...host, fetch: fetches });
  t.after(() => hosted.dispose());
  const [run, session, sampler, batch] = [training.modelId, training.sessionId, sampling.samplerId, [example(1)]];

  /** Each client with its class and what its calls are called with, before the options; objects are merged with the signal. */
  const CALLS = [
    [rest, retinker.RestClient, {
      getServerCapabilities: [], getTrainingRun: [run], getTrainingRunByTinkerPath: [path], listTrainingRuns: [], trainingRuns: [],
      listCheckpoints: [run], listUserCheckpoints: [], userCheckpoints: [], getWeightsInfoByTinkerPath: [path],
      setCheckpointTtlFromTinkerPath: [path, 60], deleteCheckpointFromTinkerPath: [path], publishCheckpointFromTinkerPath: [path],
      unpublishCheckpointFromTinkerPath: [path], getCheckpointArchiveUrlFromTinkerPath: [path], downloadCheckpointArchive: [path],
      getExternalWeightsUrls: [external], copyWeights: [path], listSessions: [], sessions: [], getSession: [session], searchSessions: [],
      assignSessionProject: [session, "kitchen"], getSampler: [sampler], whoami: [], getAuditLog: [],
      getBillingUsage: [new Date("2026-01-01T00:00Z"), new Date("2026-01-02T00:00Z")], getCurrentCheckpointStorageUsage: [],
      exportSessionTrace: [session],
    }],
    [service, retinker.ServiceClient, {
      getServerCapabilities: [], createLoraTrainingClient: [adapter], createRecoveringTrainingClient: [adapter],
      createTrainingClientFromState: [path], createTrainingClientFromStateWithOptimizer: [path],
      createSamplingClient: [{ modelPath: weights }], sessionId: [], getConsoleUrl: [], finish: [],
    }],
    [training, retinker.TrainingClient, {
      forwardBackward: [batch, "cross_entropy"], forwardBackwardCustom: [batch, () => ({ loss: 0, gradients: [] })],
      forward: [batch, "cross_entropy"], optimStep: [{}], saveState: ["four"], saveWeightsForSampler: ["four"],
      saveWeightsExternal: ["four"], saveWeightsAndGetSamplingClient: [], saveWeightsAndGetInflightSamplingClient: [],
      createSamplingClient: [weights], loadState: [path], loadStateWithOptimizer: [path], getInfo: [], handOver: [],
    }],
    [recovering, retinker.RecoveringTrainingClient, {
      recoveries: [], window: [], finish: [], planRetention: [{}], planTo: [1], recoverTo: [1],
    }],
    [sampling, retinker.SamplingClient, {
      sample: [[1, 2]], computeLogprobs: [[1, 2]], getSampler: [], events: [],
    }],
    [recovery, retinker.Recovery, { health: [lost.modelId], survey: [], plan: [lost.modelId], restore: [plan], verify: [run, path] }],
    [hosted, retinker.HostClient, {
      status: [], connections: [], runs: [], run: [run], plan: [lost.modelId], startRestore: [plan], restores: [],
      restore: ["one"], cancelRestore: ["one"], handOver: ["one"], incidents: [], activity: [], monitor: [], setMonitor: ["paused"],
      events: [],
    }],
  ];
  /** These take their options in the place of what is asked for. */
  const merged = (args, signal) => {
    const [last] = args.slice(-1);
    const is_options = args.length === 1 && last?.constructor === Object && (last === adapter || "modelPath" in last);
    return is_options ? [{ ...last, signal }] : [...args, { signal }];
  };
  const rejection = (called) => called.then(() => undefined, (error) => error);

  const nameOf = (of) => Object.entries(retinker).find(([, value]) => value === of)[0];
  for (const [client, of, calls] of CALLS) {
    await t.test(nameOf(of), async (t) => {
      assert.deepEqual(methods(of, nameOf(of)).sort(), Object.keys(calls).sort(), "the calls of the class are those that are tried");
      await t.test("one that was given before sends nothing", async () => {
        for (const [name, args] of Object.entries(calls)) {
          const reason = new Error(`no ${name}`);
          sent.length = 0;
          const signal = AbortSignal.abort(reason);
          const found = await rejection((async () => settled(client[name](...merged(args, signal))))());
          assert.equal(found, reason, `${name}: ${found}`);
          assert.deepEqual(sent, [], `${name} sends nothing`);
          assert.deepEqual(getEventListeners(signal, "abort"), [], name);
        }
      });
    });
  }
  assert.equal((await rest.listCheckpoints(run)).length, 3, "nothing was deleted, and nothing saved");

  hangs = true;
  for (const [client, of, calls] of CALLS) {
    await t.test(`${nameOf(of)}: one that comes later ends the call`, async () => {
      // What asks nobody is done before a signal can come.
      const asks = (name) =>
        (client !== recovering || name === "recoverTo") && (client !== service || !["sessionId", "getConsoleUrl"].includes(name));
      const asking = Object.entries(calls).filter(([name]) => asks(name));
      for (const [name, args] of asking) {
        // It would be the last of all.
        if (client === training && name === "handOver") continue;
        const controller = new AbortController();
        const reason = new Error(`no ${name} any more`);
        const called = rejection((async () => settled(client[name](...merged(args, controller.signal))))());
        await new Promise((resolve) => setTimeout(resolve, 10));
        controller.abort(reason);
        const found = await called;
        assert.equal(found, reason, `${name}: ${found}`);
        assert.deepEqual(getEventListeners(controller.signal, "abort"), [], `${name} leaves no listener`);
      }
    });
  }
});
