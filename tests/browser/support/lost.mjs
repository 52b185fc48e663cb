// A service on which things can be made to go wrong, and runs on it that have lost their state.
import assert from "node:assert/strict";

import { byTestId, openBrowser, openPage, openRun, runRow } from "./browser.mjs";
import { Retinker, temporaryDir } from "./retinker.mjs";
import { Training } from "./train.mjs";

/** A service and its console, with these options besides; `fault` makes something go wrong, or with `DELETE` ends it. */
export async function faulty(t, options = []) {
  const args = ["up", "--no-demo", "--port", "0", "--service-port", "0", "--faults", "--data-dir", await temporaryDir(t)];
  const retinker = await Retinker.start(t, [...args, ...options]);
  const fault = async (path, body, method = "POST") => {
    const answer = await fetch(`${retinker.serviceUrl}/retinker/local/v1/faults/${path}`, {
      method,
      headers: { "content-type": "application/json", "x-api-key": "tml-test" },
      body: body && JSON.stringify(body),
    });
    assert.ok(answer.ok, `${path}: ${answer.status} ${await answer.text()}`);
  };
  return { retinker, fault };
}

/** A page of this console. */
export const pageOf = async (t, retinker, options) => openPage(await openBrowser(t), retinker.consoleUrl, options);

/** A service on which runs have lost their state, and which keeps what is loaded waiting until it is told to go on; and a page
 * of its console. */
export async function held(t, count) {
  const { retinker, fault } = await faulty(t);
  const victims = [];
  for (let at = 0; at < count; at++) {
    const training = new Training(t, retinker.serviceUrl, [
      "--create", "retinker/nano-llama", "--rank", "4", "--seed", "3", "--lr", "0.001",
      "--name", `victim ${at}`, "--steps", "3", "--save-every", "2",
    ]);
    await training.finish();
    victims.push(training.attachment.model_id);
    await fault("poison", { run_id: victims[at], reason: "a machine died" });
  }
  await fault("pause", { queue_state: "paused_capacity" });
  const page = await pageOf(t, retinker);
  for (const victim of victims) await runRow(page, victim, "poisoned").waitFor();
  const states = async () =>
    (await retinker.host("restores")).body.restores.map((restore) => restore.state).sort();
  return { retinker, victims, page, states, goOn: () => fault("pause", undefined, "DELETE") };
}

/** Restores a poisoned run as the console plans it, and opens the new one; its id. */
export async function restoreOnPage(page, runId) {
  await openRun(page, runId, "poisoned");
  return restoreShown(page);
}

/** The same for the run whose page is shown. */
export async function restoreShown(page) {
  await byTestId(page, "restore-button").click();
  await byTestId(page, "confirm-restore").click();
  const link = byTestId(page, "restored-link");
  await link.waitFor();
  const made = await link.getAttribute("data-run-id");
  await link.click();
  await byTestId(page, "restored-from-link").waitFor();
  return made;
}
