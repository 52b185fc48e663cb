// A run that recovers by itself: the training loop does not see that its run was lost.
import assert from "node:assert/strict";
import test from "node:test";

import { opened } from "./support/client.mjs";
import { MODEL } from "./support/service.mjs";
import { example, take, train } from "./support/training.mjs";

test("a training loop goes on through poisonings with the losses of a run that nothing happened to", async (t) => {
  const { fault, retinker, service } = await opened(t);
  const adapter = { baseModel: MODEL, rank: 4, seed: 3 };
  const plain = await service.createLoraTrainingClient(adapter);
  const expected = await train(plain, 0, 20);
  const client = await service.createRecoveringTrainingClient({ ...adapter, checkpoints: { everySteps: 5 }, notice: () => {} });
  t.after(() => client.dispose());
  assert.ok(client instanceof retinker.TrainingClient);
  const told = [];
  const hearing = (async () => {
    for await (const event of client.recoveries()) told.push(event);
  })();
  const losses = [];
  const poison = () => fault("poison", { run_id: client.modelId, reason: "a machine died" });
  for (let step = 0; step < 20; step++) losses.push(await take(client, step, step % 6 === 4 ? poison : undefined));
  assert.deepEqual(losses, expected);
  const { firstStep, lastStep } = await client.window();
  assert.ok(firstStep <= 15 && lastStep === 20, `${firstStep} to ${lastStep}`);
  const plan = await client.planTo(17);
  assert.equal(plan.toStep, 17);
  assert.ok(plan.requests === 2 * (17 - plan.fromStep) && plan.tokens === 16 * (17 - plan.fromStep), JSON.stringify(plan));
  const back = await client.recoverTo(17);
  assert.deepEqual(await train(back, 17, 20), expected.slice(17));
  await assert.rejects(client.recoverTo(21), (error) => error instanceof retinker.RecoveryError && error.code === "not_covered");
  client.dispose();
  await hearing;
  const kinds = told.map(({ type }) => type);
  assert.equal(kinds.filter((kind) => kind === "lost").length, 3, kinds.join(" "));
  assert.equal(kinds.filter((kind) => kind === "recovered").length, 3);
  assert.match(told.find(({ type }) => type === "lost").message, /has lost its state/);
});

test("who waits, and who looks on, is told that the run is made anew", async (t) => {
  const warned = t.mock.method(console, "warn", () => {});
  const { fault, retinker, service } = await opened(t);
  /** What a pass hears whose run is lost before it, and which run that was. */
  const heardBy = async (options) => {
    const client = await service.createRecoveringTrainingClient({ baseModel: MODEL, rank: 4, seed: 3, ...options });
    t.after(() => client.dispose());
    await take(client, 0);
    const lost = client.modelId;
    await fault("poison", { run_id: lost, reason: "a machine died" });
    const pass = client.forwardBackward([example(1)], "cross_entropy");
    const heard = [];
    for await (const event of pass.events()) heard.push(event);
    await pass;
    return { heard, lost };
  };

  const { heard, lost } = await heardBy({});
  const at = heard.findIndex(({ type }) => type === "recovering");
  assert.deepEqual(heard[at], { type: "recovering", runId: lost }, JSON.stringify(heard));
  assert.ok(heard.slice(at).some(({ type }) => type === "accepted"), "the new run has it");
  const lines = warned.mock.calls.map(({ arguments: [line] }) => line);
  assert.match(lines[0], new RegExp(`^retinker: Run ${lost} has lost its state`));
  assert.match(lines.at(-1), /^retinker: Run .* has taken the place of run/);

  const ending = await service.createRecoveringTrainingClient({ baseModel: MODEL, rank: 4, seed: 3, checkpoints: { atEnd: true } });
  t.after(() => ending.dispose());
  assert.equal(await ending.finish(), undefined);
  await train(ending, 0, 2);
  assert.match(await ending.finish(), /\/weights\/end-000002$/);

  const told = [];
  await heardBy({ notice: (event) => told.push(event.type), checkpoints: { everySteps: 1 } });
  assert.equal(warned.mock.callCount(), lines.length, "what is told to somebody is no warning");
  assert.ok(told[0] === "lost" && told.at(-1) === "recovered" && !told.includes("saved"), told.join(" "));
});

test("of the checkpoints that the policy saves those are kept that a rule keeps, and it is told which before", async (t) => {
  const { retinker, service } = await opened(t);
  const adapter = { baseModel: MODEL, rank: 4, seed: 3, notice: () => {} };
  const make = async (checkpoints) => {
    const client = await service.createRecoveringTrainingClient({ ...adapter, checkpoints });
    t.after(() => client.dispose());
    return client;
  };
  const rest = service.createRestClient();
  const kept = async (client) => (await rest.listCheckpoints(client.modelId)).map(({ tinkerPath }) => tinkerPath);

  const plain = await make({ everySteps: 2 });
  const saved = [];
  const hearing = (async () => {
    for await (const { type, path } of plain.recoveries()) if (type === "saved" && path.includes("/redo-")) saved.push(path);
  })();
  await train(plain, 0, 10);
  await plain.saveState("mine");
  const fates = await plain.planRetention({ last: 1 });
  const going = fates.filter(({ goes }) => goes).map(({ path }) => path);
  // The log stands on its last one, and on the program's own, which is no part of this.
  assert.deepEqual(going.toSorted(), saved.slice(0, -1).toSorted());
  assert.deepEqual(fates.filter(({ goes }) => !goes).map(({ needed }) => needed), ["The redo log stands on it."]);
  assert.equal((await kept(plain)).length, saved.length + 1, "nothing was deleted");
  assert.ok((await plain.planRetention({})).every(({ goes }) => !goes));
  plain.dispose();
  await hearing;

  const client = await make({ everySteps: 2, keep: { last: 1 } });
  const told = [];
  const heard = (async () => {
    for await (const { type, path } of client.recoveries()) told.push([type, path]);
  })();
  await train(client, 0, 10);
  await client.saveState("mine");
  const left = await kept(client);
  client.dispose();
  await heard;
  const deleted = told.filter(([type]) => type === "deleted").map(([, path]) => path);
  assert.ok(deleted.length > 0 && deleted.every((path) => !left.includes(path)), JSON.stringify(told));
  assert.ok(left.some((path) => path.endsWith("/mine")));
  const wrong = service.createRecoveringTrainingClient({ ...adapter, checkpoints: { keep: { newest: 1 } } });
  await assert.rejects(wrong, (error) => error instanceof retinker.ConfigError && /keep takes no option 'newest'/.test(error.message));
});

test("what cannot be made as it was is not gone on with", async (t) => {
  const { fault, retinker, service } = await opened(t);
  const client = await service.createRecoveringTrainingClient({ baseModel: MODEL, rank: 4, seed: 3, notice: () => {} });
  t.after(() => client.dispose());
  await train(client, 0, 3);
  await fault("noise", { relative: 0.01 });
  await fault("poison", { run_id: client.modelId, reason: "a machine died" });
  const lost = await take(client, 3).then(() => undefined, (error) => error);
  assert.ok(lost instanceof retinker.RecoveryError && lost.code === "unrecovered", `${lost}`);
  assert.match(lost.message, /could not be made anew/);
  assert.ok(client.poisoned instanceof retinker.RecoveryError);
  await assert.rejects(take(client, 3), (error) => error instanceof retinker.PoisonedError);
});
