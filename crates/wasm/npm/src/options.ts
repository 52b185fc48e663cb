/** What clients are made with, and what calls are given. */
import { ConfigError } from "./errors.js";

/** What every call can be given. */
export interface CallOptions {
  /** Ends the call: what it sent is aborted, and the promise is rejected with the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** The service, and how it is talked to. */
export interface ClientOptions {
  /** Where the service is. In Node, Deno and Bun the environment's `TINKER_BASE_URL` where nothing is said, else the hosted service's. */
  readonly baseUrl?: string | undefined;
  /**
   * The key. In Node, Deno and Bun the environment's `TINKER_API_KEY` where nothing is said. A page must not hold one: whoever opens it
   * could read it.
   */
  readonly apiKey?: string | undefined;
  /** More headers for every request. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** What sends requests, in the place of the global `fetch`; in Node in the place of its `node:http`. */
  readonly fetch?: ((url: string, init: RequestInit) => Promise<Response>) | undefined;
  /**
   * For how long a call is sent again while the service cannot be reached or is overloaded, in seconds; 300. Samples are drawn again
   * for two hours, and a download is gone on with five times.
   */
  readonly retryForSeconds?: number | undefined;
}

/** Where the hosted service is; as in the official SDK 0.38. */
const HOSTED = "https://tinker.thinkingmachines.dev/services/tinker-prod";

function environment(name: string): string | undefined {
  const { process } = globalThis as { process?: { env?: Record<string, string | undefined> } };
  return process?.env?.[name] || undefined;
}

/**
 * The names of {@link ClientOptions}.
 *
 * @internal
 */
export const CLIENT: readonly string[] = ["baseUrl", "apiKey", "headers", "fetch", "retryForSeconds"];

/**
 * The options of a client, with what the environment says.
 *
 * @internal
 */
export function resolved(options: ClientOptions, beside: readonly string[]): { baseUrl: string; apiKey?: string; headers?: Record<string, string>; retryForSeconds?: number } {
  known("a client", options, [...CLIENT, ...beside]);
  const apiKey = options.apiKey ?? environment("TINKER_API_KEY");
  return {
    baseUrl: options.baseUrl ?? environment("TINKER_BASE_URL") ?? HOSTED,
    ...(apiKey === undefined ? {} : { apiKey }),
    ...(options.headers === undefined ? {} : { headers: { ...options.headers } }),
    ...(options.retryForSeconds === undefined ? {} : { retryForSeconds: options.retryForSeconds }),
  };
}

/**
 * These options, unless a member means nothing: a name in snake_case would else be passed over in silence.
 *
 * @internal
 */
export function known<T extends object>(what: string, options: T, names: readonly string[]): T {
  for (const name of Object.keys(options)) {
    if (!names.includes(name)) {
      const like = names.find((each) => each.toLowerCase() === name.replaceAll("_", "").toLowerCase());
      const hint = like === undefined ? `it takes ${names.join(", ")}` : `did you mean '${like}'?`;
      throw new ConfigError(`${what} takes no option '${name}': ${hint}`);
    }
  }
  return options;
}

/**
 * Options as the wire names them, as JSON. Labels keep the names that people gave them.
 *
 * @internal
 */
export function wire(options: object): string {
  const named = Object.entries(options).map(([name, value]) => [snake(name), value] as const);
  return JSON.stringify(Object.fromEntries(named.filter(([, value]) => value !== undefined)));
}

function snake(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
