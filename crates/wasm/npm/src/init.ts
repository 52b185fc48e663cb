import { init as load } from "./engine.js";

/** Where the wasm is, what it is, or the answer of a request for it. */
export type WasmSource = string | URL | Request | Response | BufferSource | WebAssembly.Module | PromiseLike<Response>;

/**
 * Loads the wasm. Only a page without a bundler has to call this, once, before anything else; elsewhere it does nothing, unless
 * it comes first and says where the wasm is.
 *
 * @param source Where the wasm is, if not beside this script: an address, a response, bytes, or a compiled module.
 */
export function init(source?: WasmSource): Promise<void> {
  return load(source);
}
