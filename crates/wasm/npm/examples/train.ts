// A training loop that goes on through a poisoning: it restores the run, and repeats the steps since the last checkpoint.
//
//   node train.ts 20
import { PoisonedError, Recovery, RequestFailedError, ServiceClient, StatusError, TrainingClient, type Datum } from "retinker";

const STEPS = Number(process.argv[2] ?? 20);
const SAVE_EVERY = 5;

await using service = new ServiceClient({ displayName: "train.ts" });
const recovery = new Recovery(service, { onBehalfOf: "train.ts" });
let client = await service.createLoraTrainingClient({
  baseModel: "retinker/nano-llama",
  rank: 8,
  seed: 1,
  userMetadata: { name: "train.ts" },
});
await client.saveState("step-0");
for (let step = 0; step < STEPS; ) {
  try {
    // Both are on their way at once, and are carried out in this order.
    const pass = client.forwardBackward([example(step)], "cross_entropy");
    const update = client.optimStep({ learningRate: 1e-2 });
    const { metrics } = await pass;
    await update;
    step += 1;
    console.log(`step ${step}: loss ${metrics["loss:sum"]?.toFixed(4)}`);
    if (step % SAVE_EVERY === 0) {
      await client.saveState(`step-${step}`);
    }
  } catch (error) {
    [client, step] = await restored(error);
  }
}

/** The run restored, and the step that it is at; throws what is no poisoning. */
async function restored(error: unknown): Promise<[TrainingClient, number]> {
  const mayBe = error instanceof PoisonedError || error instanceof RequestFailedError || error instanceof StatusError;
  if (!mayBe) throw error;
  const { verdict } = await recovery.health(client.modelId);
  if (verdict.health !== "poisoned") throw error;
  console.log(verdict.reason);
  const plan = await recovery.plan(client.modelId);
  const { attachment } = await recovery.restore(plan);
  // By the name of the checkpoint that was taken: one that was saved when the run was lost may not be there.
  const step = Number(plan.checkpoint.tinkerPath.split("step-").at(-1));
  return [await TrainingClient.attach(attachment, service), step];
}

/** What is learned at a step. */
function example(step: number): Datum {
  const tokens = Int32Array.from({ length: 16 }, (_, at) => (step * 7 + at * 3) % 200);
  return {
    modelInput: tokens,
    lossFnInputs: {
      target_tokens: tokens.map((token) => (token + 1) % 200),
      weights: new Float32Array(tokens.length).fill(1),
    },
  };
}
