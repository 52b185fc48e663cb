import type { Platform } from "./platform.js";

/** Vite, webpack, Rollup and Parcel: they know this form, and put the file where its new address says. */
export const platform: Platform = {
  address: () => new URL(__WASM__, import.meta.url),
  timers: () => new Worker(new URL("./timers.worker.js", import.meta.url), { type: "module" }),
};
