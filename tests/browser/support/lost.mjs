// A service on which things can be made to go wrong, and runs on it that have lost their state.
import assert from "node:assert/strict";

import { byTestId, openBrowser, openPage, openRun } from "./browser.mjs";
import { Retinker, temporaryDir } from "./retinker.mjs";

/** A service and its console; `fault` makes something go wrong, or with `DELETE` ends it. */
export async function faulty(t) {
  const args = ["up", "--no-demo", "--port", "0", "--service-port", "0", "--faults", "--data-dir", await temporaryDir(t)];
  const retinker = await Retinker.start(t, args);
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
