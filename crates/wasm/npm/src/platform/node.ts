import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Platform } from "./platform.js";

/** Node, Deno and Bun: read from the disk. The bundle is CommonJS, so that both ways to load it share one wasm. */
export const platform: Platform = { now: () => readFileSync(join(__dirname, __WASM__)) };
