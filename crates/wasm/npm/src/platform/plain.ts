import type { Platform } from "./platform.js";

/** A page without a bundler: when the wasm is loaded, and from where, is the page's to say. */
export const platform: Platform = {
  address: () => new URL(__WASM__, import.meta.url),
  asked: true,
  timers: () => new Worker(new URL("./timers.worker.js", import.meta.url), { type: "module" }),
};
