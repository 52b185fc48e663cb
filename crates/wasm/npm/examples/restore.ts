// Restores a poisoned run into a new one, and saves that, so that any program can go on from there.
//
//   node restore.ts RUN_ID
import { Recovery, ServiceClient, TrainingClient } from "retinker";

const [, , runId] = process.argv;
if (runId === undefined) {
  console.error("usage: restore.ts RUN_ID");
  process.exit(2);
}
await using service = new ServiceClient({ displayName: "restore a run" });
const recovery = new Recovery(service, { onBehalfOf: "restore.ts" });
const plan = await recovery.plan(runId);
console.log(`From ${plan.checkpoint.tinkerPath}. ${plan.why}`);
for (const { name, outcome, detail } of plan.checks) console.log(`  ${outcome}: ${name}. ${detail}`);

const restored = await recovery.restore(plan, {
  onProgress: ({ events }) => console.log(`  ${events.at(-1)?.message}`),
});
console.log(`Run ${restored.newRunId} takes its place: ${restored.verification?.verdict ?? "not compared"}.`);
const client = await TrainingClient.attach(restored.attachment, service);
const { path } = await client.saveState("restored");
console.log(`Saved as ${path}.`);
