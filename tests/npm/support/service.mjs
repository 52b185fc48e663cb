// The embedded service, on which things can be made to go wrong, and a host before it.
import { Retinker } from "../../browser/support/retinker.mjs";

export const MODEL = "retinker/nano-llama";
export const KEY = "tml-test";

/** A service and its host; `fault` makes something go wrong, or with `DELETE` ends it. */
export async function startService(t, ...more) {
  const retinker = await Retinker.up(t, "--faults", ...more);
  const fault = (...asked) => retinker.fault(...asked);
  const { origin, hash } = new URL(retinker.consoleUrl);
  const host = { baseUrl: origin, token: new URLSearchParams(hash.slice(1)).get("token") };
  return { retinker, url: retinker.serviceUrl, host, fault };
}
