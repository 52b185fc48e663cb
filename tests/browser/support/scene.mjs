// A service with a run of every kind.
import assert from "node:assert/strict";

import { Retinker, lastingUp, until } from "./retinker.mjs";
import { Training } from "./train.mjs";

/** A service and its console, with a healthy run, a poisoned one, one that never saved, and one that was restored; by name,
 * the ids of all, and `successor`, which took the restored one's place. */
export async function scene(t) {
  const args = await lastingUp(t);
  let retinker = await Retinker.start(t, args);
  const train = (name, rank, ...more) => Training.create(t, retinker.serviceUrl, { name, rank }, ...more);
  const healthy = train("healthy", "8", "--steps", "4", "--save-every", "4");
  await healthy.finish();
  // The poisoned one has saved more than once, so that there is something to choose from.
  const victims = {
    poisoned: train("poisoned", "4", "--steps", "2000", "--save-every", "4"),
    unrecoverable: train("unrecoverable", "4", "--steps", "2000"),
    restored: train("restored", "4", "--steps", "2000", "--save-every", "4"),
  };
  await Promise.all(Object.values(victims).map((victim) => victim.steps(10).then(() => victim.pause())));
  await retinker.kill("SIGKILL");
  for (const victim of Object.values(victims)) victim.stop();
  retinker = await Retinker.start(t, args);
  const ids = Object.fromEntries(
    Object.entries({ healthy, ...victims }).map(([name, training]) => [name, training.attachment.model_id]),
  );
  const successor = await restore(retinker, ids.restored);
  return { retinker, ...ids, successor };
}

/** Restores a run as the host plans it; gives the new run's id. */
async function restore(retinker, runId) {
  const post = (path, body) =>
    retinker.host(path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  const plan = await until("a plan", async () => (await post("plans", { run_id: runId })).body.plan);
  const { status, body } = await post("restores", { plan });
  assert.equal(status, 200, JSON.stringify(body));
  const adopted = await until("the restore", async () => {
    const { body: record } = await retinker.host(`restores/${body.restore.id}`);
    return record.state === "adopted" && record;
  });
  return adopted.new_run_id;
}
