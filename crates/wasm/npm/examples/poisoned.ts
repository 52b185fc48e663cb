// Lists the runs that have lost their state, and what each can be restored from.
//
//   TINKER_BASE_URL=http://127.0.0.1:8788 TINKER_API_KEY=tml-local node poisoned.ts
import { Recovery } from "retinker/rest";

const recovery = new Recovery();
const lost = await recovery.survey({ health: "poisoned" });
for (const { run, verdict } of lost) {
  console.log(run.userMetadata?.["name"] ?? run.trainingRunId);
  console.log(`  ${verdict.reason}`);
  const plan = await recovery.plan(run.trainingRunId);
  console.log(`  Restored from ${plan.checkpoint.checkpointId} it would lose: ${plan.lost.summary}`);
}
console.log(lost.length === 0 ? "No run is poisoned." : `${lost.length} poisoned.`);
