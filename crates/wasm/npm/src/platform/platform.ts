/** Where the wasm comes from on one platform. Each file beside this one is one; the build puts one into each bundle. */
export interface Platform {
  /** The wasm, where it is there without waiting. */
  readonly now?: () => BufferSource | WebAssembly.Module;
  /** Where it is fetched from, where nothing else is said. */
  readonly address?: () => URL;
  /** Whether it is fetched only once the program asks for that. */
  readonly asked?: true;
  /** What sends requests, where that is better than the global `fetch`. */
  readonly fetch?: (url: string, init: RequestInit) => Promise<Response>;
  /** A worker whose timers are not slowed down. */
  readonly timers?: () => Worker;
}

export declare const platform: Platform;

declare global {
  /** Where the wasm is, from a bundle's own place; put in by the build. */
  const __WASM__: string;
}
