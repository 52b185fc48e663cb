/** One service, as the clients of it share it. */
import type { Client } from "#wasm";
import { Handle } from "./handle.js";
import { type ClientOptions, resolved } from "./options.js";

/** A client, of which others can be made that talk to the same service in the same way. */
export interface Connected {
  /** @internal */
  readonly _client: Handle<Client>;
}

/** Who is talked to: by these options, or as another client does. */
export function connection(of: ClientOptions | Connected): Handle<Client> {
  if ("_client" in of) return of._client;
  const options = resolved(of);
  const { fetch } = of;
  return new Handle((wasm) => new wasm.Client(options, fetch));
}
