// Losses of the program's own: computed in JavaScript from log-probabilities, with the gradients that it gives.
import assert from "node:assert/strict";
import test from "node:test";

import { opened } from "./support/client.mjs";
import { MODEL } from "./support/service.mjs";
import { example } from "./support/training.mjs";

/** Cross-entropy, as a program would write it. */
const crossEntropy = (data, logprobs) => ({
  loss: -logprobs.flatMap((one) => [...one]).reduce((sum, logprob) => sum + logprob, 0),
  gradients: logprobs.map((one) => new Float32Array(one.length).fill(-1)),
  metrics: { "examples:sum": data.length },
});

async function steps(client, count, pass) {
  const losses = [];
  for (let step = 0; step < count; step += 1) {
    const passed = pass(client, [example(step), example(step + 100)]);
    const stepped = client.optimStep({ learningRate: 1e-2 });
    losses.push((await passed).metrics["loss:sum"]);
    await stepped;
  }
  return losses;
}

test("a loss of the program's own trains as the service's does that says the same", async (t) => {
  const { fault, retinker, service } = await opened(t);
  const adapter = { baseModel: MODEL, rank: 4, seed: 3 };
  const close = (found, wanted) =>
    found.forEach((loss, step) => assert.ok(Math.abs(loss / wanted[step] - 1) < 1e-4, `step ${step}: ${loss}, not ${wanted[step]}`));
  const plain = await service.createLoraTrainingClient(adapter);
  const wanted = await steps(plain, 5, (client, batch) => client.forwardBackward(batch, "cross_entropy"));
  const own = await service.createLoraTrainingClient(adapter);
  const losses = await steps(own, 5, (client, batch) => client.forwardBackwardCustom(batch, crossEntropy));
  close(losses, wanted);
  assert.equal(own.getConsoleUrl(), `https://tinker.thinkingmachines.ai/training_runs/${own.modelId}`);
  assert.equal(await service.getConsoleUrl(), `https://tinker.thinkingmachines.ai/sessions/${own.sessionId}`);

  await t.test("it says more, and its gradients may be plain numbers", async () => {
    const given = [];
    const { metrics } = await own.forwardBackwardCustom([example(9)], (data, logprobs) => {
      given.push(data, logprobs);
      const gradients = logprobs.map((one) => [...one].map(() => -1));
      return { ...crossEntropy(data, logprobs), gradients };
    });
    assert.equal(metrics["examples:sum"], 1);
    assert.equal(given[0].length, 1);
    assert.ok(given[1][0] instanceof Float32Array && given[1][0].length === 16 && given[1][0].every((logprob) => logprob < 0));
  });

  await t.test("one that fails says so, and the run goes on", async () => {
    for (const [loss, told] of [
      [() => { throw new RangeError("no such reward"); }, /the loss failed: RangeError: no such reward/],
      [async (...batch) => crossEntropy(...batch), /at once, and not as a promise/],
      [() => ({ loss: 1, gradients: [] }), /gradient/],
      [() => ({ loss: 1, gradients: [[Number.NaN]] }), /gradient|finite/],
    ]) {
      const failed = own.forwardBackwardCustom([example(9)], loss);
      await assert.rejects(failed, (error) => error instanceof retinker.ConfigError && told.test(error.message), `${told}`);
    }
    assert.equal(own.poisoned, undefined);
    await own.forwardBackward([example(9)], "cross_entropy");
  });

  await t.test("with a redo log it goes on through a poisoning, and is not called a second time", async () => {
    let calls = 0;
    const counted = (client, batch) =>
      client.forwardBackwardCustom(batch, (...given) => {
        calls += 1;
        return crossEntropy(...given);
      });
    const kept = await service.createRecoveringTrainingClient({ ...adapter, notice: () => {} });
    t.after(() => kept.dispose());
    const first = await steps(kept, 3, counted);
    const lost = kept.modelId;
    await fault("poison", { run_id: lost, reason: "a machine died" });
    const passed = counted(kept, [example(3), example(103)]);
    const stepped = kept.optimStep({ learningRate: 1e-2 });
    const fourth = (await passed).metrics["loss:sum"];
    await stepped;
    assert.deepEqual([...first, fourth], losses.slice(0, 4));
    assert.notEqual(kept.modelId, lost);
    assert.equal(calls, 4);
  });
});
