/** One service, as the clients of it share it. */
import { platform } from "#platform";
import type { Client } from "#wasm";
import { Connected } from "./connected.js";
import { ConfigError } from "./errors.js";
import { SharedHandle } from "./handle.js";
import { type ClientOptions, resolved, wire } from "./options.js";

/** Who is talked to: by these options, or as another client does; `beside` are members that are for somebody else. */
export function connection(of: ClientOptions | Connected, beside: readonly string[] = []): SharedHandle<Client> {
  if (of instanceof Connected) return of._client;
  const prototype: unknown = Object.getPrototypeOf(of);
  if (prototype !== null && prototype !== Object.prototype) {
    throw new ConfigError("a client is made of options, or of another client of the same entry of this package");
  }
  const options = resolved(of, beside);
  const { fetch = platform.fetch } = of;
  return new SharedHandle((wasm) => new wasm.Client(wire(options), fetch));
}
