/**
 * The wasm: how it is loaded, and how it is called. Everything goes through {@link call}, so that no promise is left open when
 * the wasm panics.
 */
import * as wasm from "#wasm";
import { platform } from "#platform";
import { ConfigError, errorOf } from "./errors.js";
import type { WasmSource } from "./init.js";
import { hasPanicked, panic, unlessPanicked } from "./panicked.js";

export type Wasm = typeof wasm;

let loaded = false;
let loading: Promise<void> | undefined;

function start(): void {
  wasm.onPanic(panic);
  loaded = true;
}

/** Loads the wasm, once. */
export function init(source?: WasmSource): Promise<void> {
  if (loaded) return Promise.resolve();
  loading ??= load(source).catch((error: unknown) => {
    loading = undefined;
    throw new ConfigError(`retinker's wasm could not be loaded: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    });
  });
  return loading;
}

async function load(source: WasmSource | undefined): Promise<void> {
  if (source === undefined && platform.now !== undefined) {
    now();
    return;
  }
  const from = source ?? platform.address?.();
  await wasm.default({ module_or_path: from });
  start();
}

/** Loads it at once where that can be done. */
function now(): boolean {
  if (!loaded && platform.now !== undefined) {
    wasm.initSync({ module: platform.now() });
    start();
  }
  return loaded;
}

/** What can be done without waiting: `undefined` as long as the wasm is not there. */
export function engine(): Wasm | undefined {
  alive();
  return now() ? wasm : undefined;
}

/** The wasm, once it is there. */
async function ready(): Promise<Wasm> {
  if (!now()) {
    if (platform.asked && loading === undefined) {
      throw new ConfigError(
        "retinker's wasm is not loaded: in a page without a bundler, call `await init()` once before anything else",
      );
    }
    await init();
  }
  alive();
  return wasm;
}

function alive(): void {
  const panicked = hasPanicked();
  if (panicked !== undefined) throw panicked;
}

/** Makes a call that the wasm answers by a promise. What it throws is an error of this package, or the signal's reason. */
export async function call<T>(begin: (wasm: Wasm) => Promise<T>): Promise<T> {
  // Where the wasm is there, what is begun is begun before this returns: who disposes of a client then takes nothing back.
  const at = engine() ?? (await ready());
  return guarded(() => begin(at));
}

/** The same once the wasm is known to be there: what is begun is begun before this returns. */
export async function guarded<T>(begin: () => Promise<T>): Promise<T> {
  try {
    return await unlessPanicked(begin);
  } catch (error) {
    throw errorOf(error);
  }
}

/** Calls the wasm for something that is there at once. */
export function ask<T>(of: () => T): T {
  alive();
  try {
    return of();
  } catch (error) {
    // A panic ends with a trap, which says nothing; what was panicked about says more.
    throw hasPanicked() ?? errorOf(error);
  }
}
