// Tidies up checkpoints: of each run the newest is kept, and the others get a week to live. Says what it would do, and does it
// with --yes.
//
//   node checkpoints.ts [--yes]
import { RestClient, type Checkpoint } from "retinker/rest";

const WEEK = 7 * 24 * 3600;
const act = process.argv.includes("--yes");
const rest = new RestClient();

const newest = new Map<string, Checkpoint>();
const others: Checkpoint[] = [];
for await (const checkpoint of rest.userCheckpoints()) {
  if (checkpoint.checkpointType !== "training") continue;
  const run = checkpoint.tinkerPath.split("/")[2] ?? "";
  const known = newest.get(run);
  const isNewer = known === undefined || checkpoint.time > known.time;
  const older = isNewer ? known : checkpoint;
  if (isNewer) newest.set(run, checkpoint);
  if (older !== undefined) others.push(older);
}
for (const { tinkerPath, sizeBytes = 0, expiresAt } of others) {
  if (expiresAt !== undefined) continue;
  console.log(`${act ? "A week for" : "Would give a week to"} ${tinkerPath} (${(sizeBytes / 1e6).toFixed(1)} MB)`);
  if (act) await rest.setCheckpointTtlFromTinkerPath(tinkerPath, WEEK);
}
console.log(`${newest.size} runs keep their newest checkpoint.`);
