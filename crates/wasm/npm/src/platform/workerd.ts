// @ts-expect-error -- not a file of this folder: the build has it point to the wasm.
import module from "#wasm-file";
import type { Platform } from "./platform.js";

/** Edge workers: they compile wasm when they are deployed, and at no other time. */
export const platform: Platform = { now: () => module as WebAssembly.Module };
