import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fetch } from "./node-fetch.js";
import type { Platform } from "./platform.js";

/** Deno and Bun are Node as far as this bundle goes, but for their `fetch`, which is their best way. */
const isNode = !("Deno" in globalThis || "Bun" in globalThis);

/** Node, Deno and Bun: read from the disk. The bundle is CommonJS, so that both ways to load it share one wasm. */
export const platform: Platform = {
  now: () => readFileSync(join(__dirname, __WASM__)),
  ...(isNode ? { fetch: fetch as unknown as NonNullable<Platform["fetch"]> } : {}),
};
