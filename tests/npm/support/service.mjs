// The embedded service, on which things can be made to go wrong, and a host before it.
import assert from "node:assert/strict";

import { Retinker, temporaryDir } from "../../browser/support/retinker.mjs";

export const MODEL = "retinker/nano-llama";
export const KEY = "tml-test";

/** A service and its host; `fault` makes something go wrong, or with `DELETE` ends it. */
export async function startService(t, ...more) {
  const args = ["up", "--no-demo", "--port", "0", "--service-port", "0", "--faults", "--data-dir", await temporaryDir(t), ...more];
  const retinker = await Retinker.start(t, args);
  const fault = async (path, body, method = "POST") => {
    const answer = await fetch(`${retinker.serviceUrl}/retinker/local/v1/faults/${path}`, {
      method,
      headers: { "content-type": "application/json", "x-api-key": KEY },
      body: body && JSON.stringify(body),
    });
    assert.ok(answer.ok, `${path}: ${answer.status} ${await answer.text()}`);
  };
  const { origin, hash } = new URL(retinker.consoleUrl);
  const host = { baseUrl: origin, token: new URLSearchParams(hash.slice(1)).get("token") };
  return { retinker, url: retinker.serviceUrl, host, fault };
}
